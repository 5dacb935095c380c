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

// listCorpus returns the files of the collection of real configurations that
// match a pattern. The collection is not part of the repository.
func listCorpus(t *testing.T, pattern string) []string {
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

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every configuration published for 0.18.10 has the same normal form as there,
// with keys in the same order.
func TestCorpus_NormalFormEqualsOriginal(t *testing.T) {
	for _, golden := range listCorpus(t, "config/original/*/*.golden.json") {
		file := strings.TrimSuffix(golden, ".golden.json")
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := spec.ParseConfiguration(file, readFile(t, file))
			if err != nil {
				t.Fatal(err)
			}
			got := marshalNormal(t, c)
			if diff := cmp.Diff(splitTokens(t, readFile(t, golden)), splitTokens(t, got)); diff != "" {
				t.Errorf("normal form (-original +ours):\n%s", diff)
			}
			again, err := spec.ParseConfiguration(golden, readFile(t, golden))
			if err != nil {
				t.Fatal(err)
			}
			if twice := marshalNormal(t, again); string(twice) != string(got) {
				t.Errorf("the normal form parses to\n%s, want\n%s", twice, got)
			}
			if s, ok := c.(*spec.Service); ok {
				var wire spec.Service
				if err := json.Unmarshal(readFile(t, golden), &wire); err != nil {
					t.Fatal(err)
				}
				if twice := marshalNormal(t, wire); string(twice) != string(marshalNormal(t, s)) {
					t.Errorf("the wire form unmarshals to\n%s", twice)
				}
			}
		})
	}
}

func marshalNormal(t *testing.T, c any) []byte {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// splitTokens returns the tokens of a JSON document, so that comparisons
// include the order of keys.
func splitTokens(t *testing.T, text []byte) []string {
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

// Configurations of later versions parse. Their unsupported features are
// reported as such, with position and hint.
func TestCorpus_NewerConfigurationsParseAndAreUnsupported(t *testing.T) {
	for _, file := range listCorpus(t, "config/later/*/*.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := readFile(t, file)
			c, err := spec.ParseConfiguration(file, text)
			if err != nil {
				problems, _ := errors.AsType[spec.Problems](err)
				t.Fatal(problems.Render(false))
			}
			for _, p := range spec.Locate(file, text, c.Unsupported()) {
				if !p.Unsupported || !strings.HasPrefix(p.Message, "not supported yet: ") || p.Line == 0 || p.Hint == "" {
					t.Errorf("%+v is not an unsupported feature with position and hint", p)
				}
			}
		})
	}
}

var yamlExample = regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```")

// Every example on the original page about services parses.
func TestCorpus_ExamplesOfOriginalDocsParse(t *testing.T) {
	page := string(readFile(t, listCorpus(t, "../seed/service.md")[0]))
	blocks := yamlExample.FindAllStringSubmatch(page, -1)
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

func TestExamples_ParseAndAreSupported(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*.dstack.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no examples: %v", err)
	}
	for _, file := range files {
		s, err := spec.ParseService(file, readFile(t, file))
		if err != nil {
			t.Error(err)
			continue
		}
		if problems := spec.Unsupported(s, spec.Profile{}); problems != nil {
			t.Errorf("%s: %v", file, problems)
		}
	}
}
