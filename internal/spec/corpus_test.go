package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

// corpus lists files of the shared collection of real configurations, which
// lies beside the checkout and is no part of it.
func corpus(t *testing.T, pattern string) []string {
	t.Helper()
	root := os.Getenv("DSTACK_CORPUS")
	if root == "" {
		root = filepath.Join("..", "..", "shared", "corpus")
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			root = filepath.Join("..", "..", "..", "shared", "corpus")
		}
	}
	files, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("needs corpus: the corpus of real configurations is not in %s; set DSTACK_CORPUS to where it is", root)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every configuration that people published for this version has the normal
// form that the original gives it, key by key in its order.
func TestPublishedConfigurationsHaveTheOriginalsNormalForm(t *testing.T) {
	for _, golden := range corpus(t, "config/original/*/*.golden.json") {
		file := strings.TrimSuffix(golden, ".golden.json")
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := spec.ParseConfiguration(file, read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			got := normalForm(t, c)
			if diff := cmp.Diff(tokens(t, read(t, golden)), tokens(t, got)); diff != "" {
				t.Errorf("normal form (-original +ours):\n%s", diff)
			}
			again, err := spec.ParseConfiguration(golden, read(t, golden))
			if err != nil {
				t.Fatal(err)
			}
			if twice := normalForm(t, again); string(twice) != string(got) {
				t.Errorf("read back from its normal form it is\n%s\nnot\n%s", twice, got)
			}
			if s, ok := c.(*spec.Service); ok {
				var wire spec.Service
				if err := json.Unmarshal(read(t, golden), &wire); err != nil {
					t.Fatal(err)
				}
				if twice := normalForm(t, wire); string(twice) != string(normalForm(t, s)) {
					t.Errorf("from the wire it is\n%s", twice)
				}
			}
		})
	}
}

func normalForm(t *testing.T, c any) []byte {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tokens is a document as a list, so that the order of keys counts.
func tokens(t *testing.T, text []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var list []string
	for d.More() || len(list) == 0 || list[len(list)-1] != "" {
		token, err := d.Token()
		if err != nil {
			break
		}
		b, err := json.Marshal(token)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(b))
	}
	return list
}

// What later versions added is read; a plan refuses what nothing acts on,
// which is told apart from mistakes, and each with its place.
func TestLaterConfigurationsAreReadAndRefusedWhenPlanned(t *testing.T) {
	for _, file := range corpus(t, "config/later/*/*.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := read(t, file)
			c, err := spec.ParseConfiguration(file, text)
			if err != nil {
				problems, _ := errors.AsType[spec.Problems](err)
				t.Fatal(problems.Render(false))
			}
			for _, p := range spec.Locate(file, text, c.Unsupported()) {
				if !p.Unsupported || !strings.HasPrefix(p.Message, "not supported yet: ") || p.Line == 0 || p.Hint == "" {
					t.Errorf("%+v does not say that it is not supported yet, where, and what to do", p)
				}
			}
		})
	}
}

var yamlMapping = regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```")

// Every example of the service's page is read as it stands.
func TestThePagesExamplesAreRead(t *testing.T) {
	page := string(read(t, corpus(t, "../seed/service.md")[0]))
	blocks := yamlMapping.FindAllStringSubmatch(page, -1)
	if len(blocks) < 10 {
		t.Fatalf("the page has only %d examples", len(blocks))
	}
	for _, block := range blocks {
		text := strings.ReplaceAll("\n"+block[2], "\n"+block[1], "\n")
		if !strings.Contains(text, "type: service") {
			continue
		}
		if _, err := spec.ParseService("page", []byte(text)); err != nil {
			problems, _ := errors.AsType[spec.Problems](err)
			t.Errorf("%s\n%s", text, problems.Render(false))
		}
	}
}

func TestOurExamplesAreReadAndSupported(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*.dstack.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no examples: %v", err)
	}
	for _, file := range files {
		s, err := spec.ParseService(file, read(t, file))
		if err != nil {
			t.Error(err)
			continue
		}
		if problems := spec.Unsupported(s, spec.Profile{}); problems != nil {
			t.Errorf("%s: %v", file, problems)
		}
	}
}
