package gitignore

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// TestParseConfig_AgreesWithGit compares generated files with `git config --list`.
func TestParseConfig_AgreesWithGit(t *testing.T) {
	dir := t.TempDir()
	for seed := range *oracleCases / 4 {
		g := &treeGenerator{Rand: rand.New(rand.NewPCG(uint64(seed), 3)), t: t}
		var b strings.Builder
		if g.chance(10) {
			b.WriteString("\xef\xbb\xbf")
		}
		for range 1 + g.IntN(6) {
			b.WriteString(pick(g, "[core]", "[Core]\n", "[a \"Sub.\\\"x\\\\y\"]\n", "[a.Sub]", "[ab-1]\r\n", "  [include]\t"))
			for range g.IntN(4) {
				b.WriteString(pick(g, "excludesFile = ~/x", "\tName = a b  ", "x", "x=", "y = \"a ; b\" # c", "z=a;b", "v = a\\\n  b", "q = \" a \"  b ",
					"w = \\t\\n\\\\\\\"", "# comment", "; comment", "", "K1-x = 'q'", "path = \"\" ", "e = a\"b\"c"))
				b.WriteString(pick(g, "\n", "\n", "\r\n", "\n\n"))
			}
		}
		path := filepath.Join(dir, fmt.Sprint(seed))
		writeFile(t, path, b.String())
		var got strings.Builder
		found, err := parseConfig([]byte(b.String()))
		if err != nil {
			t.Errorf("%q: %v", b.String(), err)
		}
		for _, s := range found {
			got.WriteString(s.key)
			if s.hasValue {
				got.WriteString("\n" + s.value)
			}
			got.WriteByte(0)
		}
		if want := runGit(t, dir, dir, "", "config", "--no-includes", "-f", path, "--list", "-z"); got.String() != want {
			t.Errorf("%q:\n got %q\nwant %q", b.String(), got.String(), want)
		}
	}
}

func TestParseConfig_RefusesMalformedFiles(t *testing.T) {
	for _, content := range []string{"x = 1\n", "[a\n", "[a]\nx = \"b\n", "[a]\nx = \\q\n", "[a \"b]\n", "[a]\n1x = 1\n", "[a]\nx y\n", "[a]\nx # comment\n", "[a \"b\" ]\n"} {
		if _, err := parseConfig([]byte(content)); err == nil {
			t.Errorf("%q is accepted", content)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("[a \"b\"]\nx = \"y\\\n z\" ; c\n"))
	f.Fuzz(func(_ *testing.T, content []byte) {
		_, _ = parseConfig(content) // no panic, and an end
	})
}
