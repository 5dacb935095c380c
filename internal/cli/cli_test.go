package cli

import (
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "write the generated pages anew")

func TestExitCodes_PageIsUpToDate(t *testing.T) {
	const page = "../../docs/reference/exit-codes.md"
	if *update {
		if err := os.MkdirAll("../../docs/reference", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, []byte(ExitCodesPage()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil || string(text) != ExitCodesPage() {
		t.Errorf("%s is out of date (%v): go test ./internal/cli -run TestExitCodes -update", page, err)
	}
}

func TestExitCodes_CoverEveryKind(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../dstack/error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var inTable []string
	for _, exit := range exitStatuses {
		for _, k := range exit.Kinds {
			inTable = append(inTable, string(k))
		}
	}
	kinds := 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := v.Type.(*ast.Ident); !ok || name.Name != "Kind" {
			return true
		}
		kinds++
		kind, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if !slices.Contains(inTable, kind) {
			t.Errorf("kind %s has no exit status", kind)
		}
		return true
	})
	if kinds == 0 || kinds != len(inTable) {
		t.Errorf("%d kinds, %d of them in the table", kinds, len(inTable))
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{&dstack.Error{Kind: dstack.Conflict}, 1},
		{spec.Problems{{}}, 2},
		{&dstack.Error{Kind: dstack.Unavailable, Cause: spec.Problems{{}}}, 1},
		{&failureReport{err: &dstack.Error{Kind: dstack.NoCapacity}}, 4},
		{errors.Join(nil, &dstack.Error{Kind: dstack.Timeout}), 5},
		{&reportedError{&dstack.Error{Kind: dstack.TooLarge}}, 2},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v gives %d, want %d", c.err, got, c.want)
		}
	}
}

func TestHelp_HasOneSentenceAndTwoExamples(t *testing.T) {
	u := newTestUser(t, nil)
	root := New(Options{Version: "1", Server: &cobra.Command{Use: "server", Short: "Run the server.", Run: func(*cobra.Command, []string) {}}})
	for _, c := range commandTree(root) {
		if c.Hidden || c.Name() == "server" {
			continue
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		got := u.run(args...)
		if got.code != ExitDone || got.err != "" {
			t.Errorf("%v: exit status %d: %s", args, got.code, got.err)
		}
		lines := strings.Split(got.out, "\n")
		if !strings.HasSuffix(lines[0], ".") || strings.Count(lines[0], ".") != 1 {
			t.Errorf("%v begins with %q", args, lines[0])
		}
		if lines[1] != "" || !strings.Contains(lines[2], "dstack ") || !strings.Contains(lines[3], "dstack ") || lines[4] != "" {
			t.Errorf("%v has no two examples at its head:\n%s", args, got.out)
		}
	}
	if got := u.run(); got.code != ExitDone || !strings.Contains(got.out, "commands:") {
		t.Errorf("without a command: %+v", got)
	}
}

// commandTree returns a command and all its subcommands.
func commandTree(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, under := range c.Commands() {
		all = append(all, commandTree(under)...)
	}
	return all
}

func TestUsage_DidYouMean(t *testing.T) {
	for _, c := range []struct {
		args []string
		err  string
	}{
		{[]string{"aply"}, "error: unknown command `aply`\n  try   did you mean `dstack apply`?"},
		{[]string{"aply", "-f", "x.yml"}, "unknown command `aply`"},
		{[]string{"destory", "x"}, "did you mean `dstack destroy`?"},
		{[]string{"xyzzy"}, "see: dstack --help"},
		{[]string{"aply", "--help"}, "unknown command `aply`\n  try   did you mean `dstack apply`?"},
		{[]string{"-h", "xyzzy"}, "unknown command `xyzzy`"},
		{[]string{"template", "rendr", "--help"}, "did you mean `dstack template render`?"},
		{[]string{"help", "lgos"}, "did you mean `dstack logs`?"},
		{[]string{"apply", "--tiemout", "1m"}, "error: unknown flag `--tiemout`\n  try   did you mean `--timeout`?"},
		{[]string{"apply", "-q"}, "unknown flag `-q`"},
		{[]string{"apply", "--timeout", "soon"}, "--timeout: `soon` is not a duration\n  try   write 10m or 90s"},
		{[]string{"rollback", "web", "--timeout", "10"}, "--timeout: `10` is not a duration\n  try   write 10m or 90s"},
		{[]string{"apply", "--timeout"}, "--timeout needs a value"},
		{[]string{"ps", "-o", "yaml"}, "\"yaml\" is not an output format, only json is"},
		{[]string{"logs"}, "dstack logs needs the name of a run"},
		{[]string{"logs", "a", "b"}, "unexpected argument `b`"},
		{[]string{"stop"}, "dstack stop needs the name of a run"},
		{[]string{"delete"}, "needs the name of a run, or -f FILE"},
		{[]string{"completion", "fihs"}, "did you mean `fish`?"},
		{[]string{"logs", "a", "--replica", "-2"}, "--replica: "},
	} {
		u := newTestUser(t, nil)
		got := u.run(c.args...)
		if got.code != ExitInvalid || !strings.Contains(got.err, c.err) || got.out != "" {
			t.Errorf("%v: exit status %d\n%s\nwant %s", c.args, got.code, got.err, c.err)
		}
	}
}

// Every flag of every command that has a number, a duration or a switch gets a value that is none.
func TestUsage_NeverShowsGoErrors(t *testing.T) {
	u := newTestUser(t, nil)
	tried := 0
	for _, c := range commandTree(New(Options{})) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "string" || f.Value.Type() == "stringArray" || f.Name == "help" {
				return
			}
			tried++
			got := u.run(append(strings.Fields(c.CommandPath())[1:], "--"+f.Name+"=5 bananas")...)
			if got.code != ExitInvalid || !strings.Contains(got.err, "--"+f.Name) {
				t.Errorf("%s --%s: exit status %d: %s", c.CommandPath(), f.Name, got.code, got.err)
			}
			for _, word := range []string{"strconv", "parsing", "invalid syntax", "time:", "unit"} {
				if strings.Contains(got.err, word) {
					t.Errorf("%s --%s: %s", c.CommandPath(), f.Name, got.err)
				}
			}
		})
	}
	if tried < 20 {
		t.Errorf("only %d flags were tried", tried)
	}
}

func TestUsage_SeparatesUsageErrorsFromRunErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{{[]string{"server", "--a", "--b"}, ExitInvalid}, {[]string{"server"}, ExitFailed}} {
		server := &cobra.Command{Use: "server", RunE: func(*cobra.Command, []string) error { return errors.New("the port is taken") }}
		server.Flags().Bool("a", false, "")
		server.Flags().Bool("b", false, "")
		server.MarkFlagsMutuallyExclusive("a", "b")
		root := New(Options{Out: io.Discard, Err: io.Discard, Server: server})
		root.SetArgs(c.args)
		if got := Execute(t.Context(), root); got != c.want {
			t.Errorf("%v: exit status %d, want %d", c.args, got, c.want)
		}
	}
}

func TestVersionAndCompletion(t *testing.T) {
	u := newTestUser(t, nil)
	u.run("version").check(t, 0, []string{"dstack 1.2.3\n"}, nil)
	u.run("--version").check(t, 0, []string{"dstack 1.2.3\n"}, nil)
	u.run("version", "-o", "json").check(t, 0, []string{`"version": "1.2.3"`}, nil)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		u.run("completion", shell).check(t, 0, []string{"dstack"}, nil)
	}
	f := newFakeServer(t)
	f.list = runViews(readyView)
	newTestUser(t, f).run("__complete", "logs", "").check(t, 0, []string{"web\n"}, nil)
}
