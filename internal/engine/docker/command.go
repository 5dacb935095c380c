package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

var _ engine.Executor = (*Engine)(nil)

// commandVariable marks the processes of a command. Docker cannot end a command, so its
// processes are found by this variable, which they inherit.
const commandVariable = "DSTACK_COMMAND"

// Times of the end of a command. Docker reports its exit code shortly after its output has
// ended.
const (
	hangUpTime       = time.Second
	exitTimeout      = 5 * time.Second
	exitPollInterval = 20 * time.Millisecond
	resizeTimeout    = 2 * time.Second
	containerEndTime = 300 * time.Millisecond
)

// neverDetach replaces Docker's detach keys, Ctrl-P Ctrl-Q, which programs need. Docker
// always has a sequence, and holds its first key back until the next one; nobody types this
// one, and Ctrl-@ does the least harm.
var neverDetach = strings.TrimSuffix(strings.Repeat("ctrl-@,", 16), ",")

// Exec implements engine.Executor.
func (e *Engine) Exec(ctx context.Context, spec dstack.AttemptSpec, c engine.Command) (int, error) {
	if e.ctx.Err() != nil {
		return 0, errEngineClosed
	}
	e.work.Add(1)
	defer e.work.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(errEngineClosed) })()
	found, err := e.findContainer(ctx, spec.Attempt)
	if err != nil {
		return 0, err
	}
	if found == nil || found.State != container.StateRunning {
		return 0, engine.NewNotRunningError()
	}
	r := &command{Engine: e, Command: c, container: found.ID, mark: commandVariable + "=" + uuid.NewString()}
	if code, err := r.start(ctx); err != nil {
		return code, err
	}
	return r.wait(ctx)
}

var errEngineClosed = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping, and the command was ended",
	Hint: "try again in a moment"}

// command is a command that runs in the container of an attempt.
type command struct {
	*Engine
	engine.Command
	container string
	mark      string // the variable that marks its processes, with its value
	id        string
	stream    client.HijackedResponse
}

// start starts the command and attaches to it. The exit code belongs to its error.
func (r *command) start(ctx context.Context) (exitCode int, err error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	options := client.ExecCreateOptions{
		AttachStdin: true, AttachStdout: true, AttachStderr: true, Env: []string{r.mark}, Cmd: r.Argv,
	}
	if len(r.Argv) == 0 {
		options.Cmd = engine.ShellArgv()
	}
	if t := r.Terminal; t != nil {
		options.TTY, options.DetachKeys = true, neverDetach
		options.ConsoleSize = client.ConsoleSize{Height: uint(t.Size.Rows), Width: uint(t.Size.Columns)}
		if t.Type != "" {
			options.Env = append(options.Env, "TERM="+t.Type)
		}
	}
	created, err := r.docker.ExecCreate(callCtx, r.container, options)
	if errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
		return 0, engine.NewNotRunningError()
	}
	if err != nil {
		return 0, r.newUnreachableError(err)
	}
	r.id = created.ID
	attached, err := r.docker.ExecAttach(callCtx, r.id,
		client.ExecAttachOptions{TTY: options.TTY, ConsoleSize: options.ConsoleSize})
	if err != nil && strings.Contains(err.Error(), refusalPrefix) {
		return r.translateRefusal(err.Error())
	}
	if err != nil {
		return 0, r.newUnreachableError(err)
	}
	r.stream = attached.HijackedResponse
	return 0, nil
}

// wait passes the streams on until the command has ended, and returns its exit code.
func (r *command) wait(ctx context.Context) (int, error) {
	defer r.stream.Close()
	ended := make(chan struct{})
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer close(ended)
	go func() { // may be blocked in Stdin after the end, as the contract says
		if r.Stdin != nil {
			_, _ = io.Copy(onlyWriter{r.stream.Conn}, r.Stdin) // the command may not read all of it
		}
		_ = r.stream.CloseWrite()
	}()
	if r.Terminal != nil {
		helpers.Go(func() { r.applyResizes(ctx, ended) })
	}
	refusal := &refusalFilter{w: r.Stdout}
	copied := make(chan error, 1)
	go func() { copied <- r.copyOutput(refusal) }() // ends with the stream, at the latest with Close
	var err error
	select {
	case err = <-copied:
	case <-ctx.Done():
	}
	if err == nil && ctx.Err() == nil {
		var code int
		if code, err = r.waitForExit(ctx); err == nil {
			r.work.Go(r.killLeftovers)
			return r.translateExit(code, refusal)
		}
	}
	r.hangUp()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, err
}

// onlyWriter hides the other methods of a connection, so that io.Copy uses its own loop.
type onlyWriter struct{ io.Writer }

func (r *command) copyOutput(stdout io.Writer) (err error) {
	if r.Terminal != nil {
		_, err = io.Copy(stdout, r.stream.Reader)
	} else {
		_, err = stdcopy.StdCopy(stdout, r.Stderr, r.stream.Reader)
	}
	return err
}

// waitForExit waits until Docker knows the exit code of the command, whose output has
// ended.
func (r *command) waitForExit(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	poll := time.NewTicker(exitPollInterval)
	defer poll.Stop()
	for {
		got, err := r.docker.ExecInspect(ctx, r.id, client.ExecInspectOptions{})
		if errdefs.IsNotFound(err) {
			return 0, engine.NewAttemptEndedError()
		}
		if err != nil && ctx.Err() == nil {
			return 0, r.newUnreachableError(err)
		}
		if err == nil && !got.Running {
			return got.ExitCode, r.checkContainer(ctx, got.ExitCode)
		}
		select {
		case <-poll.C:
		case <-ctx.Done(): // it has closed its output and still runs
			return 0, errOutputClosed
		}
	}
}

var errOutputClosed = &dstack.Error{Kind: dstack.Conflict, Message: "the command closed its output, and was ended"}

// checkContainer returns an error if a command has ended because its container has. Old
// engines then report any exit code, also 0. Docker learns of the container's end shortly
// after that of its commands, so a killed command is checked for a while.
func (r *command) checkContainer(ctx context.Context, exitCode int) error {
	const killed = 137
	poll := time.NewTicker(exitPollInterval)
	defer poll.Stop()
	for timeout := time.After(containerEndTime); ; {
		got, err := r.docker.ContainerInspect(ctx, r.container, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) || err == nil && got.Container.State != nil && !got.Container.State.Running {
			return engine.NewAttemptEndedError()
		}
		if exitCode != killed {
			return nil
		}
		select {
		case <-poll.C:
		case <-timeout:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// applyResizes sets the size of the terminal: at first the given one, because old engines
// do not take it at the start.
func (r *command) applyResizes(ctx context.Context, ended <-chan struct{}) {
	size := r.Terminal.Size
	for {
		if size != (engine.TerminalSize{}) {
			r.resize(ctx, size)
		}
		select {
		case next, open := <-r.Terminal.Resizes:
			if !open {
				return
			}
			size = next
		case <-ended:
			return
		}
	}
}

// resize tries again for resizeTimeout, because Docker refuses it until the command runs.
func (r *command) resize(ctx context.Context, size engine.TerminalSize) {
	ctx, cancel := context.WithTimeout(ctx, resizeTimeout)
	defer cancel()
	poll := time.NewTicker(exitPollInterval)
	defer poll.Stop()
	for {
		_, err := r.docker.ExecResize(ctx, r.id, client.ExecResizeOptions{Height: uint(size.Rows), Width: uint(size.Columns)})
		if err == nil {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// hangUp ends the command and everything that it has started: first with SIGHUP.
func (r *command) hangUp() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), callTimeout)
	defer cancel()
	r.signal(ctx, "HUP")
	poll := time.NewTicker(exitPollInterval)
	defer poll.Stop()
	for timeout := time.After(hangUpTime); ; {
		got, err := r.docker.ExecInspect(ctx, r.id, client.ExecInspectOptions{})
		if err != nil || !got.Running {
			break
		}
		select {
		case <-poll.C:
			continue
		case <-timeout:
		}
		break
	}
	r.signal(ctx, "KILL")
}

// killLeftovers kills what the command has left behind.
func (r *command) killLeftovers() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), callTimeout)
	defer cancel()
	r.signal(ctx, "KILL")
}

// signal sends a signal to all processes of the command. Docker has no call for that, so a
// shell in the container does it; an image without a shell cannot.
func (r *command) signal(ctx context.Context, name string) {
	signalMarked(ctx, r.docker, r.container, r.mark, name)
}

// signalMarked sends a signal to the processes of a container whose environment contains
// a text, and waits for that.
func signalMarked(ctx context.Context, docker *client.Client, containerID, mark, signal string) {
	const script = `for p in /proc/[0-9]*; do
	case "$(cat "$p/environ" 2>/dev/null)" in *"$0"*) kill "-$1" "${p#/proc/}"; kill -CONT "${p#/proc/}";; esac
	done 2>/dev/null`
	created, err := docker.ExecCreate(ctx, containerID, client.ExecCreateOptions{
		AttachStdout: true, User: "0", Cmd: []string{"/bin/sh", "-c", script, mark, signal},
	})
	if err != nil {
		return // the container has ended
	}
	attached, err := docker.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return
	}
	defer attached.Close()
	defer context.AfterFunc(ctx, attached.Close)()
	_, _ = io.Copy(io.Discard, attached.Reader)
}

// endLeftoverCommands ends commands of an earlier server, which was killed. Their callers
// are gone.
func (e *Engine) endLeftoverCommands() {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	got, err := e.docker.ContainerList(ctx, client.ContainerListOptions{Filters: e.labelFilter("")})
	if err != nil {
		return
	}
	for _, c := range got.Items {
		found, err := e.docker.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if err == nil && len(found.Container.ExecIDs) > 0 {
			signalMarked(ctx, e.docker, c.ID, commandVariable+"=", "KILL")
		}
	}
}

// refusalPrefix begins the text that Docker writes to the output of a command that cannot
// be started. Newer engines answer with it instead.
const refusalPrefix = "OCI runtime exec failed"

// maxRefusalBytes is much longer than such a text.
const maxRefusalBytes = 4 << 10

// refusalFilter passes output on, except while it may be Docker's refusal.
type refusalFilter struct {
	w      io.Writer
	held   []byte
	passes bool
}

func (f *refusalFilter) Write(p []byte) (int, error) {
	if f.passes {
		return f.w.Write(p)
	}
	f.held = append(f.held, p...)
	n := min(len(f.held), len(refusalPrefix))
	if string(f.held[:n]) == refusalPrefix[:n] && len(f.held) <= maxRefusalBytes {
		return len(p), nil
	}
	return len(p), f.flush()
}

// flush passes on what is held.
func (f *refusalFilter) flush() error {
	f.passes = true
	_, err := f.w.Write(f.held)
	f.held = nil
	return err
}

// translateExit returns the exit code of a command, or the error that it could not be
// started.
func (r *command) translateExit(code int, output *refusalFilter) (int, error) {
	isRefusal := code == engine.ExitNotExecutable || code == engine.ExitNoProgram
	if isRefusal && bytes.HasPrefix(output.held, []byte(refusalPrefix)) {
		return r.translateRefusal(string(output.held))
	}
	if !output.passes {
		if err := output.flush(); err != nil {
			return 0, fmt.Errorf("write the output: %w", err)
		}
	}
	return code, nil
}

// translateRefusal returns the exit code and the error of a command that could not be
// started, from Docker's text.
func (r *command) translateRefusal(text string) (int, error) {
	if strings.Contains(text, "not found") || strings.Contains(text, "no such file") {
		return engine.ExitNoProgram, engine.NewNoProgramError(r.Argv)
	}
	name := "a shell"
	if len(r.Argv) > 0 {
		name = "`" + r.Argv[0] + "`"
	}
	reason := "the container cannot run it"
	if strings.Contains(text, "permission denied") {
		reason = "it is not a program, or may not be run"
	}
	return engine.ExitNotExecutable, &dstack.Error{Kind: dstack.Invalid, Message: "cannot run " + name + ": " + reason,
		Hint: "check the path; shell syntax needs a shell: -- sh -c '…'", Cause: errors.New(strings.TrimSpace(text))}
}
