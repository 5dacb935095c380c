package enginetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// commandCases are the cases of engine.Executor.
var commandCases = []contractCase{
	{"a command sees the attempt's environment and folder", commandSeesAttempt},
	{"a command has an exit code", commandHasExitCode},
	{"a command's input and output are passed on byte by byte", commandPassesBytes},
	{"without a command line, a shell runs", commandRunsShell},
	{"a command has a terminal", commandHasTerminal},
	{"Ctrl-C on the terminal interrupts the command", commandIsInterrupted},
	{"a program that does not exist has exit code 127", commandRefusesUnknown},
	{"a command whose caller is gone ends, with what it started", commandEndsWithCaller},
	{"what a command leaves behind ends", commandLeavesNothing},
	{"a command ends with its attempt", commandEndsWithAttempt},
	{"the removal of an attempt ends its commands", commandEndsWithRemoval},
	{"a command ends when the engine is closed", commandEndsWithEngine},
	{"a command beside an ended attempt is refused", commandNeedsAttempt},
}

// runningCommand is a command whose output can be waited for.
type runningCommand struct {
	h      *harness
	stop   context.CancelCauseFunc
	stdin  *io.PipeWriter
	done   chan struct{}
	code   int
	err    error
	stdout lockedBuffer
	stderr lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// runService starts an attempt that runs until it is stopped, and returns its
// specification.
func (h *harness) runService() dstack.AttemptSpec {
	h.t.Helper()
	spec := h.newSpec("sleep 1000", func(spec *dstack.AttemptSpec) {
		spec.CodeHash, spec.WorkingDir = codeHash, "app"
		spec.Env["SPACED"] = "a b  c"
	})
	h.waitForReport(h.startAttempt(spec), "running", isRunning)
	return spec
}

func (h *harness) startCommand(spec dstack.AttemptSpec, terminal *engine.Terminal, argv ...string) *runningCommand {
	h.t.Helper()
	executor, ok := h.Engine.(engine.Executor)
	if !ok {
		h.t.Fatal("the engine runs no commands beside attempts")
	}
	ctx, stop := context.WithCancelCause(h.ctx())
	in, stdin := io.Pipe()
	c := &runningCommand{h: h, stop: stop, stdin: stdin, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.code, c.err = executor.Exec(ctx, spec, engine.Command{
			Argv: argv, Terminal: terminal, Stdin: in, Stdout: &c.stdout, Stderr: &c.stderr,
		})
		_ = in.Close()
	}()
	return c
}

func (h *harness) startScript(spec dstack.AttemptSpec, script string) *runningCommand {
	h.t.Helper()
	return h.startCommand(spec, nil, "sh", "-c", script)
}

func (c *runningCommand) write(text string) {
	c.h.t.Helper()
	if _, err := io.WriteString(c.stdin, text); err != nil {
		c.h.t.Fatalf("write %q: %v", text, err)
	}
}

func (c *runningCommand) waitForOutput(text string) {
	c.h.t.Helper()
	c.h.waitUntil("printing "+text, func() bool { return strings.Contains(c.stdout.String(), text) },
		func() string { return fmt.Sprintf("%q, stderr %q", c.stdout.String(), c.stderr.String()) })
}

// wait returns the exit code and the error of Exec.
func (c *runningCommand) wait() (int, error) {
	c.h.t.Helper()
	select {
	case <-c.done:
	case <-time.After(c.h.stretch(caseTimeout)):
		c.h.t.Fatalf("the command has not ended; its output is %q, %q", c.stdout.String(), c.stderr.String())
	}
	return c.code, c.err
}

// runScript runs a script to its end, which must be without an error.
func (h *harness) runScript(spec dstack.AttemptSpec, script string) (stdout string) {
	h.t.Helper()
	c := h.startScript(spec, script)
	_ = c.stdin.Close()
	if code, err := c.wait(); code != 0 || err != nil {
		h.t.Fatalf("%s: exit code %d, %v\n%s%s", script, code, err, c.stdout.String(), c.stderr.String())
	}
	return c.stdout.String()
}

func commandSeesAttempt(h *harness) {
	spec := h.runService()
	got := h.runScript(spec, `pwd; cat hello.txt; echo; echo "$DSTACK_RUN_NAME $SPACED"`)
	for _, want := range []string{"/app\n", "hello from the folder\n", "suite a b  c\n"} {
		if !strings.Contains(got, want) {
			h.t.Errorf("no %q in %q", want, got)
		}
	}
	h.runScript(spec, "echo changed > hello.txt")
	if got := h.runScript(spec, "cat hello.txt"); got != "changed\n" {
		h.t.Errorf("the folder is not the attempt's: %q", got)
	}
}

func commandHasExitCode(h *harness) {
	spec := h.runService()
	for script, want := range map[string]int{"exit 0": 0, "exit 1": 1, "echo out; echo err >&2; exit 77": 77,
		"exit 255": 255, "kill -9 $$": 137, "exit 127": 127, "exit 126": 126} {
		c := h.startScript(spec, script)
		if code, err := c.wait(); code != want || err != nil {
			h.t.Errorf("%s: exit code %d, %v; want %d", script, code, err, want)
		}
		if strings.HasPrefix(script, "echo") && (c.stdout.String() != "out\n" || c.stderr.String() != "err\n") {
			h.t.Errorf("stdout %q, stderr %q", c.stdout.String(), c.stderr.String())
		}
	}
}

func commandPassesBytes(h *harness) {
	spec := h.runService()
	sent := make([]byte, 3<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	c := h.startCommand(spec, nil, "cat")
	if _, err := c.stdin.Write(sent); err != nil {
		h.t.Fatal(err)
	}
	_ = c.stdin.Close() // the end of the input ends cat
	if code, err := c.wait(); code != 0 || err != nil {
		h.t.Fatalf("exit code %d, %v", code, err)
	}
	if got := c.stdout.String(); sha256.Sum256([]byte(got)) != sha256.Sum256(sent) {
		h.t.Errorf("%d bytes came back changed: %d", len(sent), len(got))
	}
}

func commandRunsShell(h *harness) {
	c := h.startCommand(h.runService(), nil)
	c.write("cd ..; echo I am $((40+2)); exit 3\n")
	if code, err := c.wait(); code != 3 || err != nil || c.stdout.String() != "I am 42\n" {
		h.t.Errorf("exit code %d, %v, %q", code, err, c.stdout.String())
	}
}

func commandHasTerminal(h *harness) {
	resizes := make(chan engine.TerminalSize, 1)
	c := h.startCommand(h.runService(), &engine.Terminal{
		Type: "xterm-test", Size: engine.TerminalSize{Columns: 101, Rows: 37}, Resizes: resizes,
	}, "sh", "-c", `tty; echo "term=$TERM"; while [ "$(stty size)" != "37 101" ]; do sleep 0.1; done; echo sized
		while [ "$(stty size)" != "11 222" ]; do sleep 0.1; done; echo resized; stty raw -echo; echo raw; head -c 5 | cat; exit 9`)
	c.waitForOutput("term=xterm-test\r\n")
	c.waitForOutput("sized\r\n")
	resizes <- engine.TerminalSize{Columns: 222, Rows: 11}
	c.waitForOutput("resized\r\n")
	c.waitForOutput("raw")
	const bytes = "\x00\x03\x10\x11\xff" // Ctrl-P is the first of Docker's detach keys
	c.write(bytes)
	if code, err := c.wait(); code != 9 || err != nil {
		h.t.Errorf("exit code %d, %v", code, err)
	}
	got := c.stdout.String()
	if !strings.HasPrefix(got, "/dev/pts/") || !strings.HasSuffix(got, bytes) {
		h.t.Errorf("the output is %q", got)
	}
}

func commandIsInterrupted(h *harness) {
	// One long sleep would not end if the signal came just before it began.
	c := h.startCommand(h.runService(), &engine.Terminal{}, "sh", "-c",
		`trap 'echo interrupted; exit 5' INT; echo up; while :; do sleep 0.1; done`)
	c.waitForOutput("up")
	c.write("\x03")
	if code, err := c.wait(); code != 5 || err != nil || !strings.Contains(c.stdout.String(), "interrupted") {
		h.t.Errorf("exit code %d, %v, %q", code, err, c.stdout.String())
	}
}

func commandRefusesUnknown(h *harness) {
	spec := h.runService()
	for _, terminal := range []*engine.Terminal{nil, {}} {
		c := h.startCommand(spec, terminal, "no-such-program")
		code, err := c.wait()
		if code != engine.ExitNoProgram || dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "no-such-program") {
			h.t.Errorf("exit code %d, %v", code, err)
		}
		if out := c.stdout.String() + c.stderr.String(); out != "" {
			h.t.Errorf("it printed %q", out)
		}
		if code, err := h.startCommand(spec, terminal, "/proc").wait(); code != engine.ExitNotExecutable || err == nil {
			h.t.Errorf("a folder: exit code %d, %v", code, err)
		}
	}
}

// beat writes to the file beat, and starts a process that ignores SIGHUP and goes on with
// that until it ends.
const beat = `echo beat >> beat; (trap "" HUP INT TERM; while :; do echo beat >> beat; sleep 0.1; done) & echo started; `

// expectSilence checks that a process that beat has started has ended.
func (h *harness) expectSilence(spec dstack.AttemptSpec) {
	h.t.Helper()
	last, since := "", time.Now()
	h.waitUntil("silent", func() bool {
		if now := h.runScript(spec, "cat beat"); now != last {
			last, since = now, time.Now()
		}
		return last != "" && time.Since(since) > time.Second
	}, func() string { return fmt.Sprintf("%d beats", len(last)/5) })
}

func commandEndsWithCaller(h *harness) {
	spec := h.runService()
	for _, terminal := range []*engine.Terminal{nil, {}} {
		c := h.startCommand(spec, terminal, "sh", "-c", beat+`trap "" HUP; sleep 1000; sleep 1000`)
		c.waitForOutput("started")
		gone := errors.New("the caller is gone")
		c.stop(gone)
		if _, err := c.wait(); !errors.Is(err, gone) {
			h.t.Errorf("the error is %v", err)
		}
		h.expectSilence(spec)
	}
	c := h.startScript(spec, `trap "echo hung up > hangup; exit" HUP; echo up; while :; do sleep 0.1; done`)
	c.waitForOutput("up")
	c.stop(nil)
	_, _ = c.wait()
	if got := h.runScript(spec, "cat hangup"); got != "hung up\n" {
		h.t.Errorf("the command got no SIGHUP: %q", got)
	}
}

func commandLeavesNothing(h *harness) {
	spec := h.runService()
	c := h.startScript(spec, "("+beat+") >/dev/null 2>&1; while ! cat beat; do sleep 0.1; done 2>/dev/null; exit 4")
	if code, err := c.wait(); code != 4 || err != nil {
		h.t.Errorf("exit code %d, %v", code, err)
	}
	h.expectSilence(spec)
}

func commandEndsWithAttempt(h *harness) {
	spec := h.runService()
	c := h.startScript(spec, `trap "" HUP TERM; echo up; sleep 1000; sleep 1000`)
	c.waitForOutput("up")
	h.stopAttempt(spec.Attempt, 0)
	if _, err := c.wait(); dstack.KindOf(err) != dstack.Conflict {
		h.t.Errorf("the error is %v", err)
	}
	h.waitForReport(spec.Attempt, "ended", isExited)
}

func commandEndsWithRemoval(h *harness) {
	spec := h.runService()
	c := h.startScript(spec, `trap "" HUP TERM; echo up; sleep 1000; sleep 1000`)
	c.waitForOutput("up")
	if err := h.Remove(h.ctx(), spec.Attempt); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
	if left := h.f.ListLeftovers(h.t, spec.Attempt); len(left) > 0 {
		h.t.Errorf("left after remove: %v", left)
	}
	if _, err := c.wait(); dstack.KindOf(err) != dstack.Conflict {
		h.t.Errorf("the error is %v", err)
	}
}

func commandEndsWithEngine(h *harness) {
	spec := h.runService()
	c := h.startScript(spec, beat+"sleep 1000")
	c.waitForOutput("started")
	h.reopen()
	select {
	case <-c.done:
	case <-time.After(h.stretch(500 * time.Millisecond)): // for the goroutine that reads the result
		h.t.Error("Close has not waited for the command")
	}
	if _, err := c.wait(); dstack.KindOf(err) != dstack.Unavailable {
		h.t.Errorf("the error is %v", err)
	}
	h.expectSilence(spec)
}

func commandNeedsAttempt(h *harness) {
	spec := h.newSpec("exit 0")
	unknown := h.newSpec("exit 0")
	h.waitForReport(h.startAttempt(spec), "ended", isExited)
	for _, s := range []dstack.AttemptSpec{spec, unknown} {
		if _, err := h.startScript(s, "echo no").wait(); dstack.KindOf(err) != dstack.Conflict {
			h.t.Errorf("the error is %v", err)
		}
	}
}
