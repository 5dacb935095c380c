package gitignore

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMatch_AgreesWithGit compares single rules with `git check-ignore`, thousands in one call.
func TestMatch_AgreesWithGit(t *testing.T) {
	root := t.TempDir()
	initRepository(t, root, "")
	g := &treeGenerator{Rand: rand.New(rand.NewPCG(uint64(*oracleFirst), 2)), t: t}
	type question struct{ rule, path string }
	var questions []question
	var input strings.Builder
	for i := range 20 * *oracleCases / 3 {
		g.paths = nil
		for range 5 {
			path := g.makeName()
			for g.chance(50) {
				path += "/" + g.makeName()
			}
			g.paths = append(g.paths, path)
		}
		rule := g.makeRule("")
		folder := fmt.Sprintf("%04d", i)
		writeFile(t, filepath.Join(root, folder, ".gitignore"), rule+"\n")
		for _, path := range g.paths {
			questions = append(questions, question{rule, path})
			input.WriteString(folder + "/" + path + "\x00")
		}
	}
	fields := strings.Split(runGit(t, root, root, input.String(), "check-ignore", "--stdin", "-z", "-v", "-n", "--no-index"), "\x00")
	if len(fields) != 4*len(questions)+1 {
		t.Fatalf("git returned %d fields for %d questions", len(fields), len(questions))
	}
	matched := 0
	for i, q := range questions {
		want := fields[4*i+2] != ""
		rules := ParseRules([]byte(q.rule+"\n"), false)
		got := rules.Match(q.path, false) != NoRule
		for at, c := range q.path {
			got = got || c == '/' && rules.Match(q.path[:at], true) == Ignored
		}
		if got != want {
			t.Errorf("rule %q, path %q: matches %v, want %v", q.rule, q.path, got, want)
		}
		if want {
			matched++
		}
	}
	if share := 100 * matched / len(questions); share < 10 || share > 90 {
		t.Errorf("%d %% of the rules match: the test says little", share)
	}
}

// The cases of gitignore(5), and those that other matchers get wrong. TestMatch_AgreesWithGit and TestFolder_AgreesWithGit compare with git.
func TestMatch(t *testing.T) {
	for _, c := range []struct {
		rules string
		path  string // a folder, if it ends with a slash
		want  Verdict
	}{
		{"hello.*", "sub/hello.c", Ignored},
		{"/hello.*", "sub/hello.c", NoRule},
		{"/hello.*", "hello.c", Ignored},
		{"doc/frotz", "a/doc/frotz", NoRule},
		{"foo/*", "foo/bar/hello.c", NoRule},
		{"foo/*", "foo/bar/", Ignored},
		{"**/foo/bar", "x/y/foo/bar", Ignored},
		{"**/foo", "foo", Ignored},
		{"abc/**", "abc/", NoRule},
		{"abc/**", "abc/d/e", Ignored},
		{"a/**/b", "a/b", Ignored},
		{"a/**/b", "a/x/y/b", Ignored},
		{"a**b", "a/b", NoRule},
		{"x/a**", "x/abc/d", Ignored}, // git compares the start without wildcards on its own
		{"build/", "build", NoRule},
		{"build/", "x/build/", Ignored},
		{"*\n!*/\n!*.py", "keys/", Included},
		{"*\n!*/\n!*.py", "keys/id_rsa", Ignored},
		{"*\n!*/\n!*.py", "keys/app.py", Included},
		{"\\#a", "#a", Ignored},
		{"#a", "#a", NoRule},
		{"\\!a", "!a", Ignored},
		{"a\\ ", "a ", Ignored},
		{"a  ", "a", Ignored},
		{"a\t", "a", NoRule},
		{"a\r\nb", "a", Ignored},
		{"a\r", "a", Ignored},
		{"\xef\xbb\xbfa", "a", Ignored},
		{"a\n\xef\xbb\xbfb", "b", NoRule},
		{"[a-c]", "b", Ignored},
		{"[!a-c]", "b", NoRule},
		{"[^a-c]", "d", Ignored},
		{"[]]", "]", Ignored},
		{"[[:digit:]]*", "1x", Ignored},
		{"[[:digit:]-z]", "-", Ignored}, // no range begins with a class
		{"[[:digit:]-z]", "x", NoRule},
		{"[a-c-e]", "-", Ignored},
		{"[a-c-e]", "d", NoRule},
		{"[[:digits:]]", "1", NoRule},
		{"[a", "[a", NoRule},
		{"a\\", "a\\", NoRule},
		{"x[/]y", "x/y", NoRule},
		{"?", "é", NoRule}, // git compares bytes
		{"/", "a", NoRule},
		{"!", "a", NoRule},
		{"a\n!a", "a", Included},
		{"!a\na", "a", Ignored},
	} {
		path, isFolder := strings.CutSuffix(c.path, "/")
		if got := ParseRules([]byte(c.rules), false).Match(path, isFolder); got != c.want {
			t.Errorf("rules %q, path %q: %d, want %d", c.rules, c.path, got, c.want)
		}
	}
}

func TestMatch_IgnoresCaseOnRequest(t *testing.T) {
	for _, c := range []struct {
		rule, path string
		want       Verdict
	}{
		{"ReadMe", "README", Ignored},
		{"*.PY", "app.py", Ignored},
		{"[A-C]x", "bX", Ignored},
		{"[[:upper:]]", "a", Ignored},
		{"É", "é", NoRule}, // only ASCII letters
	} {
		if got := ParseRules([]byte(c.rule), true).Match(c.path, false); got != c.want {
			t.Errorf("rule %q, path %q: %d, want %d", c.rule, c.path, got, c.want)
		}
		if got := ParseRules([]byte(c.rule), false).Match(c.path, false); got != NoRule {
			t.Errorf("rule %q, path %q: %d although the case differs", c.rule, c.path, got)
		}
	}
}

// A pattern with many asterisks takes no exponential time.
func TestMatch_TakesPolynomialTime(t *testing.T) {
	text := strings.Repeat("a", 2000)
	deep := strings.Repeat("a/", 1000) + "a"
	began := time.Now()
	for _, c := range []struct{ rule, path string }{
		{strings.Repeat("a*", 500) + "b", text},
		{strings.Repeat("*a", 500) + "b", text},
		{strings.Repeat("**/a/", 200) + "b", deep},
		{"/" + strings.Repeat("**/*a*/", 100) + "b", deep},
	} {
		if ParseRules([]byte(c.rule), false).Match(c.path, false) != NoRule {
			t.Errorf("rule %.20q matches", c.rule)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func FuzzParseRules(f *testing.F) {
	for _, seed := range []string{"*\n!*/\n!*.py", "[[:alpha:]-z]\\", "**/a/**/b*", "\xef\xbb\xbf!/x/\r\n", "a\\ \x00b", "[a-", "[[:", "[!]-\\"} {
		f.Add([]byte(seed), "a/b c/[x].py", true)
	}
	f.Fuzz(func(t *testing.T, content []byte, path string, ignoreCase bool) {
		if len(content)*len(path) > 1<<16 {
			return
		}
		rules := ParseRules(content, ignoreCase)
		began := time.Now()
		for _, isFolder := range []bool{false, true} {
			verdict := rules.Match(path, isFolder)
			if verdict == NoRule {
				continue
			}
			// The rules of the same file behind a comment say the same.
			if again := ParseRules(append([]byte("#\n"), content...), ignoreCase); !strings.HasPrefix(string(content), "\xef\xbb\xbf") &&
				again.Match(path, isFolder) != verdict {
				t.Errorf("%q behind a comment says something else about %q", content, path)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
