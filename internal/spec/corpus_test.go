package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	files, err := filepath.Glob(filepath.Join(root, "config", pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("the corpus of real configurations is not in %s; set DSTACK_CORPUS to where it is", root)
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
	for _, file := range corpus(t, "original/service/*.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := spec.Parse(file, read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			golden := read(t, file+".golden.json")
			if diff := cmp.Diff(tokens(t, golden), tokens(t, got)); diff != "" {
				t.Errorf("normal form (-original +ours):\n%s", diff)
			}
			var again spec.Service
			if err := json.Unmarshal(golden, &again); err != nil {
				t.Fatal(err)
			}
			twice, err := json.Marshal(again)
			if err != nil {
				t.Fatal(err)
			}
			if string(twice) != string(got) {
				t.Errorf("read back from its normal form it is\n%s\nnot\n%s", twice, got)
			}
		})
	}
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

// What later versions added is told apart from mistakes: nothing in their
// published files is unknown or wrong, only not supported yet.
func TestLaterConfigurationsAreRefusedAsNotSupportedYet(t *testing.T) {
	for _, file := range corpus(t, "later/*/*.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := spec.Parse(file, read(t, file))
			problems, _ := errors.AsType[spec.Problems](err)
			for _, p := range problems {
				if !p.Unsupported {
					t.Errorf("%d:%d %s (%s)", p.Line, p.Col, p.Message, p.Hint)
				} else if !strings.HasPrefix(p.Message, "not supported yet: ") {
					t.Errorf("%q does not say that it is not supported yet", p.Message)
				}
			}
		})
	}
}
