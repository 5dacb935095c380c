package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// commandVariable marks the processes of a command. An API server cannot end a command, so its processes are found by this
// variable, which they inherit.
const commandVariable = "DSTACK_COMMAND"

// Times of the end of a command.
const (
	hangUpTime  = time.Second
	endTime     = 3 * time.Second         // for the stream to end after the processes
	overTime    = 1500 * time.Millisecond // for the API server to know that the container has ended, after its commands
	signalTimes = 10 * time.Second
)

// commandScript sets the mark and the terminal's type, and becomes the command. It prints the mark if there is no such program.
const commandScript = `export ` + commandVariable + `="$1"; [ -z "$2" ] || export TERM="$2"; m=$1; shift 2
case "$1" in
*/*) [ -e "$1" ] || { printf '%s' "$m none"; exit 127; }; [ -f "$1" ] && [ -x "$1" ] || { printf '%s' "$m refused"; exit 126; } ;;
*) command -v "$1" >/dev/null 2>&1 || { printf '%s' "$m none"; exit 127; } ;;
esac
exec "$@"`

// signalScript sends a signal to the processes whose environment has a mark.
const signalScript = `for p in /proc/[0-9]*; do
case "$(cat "$p/environ" 2>/dev/null)" in *"$1"*) kill "-$2" "${p#/proc/}"; kill -CONT "${p#/proc/}";; esac
done 2>/dev/null`

var errClusterClosed = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping, and the command was ended", Hint: "try again in a moment"}

// Exec implements engine.Executor.
func (e *Engine) Exec(ctx context.Context, spec dstack.AttemptSpec, command engine.Command) (int, error) {
	if e.ctx.Err() != nil {
		return 0, errClusterClosed
	}
	e.work.Add(1)
	defer e.work.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(errClusterClosed) })()
	if err := e.waitUntilListed(ctx); err != nil {
		return 0, err
	}
	pod := e.refresh().byAttempt[kubeclient.LabelValue(string(spec.Attempt))]
	if pod == nil || !isRunning(pod) {
		return 0, engine.NewNotRunningError()
	}
	defer e.trackCommand(spec.Attempt, cancel)()
	c := &podCommand{Engine: e, command: command, pod: pod, mark: commandVariable + "-" + uuid.NewString()}
	return c.run(ctx)
}

// trackCommand registers a command, so that the removal of its attempt ends it.
func (c *Cluster) trackCommand(id dstack.AttemptID, cancel context.CancelCauseFunc) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := &cancel
	c.commands[id] = append(c.commands[id], entry)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.commands[id] = slices.DeleteFunc(c.commands[id], func(other *context.CancelCauseFunc) bool { return other == entry })
		if len(c.commands[id]) == 0 {
			delete(c.commands, id)
		}
	}
}

// endCommands ends the commands of an attempt that is being removed.
func (c *Cluster) endCommands(id dstack.AttemptID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cancel := range c.commands[id] {
		(*cancel)(engine.NewAttemptEndedError())
	}
}

// podCommand is a command that runs in the pod of an attempt.
type podCommand struct {
	*Engine
	command engine.Command
	pod     *corev1.Pod
	mark    string
}

// outcome is how a command ended.
type outcome struct {
	code int
	err  error
}

// run runs the command until it or ctx ends, and kills what is left of it.
func (c *podCommand) run(ctx context.Context) (int, error) {
	argv, terminal := c.command.Argv, ""
	if len(argv) == 0 {
		argv = engine.ShellArgv()
	}
	if t := c.command.Terminal; t != nil {
		terminal = t.Type
	}
	output := &markFilter{w: c.command.Stdout, prefix: c.mark}
	request := kubeclient.ExecRequest{
		Pod: c.pod.Name, Container: mainContainer, Stdin: c.command.Stdin, Stdout: output, Stderr: c.command.Stderr,
		Argv: append([]string{"/bin/sh", "-c", commandScript, "sh", c.mark, terminal}, argv...),
	}
	streamCtx, endStream := context.WithCancel(context.WithoutCancel(ctx))
	defer endStream()
	c.addTerminal(streamCtx, &request)
	ended := make(chan outcome, 1)
	var work sync.WaitGroup
	work.Go(func() {
		code, err := c.client.Exec(streamCtx, request)
		ended <- outcome{code, err}
	})
	defer work.Wait()
	select {
	case o := <-ended:
		code, err := c.explain(ctx, o, output)
		c.work.Go(func() { c.signal("KILL") })
		return code, err
	case <-ctx.Done():
	}
	c.hangUp(ended)
	endStream()
	if c.isPodOver() && !errors.Is(context.Cause(ctx), errClusterClosed) {
		return 0, engine.NewAttemptEndedError()
	}
	return 0, context.Cause(ctx)
}

// addTerminal gives the command a terminal, at first of the size that it has now.
func (c *podCommand) addTerminal(ctx context.Context, request *kubeclient.ExecRequest) {
	t := c.command.Terminal
	if t == nil {
		return
	}
	sizes := make(chan kubeclient.TerminalSize, 1)
	if t.Size != (engine.TerminalSize{}) {
		sizes <- kubeclient.TerminalSize{Columns: t.Size.Columns, Rows: t.Size.Rows}
	}
	request.Terminal, request.Resizes, request.Stderr = true, sizes, nil
	c.work.Go(func() {
		for {
			select {
			case size, isOpen := <-t.Resizes:
				if !isOpen {
					return
				}
				select {
				case sizes <- kubeclient.TerminalSize{Columns: size.Columns, Rows: size.Rows}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
}

// hangUp ends the command and everything that it has started: first with SIGHUP.
func (c *podCommand) hangUp(ended <-chan outcome) {
	c.signal("HUP")
	timer := time.NewTimer(hangUpTime)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	c.signal("KILL")
}

// signal sends a signal to all processes of the command. An image without a shell has none that could get it.
func (c *podCommand) signal(name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), signalTimes)
	defer cancel()
	_, _ = c.runScript(ctx, c.pod.Name, mainContainer, nil, signalScript, c.mark, name) // the pod may have ended
}

// explain returns the exit code of a command that has ended, or why there is none.
func (c *podCommand) explain(ctx context.Context, o outcome, output *markFilter) (int, error) {
	switch {
	case o.err == nil && output.isMark("none"):
		return engine.ExitNoProgram, engine.NewNoProgramError(c.command.Argv)
	case o.err == nil && output.isMark("refused"):
		return engine.ExitNotExecutable, newNotExecutableError(c.command.Argv)
	}
	if err := output.flush(); err != nil && o.err == nil {
		return 0, fmt.Errorf("write the output: %w", err)
	}
	const killed = 137
	if (o.err != nil || o.code == killed) && c.waitUntilOver(ctx) {
		return 0, engine.NewAttemptEndedError()
	}
	if o.err == nil {
		return o.code, nil
	}
	if dstack.KindOf(o.err) == dstack.Invalid {
		return o.code, engine.NewNoProgramError(nil) // there is not even a shell
	}
	return 0, o.err
}

func newNotExecutableError(argv []string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: "cannot run `" + argv[0] + "`: it is not a program, or may not be run",
		Hint: "check the path; shell syntax needs a shell: -- sh -c '…'"}
}

// waitUntilOver reports whether the attempt has ended. The API server learns of it after the end of a command.
func (c *podCommand) waitUntilOver(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, overTime)
	defer cancel()
	for {
		changed := c.pods.Changed()
		if c.isPodOver() {
			return true
		}
		if err := loop.SleepUntil(ctx, overTime, changed); err != nil {
			return false
		}
	}
}

// isPodOver reports whether the pod has ended, is being deleted or is gone.
func (c *podCommand) isPodOver() bool {
	found, ok := c.pods.Get(c.pod.Name)
	return !ok || found.UID != c.pod.UID || isOver(found) || found.DeletionTimestamp != nil
}

// markFilter passes output on, except while it may be the mark by which commandScript says that it did not start the command.
type markFilter struct {
	w      io.Writer
	prefix string

	mu     sync.Mutex
	held   []byte
	passes bool
}

const maxMarkEnd = 16

func (f *markFilter) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.passes {
		return f.w.Write(p)
	}
	f.held = append(f.held, p...)
	n := min(len(f.held), len(f.prefix))
	if string(f.held[:n]) == f.prefix[:n] && len(f.held) <= len(f.prefix)+maxMarkEnd {
		return len(p), nil
	}
	return len(p), f.pass()
}

// pass passes on what is held, and everything after it.
func (f *markFilter) pass() error {
	f.passes = true
	held := f.held
	f.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := f.w.Write(held)
	return err
}

func (f *markFilter) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pass()
}

// isMark reports whether all of the output is the mark with a word.
func (f *markFilter) isMark(word string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Equal(bytes.TrimSpace(f.held), []byte(f.prefix+" "+word)) && strings.HasPrefix(f.prefix, commandVariable)
}
