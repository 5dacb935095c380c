package spec_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

func TestParseEnvFile_Accepts(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"blank lines and comments", "\n  \n# A=1\n\t# B=2\n", ""},
		{"a value", "A=1", "A=1"},
		{"an empty value", "A=\nB= \nC=''\nD=\"\"", "A=|B=|C=|D="},
		{"blanks around a value", "A= one two \t\n", "A=one two"},
		{"a comment behind a value", "A=1 # one\nB=#2\nC=a#b\nD= # nothing\nE=1\t#one", "A=1|B=#2|C=a#b|D=|E=1"},
		{"equals signs and quotes inside", "A=b=c==\nB=it's\nC=say \"x\"", "A=b=c==|B=it's|C=say \"x\""},
		{"export", "export A=1\nexport\tB=2\nexport C\nexport=3\nexported=4", "A=1|B=2|C?|export=3|exported=4"},
		{"indented", "  A=1\n\texport B=2", "A=1|B=2"},
		{"no dollar is expanded", "A=$HOME ${X}\nB=\"$HOME\"\nC='$HOME'", "A=$HOME ${X}|B=$HOME|C=$HOME"},
		{"single quotes are literal", `A='a\nb "c" # d' # e`, `A=a\nb "c" # d`},
		{"escapes", `A="a\nb\tc\rd\"e\\f\$g"`, "A=a\nb\tc\rd\"e\\f$g"},
		{"a backslash without quotes", `A=C:\new`, `A=C:\new`},
		{"values of several lines", "A=\"one\n two # 2\n\nthree\" # end\nB='x\ny'\nC=1", "A=one\n two # 2\n\nthree|B=x\ny|C=1"},
		{"lines as Windows ends them", "\ufeffA=1\r\nB=\"x\r\ny\"\r\nC\r\n", "A=1|B=x\ny|C?"},
		{"open", "A\nB # mine\n", "A?|B?"},
		{"other alphabets", "A=größe 模型", "A=größe 模型"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env, err := spec.ParseEnvFile(".env", []byte(c.text))
			if err != nil {
				problems, _ := errors.AsType[spec.Problems](err)
				t.Fatal(problems.Render(false))
			}
			var got []string
			for _, v := range env {
				if v.Open {
					if v.From != v.Name {
						t.Errorf("%s is looked up as %q", v.Name, v.From)
					}
					got = append(got, v.Name+"?")
					continue
				}
				got = append(got, v.Name+"="+v.Value)
			}
			if diff := cmp.Diff(c.want, strings.Join(got, "|")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Each problem has a position, and none shows a value.
func TestParseEnvFile_Rejects(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // line:col, message
	}{
		{"no name", "=secret", []string{"1:1 an environment variable has no name"}},
		{"a digit first", "1A=secret", []string{"1:1 this is not a valid name"}},
		{"a dash in the name", "A=1\nMY-VAR=secret", []string{"2:3 this is not a valid name"}},
		{"a space before the sign", "A =secret", []string{"1:2 there is a space before `=`"}},
		{"YAML", "A: secret", []string{"1:2 there is a colon after the name"}},
		{"two words", "A secret", []string{"1:2 this is not a valid name"}},
		{"a key of several lines without quotes", "A=x\nsecret+/secret==\n-----END-----", []string{"2:7 this is not a valid name", "3:1 this is not a valid name"}},
		{"written twice", "A=secret\n\nB=2\nexport A=secret2", []string{"4:8 `A` is set twice"}},
		{"no closing quote", "B=1\nA=\"secret\n\nsecret", []string{"2:3 this quote is not closed"}},
		{"no closing single quote", "A='secret", []string{"1:3 this quote is not closed"}},
		{"text behind a quote", `A="secret"secret`, []string{"1:11 there is text after the closing quote"}},
		{"a comment right behind a quote", `A='secret'#secret`, []string{"1:11 there is text after the closing quote"}},
		{"a quote closed too late", "A=\"secret\nB=\"secret\"\nC=1 2", []string{"2:4 there is text after the closing quote"}},
		{"an unknown escape", `A="secret\x"` + "\nB=\"\nsecret\\", []string{"1:10 this escape sequence is not supported", "2:3 this quote is not closed", "3:7 this escape sequence is not supported"}},
		{"not UTF-8", "A=1\nB=secret\xff", []string{"2:9 the file is not valid UTF-8"}},
		{"a control character", "A=sec\x00ret", []string{"1:6 the file contains a control character (code 0)"}},
		{"columns are characters", "ä=secret", []string{"1:1 this is not a valid name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := spec.ParseEnvFile("prod.env", []byte(c.text))
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok {
				t.Fatalf("not rejected with Problems: %v", err)
			}
			for i, p := range problems {
				place := fmt.Sprintf("%d:%d %s", p.Line, p.Col, p.Message)
				if i >= len(c.want) || !strings.HasPrefix(place, c.want[i]) || p.File != "prod.env" || p.Hint == "" || p.Width < 1 {
					t.Errorf("%+v, want %v", p, c.want)
				}
			}
			if len(problems) != len(c.want) {
				t.Errorf("%d problems, want %d", len(problems), len(c.want))
			}
			if shown := problems.Render(false); strings.Contains(shown, "sec") {
				t.Errorf("a value is shown:\n%s", shown)
			}
		})
	}
}

func TestParseEnvFile_RendersProblems(t *testing.T) {
	_, err := spec.ParseEnvFile(".env", []byte("A=1\nMY-VAR=secret\nB=\"secr\\et\"\nexport A=2\n"))
	want := `.env:2:3: this is not a valid name for an environment variable
   2 | MY-VAR…
     |   ^
  write NAME=value; the name has letters, digits and underscores, and does not begin with a digit

.env:3:8: this escape sequence is not supported
   3 | B="••••••…
     |        ^^
  write \\ for a backslash; \n, \t, \r, \" and \$ are supported, too; single quotes have no escapes

.env:4:8: ` + "`A`" + ` is set twice
   4 | export A…
     |        ^
  it is already set on line 1; remove one of them

3 problems in .env
`
	problems, _ := errors.AsType[spec.Problems](err)
	if diff := cmp.Diff(want, problems.Render(false)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseEnvFile_Limits(t *testing.T) {
	_, err := spec.ParseEnvFile(".env", []byte("A="+strings.Repeat("x", 1<<20)))
	if problems, ok := errors.AsType[spec.Problems](err); !ok || !strings.Contains(problems.Render(false), ".env: the file is larger than 1MB") {
		t.Errorf("a large file: %v", err)
	}
	if env, err := spec.ParseEnvFile(".env", []byte("A="+strings.Repeat("x", 1<<20-2))); err != nil || len(env) != 1 {
		t.Errorf("the largest file: %v", err)
	}
	_, err = spec.ParseEnvFile(".env", []byte(strings.Repeat("a wrong file\n", 1000)))
	if problems, ok := errors.AsType[spec.Problems](err); !ok || len(problems) != 21 || !strings.Contains(problems[20].Hint, "check that this is a file of environment variables") {
		t.Errorf("a wrong file: %d problems", len(problems))
	}
}

func TestLocateInEnvFile(t *testing.T) {
	text := []byte("# mine\nA=secret\n  export TOKEN\n")
	got := spec.LocateInEnvFile(".env", text, spec.Problems{{Path: "env.TOKEN", Message: "not set"}, {Path: "env.OTHER", Message: "nowhere"}})
	want := ".env: env.OTHER: nowhere\n\n.env:3:10: not set\n   3 |   export TOKEN\n     |          ^^^^^\n\n2 problems in .env\n"
	if diff := cmp.Diff(want, got.Render(false)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Any text is either rejected with problems that have positions, or gives
// variables that parse to the same when written out.
func FuzzEnvFile(f *testing.F) {
	for _, seed := range []string{
		"A=1\nexport B='x y' # c\nC=\"a\\n\\\"b\\\"\nc\"\nD\n", "A=\"", "A='\n'x", "=", "1A=1", "A =1", "\ufeffA=1\r\n", "A=\"\\", "A=1\nA=2",
		"A=\xff", "A=\x1b[31m", "export", "export  # x", "A= #b", "A=\"x\" y\n#", "é=1", "A: 1", "x\x00",
	} {
		f.Add([]byte(seed))
	}
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\r", `\r`)
	f.Fuzz(func(t *testing.T, text []byte) {
		env, err := spec.ParseEnvFile("f", text)
		if err != nil {
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok || len(problems) == 0 || env != nil {
				t.Fatalf("rejected without Problems: %v", err)
			}
			for _, p := range problems {
				if p.Line > 1+strings.Count(string(text), "\n") || p.Line > 0 && (p.Col < 1 || p.Width < 1) {
					t.Errorf("position %d:%d is outside of %q", p.Line, p.Col, text)
				}
			}
			problems.Render(true)
			return
		}
		var written strings.Builder
		for _, v := range env {
			if v.Open {
				fmt.Fprintln(&written, v.Name)
				continue
			}
			fmt.Fprintf(&written, "%s=\"%s\"\n", v.Name, escaped.Replace(v.Value))
		}
		again, err := spec.ParseEnvFile("f", []byte(written.String()))
		if err != nil || !slices.Equal(env, again) {
			t.Fatalf("%q parses to %v, but written as %q it parses to %v (%v)", text, env, written.String(), again, err)
		}
	})
}
