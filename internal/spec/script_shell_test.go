package spec_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dstack/internal/spec"
)

// trickyCommands are commands that reach into the next one if they are only joined, or
// that depend on the shell in which the ones before ran.
var trickyCommands = []string{
	"\\\n", "echo x \\\n", "echo a", "echo done", "true", "false", "true # comment", "# only a comment", "echo b # say b", "echo c;", "true;", "true &", "true &\nwait",
	"cat <<X\nhere $V\nX", "cat <<'X'\nunfinished", "cat <<X\n$V\nX\n", "V=1; export V", "export V=2 W=3", `echo "V is $V"`, "unset V",
	"mkdir -p sub", "cd sub", "pwd | sed 's|.*/||'", "set -e", "set +e", "set -u", "f() { false; echo in f; }", "f", "f || echo or",
	"false || true", "false || false", "false; echo after", "false && echo no", "true && echo yes", "false\necho multi", "set -e\nfalse\necho not",
	"sh -c 'exit 3'", "(exit 4)", "exit 0", "exit 5", "trap 'echo bye' EXIT", "exec 3>&1", "echo to3 >&3", "{ echo b; }", "if false",
	"if true; then echo t; fi", "then echo x", "fi", "echo 'open", `echo "open`, `echo it's`, `echo a \`, "echo a &&", "|| echo no", "&& echo no", "true |",
	"echo a ||", "(echo a", "echo a)", "echo ${V", "echo $(echo a", "alias g='echo aliased'", "g", "echo $?", "echo `echo tick`",
	"echo $(echo one; echo two)", "! true", "! false", "for i in 1 2; do echo $i; done", "while read l; do echo l $l; done <<X\n1\n2\nX",
	"exec echo replaced", "eval 'echo e'", `printf '%s\n' "it's" 'a"b' \'`, "x=$(false)", "x=$(echo 5) && echo $x", "echo \"two\nlines\"",
	"case a in a) echo c;; esac", "case a in a) false;; esac", "echo x > file; cat file", "echo y > file", "cat file", "true & false", "false & true",
	"  echo spaced  ", `echo a\ `, "echo a \\\necho b", "\n\necho blank lines\n\n", "set -x", "echo $#", "local x", "nosuchcommand", ": ${U?unset}",
	"echo $UNSET", "sleep 0 & echo $! > /dev/null", "wait", "umask 077", "umask", "cd nosuch", "cd nosuch || true", "exec 2>/dev/null", "true >", "<",
}

// shellPieces make random texts that are commands, or almost.
var shellPieces = []string{
	"true", "false", "echo a", "x=1", "b", " ", " ", " ", "'", "'", `"`, `"`, `\`, "$", "$(", "${x", "(", ")", "}", "& wait ", "&&", "|", "||", ";", "<", ">",
	">f", "#", "\n", "!", "if ", "then ", "fi", "{ ", "set -e\n", "`", "[", "]", "*", "<<E", "E\n",
}

// On real shells, joined commands print the same and end with the same status as
// commands that the same shell reads one by one, until the first failure.
func TestJoinCommands_RunOneByOneInRealShells(t *testing.T) {
	for _, shell := range [][]string{{"bash"}, {"bash", "--norc", "-i"}, {"dash"}, {"busybox", "ash"}} {
		t.Run(strings.Join(shell, " "), func(t *testing.T) {
			path, err := exec.LookPath(shell[0])
			if err != nil {
				t.Skip("needs " + shell[0] + ": this machine has none")
			}
			argv := append([]string{path}, shell[1:]...)
			check := func(t interface {
				Helper()
				Errorf(string, ...any)
			}, commands []string,
			) {
				t.Helper()
				got := runShell(argv, spec.JoinCommands(commands))
				if want := runOneByOne(argv, commands); got != want {
					t.Errorf("%s with %q:\n%s\ngot  %s\nwant %s", shell[0], commands, spec.JoinCommands(commands), got, want)
				}
			}
			for _, one := range trickyCommands {
				check(t, []string{one})
				check(t, []string{one, "echo next"})
			}
			if t.Failed() {
				return
			}
			rapid.Check(t, func(t *rapid.T) {
				check(t, rapid.SliceOfN(rapid.SampledFrom(trickyCommands), 2, 6).Draw(t, "commands"))
			})
			rapid.Check(t, func(t *rapid.T) {
				text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(shellPieces), 1, 8).Draw(t, "pieces"), "")
				if strings.Contains(strings.ReplaceAll(text, " ", ""), "()") {
					t.Skip("a function may call itself for ever")
				}
				if strings.Contains(text, "$$") {
					t.Skip("each shell has a number of its own")
				}
				commands := []string{"echo first", text, "echo last"}
				got, want := runShell(argv, spec.JoinCommands(commands)), runOneByOne(argv, commands)
				// A mistake of syntax may keep the commands before it from running, too.
				if got != want && (hasSucceeded(got) || hasSucceeded(want)) {
					t.Fatalf("%s with %q:\n%s\ngot  %s\nwant %s", shell[0], text, spec.JoinCommands(commands), got, want)
				}
			})
		})
	}
}

// hasSucceeded reports whether the last command of a random list ran, or all succeeded.
func hasSucceeded(result string) bool {
	return strings.Contains(result, "last") || strings.HasSuffix(result, "exit code 0")
}

// The message about an open quote is about the command, and not about what JoinCommands
// adds to it.
func TestJoinCommands_ReportsAnOpenQuoteOnce(t *testing.T) {
	for _, shell := range []string{"bash", "dash"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Skip("needs " + shell + ": this machine has none")
		}
		out, err := exec.Command(path, "-c", spec.JoinCommands([]string{"echo 'open", "echo next"})).CombinedOutput()
		if text := string(out); err == nil || strings.Count(text, "\n") != 1 || strings.Contains(text, "case") {
			t.Errorf("%s printed %q, %v", shell, text, err)
		}
	}
}

// runOneByOne lets the shell read each command from a file of its own.
func runOneByOne(argv []string, commands []string) string {
	folder, err := os.MkdirTemp("", "dstack-commands-")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(folder)
	var driver strings.Builder
	for i, c := range commands {
		file := filepath.Join(folder, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(c+"\n"), 0o600); err != nil {
			return err.Error()
		}
		fmt.Fprintf(&driver, ". %s\ncase $? in 0) ;; *) exit $? ;; esac\n", file)
	}
	return runShell(argv, driver.String())
}

// runShell runs a script in an empty folder, and returns its output and exit code.
func runShell(argv []string, script string) string {
	folder, err := os.MkdirTemp("", "dstack-commands-")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(folder)
	command := exec.Command(argv[0], append(argv[1:], "-c", script)...)
	command.Dir = folder
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	var out bytes.Buffer
	command.Stdout = &out
	if err := command.Run(); err != nil {
		if _, isExit := errors.AsType[*exec.ExitError](err); !isExit {
			return err.Error()
		}
	}
	code := command.ProcessState.ExitCode()
	if slices.Contains(argv, "-i") && code == 2 {
		code = 1 // an interactive bash reports mistakes of syntax as either
	}
	return fmt.Sprintf("%q, exit code %d", strings.ReplaceAll(out.String(), filepath.Base(folder), "FOLDER"), code)
}
