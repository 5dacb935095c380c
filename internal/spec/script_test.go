package spec_test

import (
	"strings"
	"testing"

	"dstack/internal/spec"
)

// Simple one-line commands keep the wire form of 0.18.10.
func TestJoinCommands_KeepsTheWireFormOfPlainCommands(t *testing.T) {
	for _, c := range []struct {
		commands []string
		want     string
	}{
		{nil, ""},
		{[]string{"a", " b "}, "a && b"},
		{[]string{"a &", "b"}, "{ a & } && b"},
		{[]string{"a && b", "c | d"}, "a && b && c | d"},
		{[]string{"pip install -r requirements.txt", "A=1 python -m http.server $PORT 2>&1"},
			"pip install -r requirements.txt && A=1 python -m http.server $PORT 2>&1"},
		{[]string{`echo "it's; # fine" 'a; b'`, `serve --key "$(cat "my key")" --n ${N:-1} >> log 2>/dev/null`},
			`echo "it's; # fine" 'a; b' && serve --key "$(cat "my key")" --n ${N:-1} >> log 2>/dev/null`},
		{[]string{"(cd app && make) > log", "! grep -q x y", "[ -f a ]", "echo a[0]", "a$(b)c d $$"},
			"(cd app && make) > log && ! grep -q x y && [ -f a ] && echo a[0] && a$(b)c d $$"},
		{[]string{"curl http://x/#a", `echo $# ${#x} a\;b \# \'`}, `curl http://x/#a && echo $# ${#x} a\;b \# \'`},
		{[]string{"echo if", "kubectl set image x"}, "echo if && kubectl set image x"},
		{[]string{"source .venv/bin/activate", "exec serve"}, "source .venv/bin/activate && exec serve"},
		{[]string{"a; b"}, "a; b"},
		{[]string{"a # b"}, "a # b"},
		{[]string{"a\nb\n"}, "a\nb\n"},
	} {
		if got := spec.JoinCommands(c.commands); got != c.want {
			t.Errorf("%q became\n%s\nnot\n%s", c.commands, got, c.want)
		}
	}
}

// A command that could reach the next one is evaluated on its own.
func TestJoinCommands_EvaluatesOtherCommandsOnTheirOwn(t *testing.T) {
	for _, c := range []string{
		"a # b", "# a", "a;", "a; b", "a ||", "a || b", "a &&", "&& a", "a |", "| a", "a & b", "a & &", "& a", "a\nb", "a\n#b",
		"cat <<X\nX", "cat <<< x", "echo 'a", `echo "a`, `echo "$(a`, "echo ${a", "(a", "a)", "`a`", "$'\\'' '", "a >", "a <",
		"a >&", "a &> b", "a |& b", "a && | b", "if a", "a && if b", "a | while b", "set -e", "a && set -e", "alias a=b", "trap x ERR",
		"{ a", "! if a", "(if a)", "echo 'a\nb'", "a > && b", "a > | b", "$(", "$()", "a $(set -e)", "a <(b)", "a[ b", "[[ a", "]]", "$$(a)", "(a)b", "(a) b", "a (b)", "$(a; b)", "a >& &", "a & #",
	} {
		end := ""
		if strings.Contains(c, "\n") {
			end = "\n"
		}
		want := "eval " + spec.QuoteWord(c+end) + "; case $? in 0) ;; *) exit $? ;; esac\neval 'b'"
		if got := spec.JoinCommands([]string{c, "b"}); got != want {
			t.Errorf("%q became\n%s", c, got)
		}
	}
}
