package process

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

var _ engine.Executor = (*Engine)(nil)

// command is a command that runs beside an attempt. Its keeper (see KeepCommand) starts
// it, and kills it when the engine, the attempt or the caller is gone.
type command struct {
	keeper   *exec.Cmd
	control  *os.File   // the keeper's standard input; its end ends the command
	result   *os.File   // the keeper writes a commandResult to it
	terminal *os.File   // the near end of the terminal; nil: pipes
	stdin    *os.File   // the terminal, or the pipe
	outputs  []*os.File // the terminal, or the pipes of stdout and stderr
	given    []*os.File // the files that the keeper inherits, closed after its start

	ended chan struct{} // closed once the command has ended
}

// commandLaunch is the command that a keeper runs, like launchSpec.
type commandLaunch struct {
	Argv     []string
	Env      []string
	Dir      string
	Terminal bool
	confinement
}

// commandResult says how a command ended.
type commandResult struct {
	ExitCode     int
	Error        string // it could not be started
	AttemptEnded bool   // it was killed because the attempt had ended
}

// Exec implements engine.Executor.
func (e *Engine) Exec(ctx context.Context, spec dstack.AttemptSpec, c engine.Command) (int, error) {
	if !isValidID(spec.Attempt) {
		return 0, engine.NewNotRunningError()
	}
	dir := e.folderOf(spec.Attempt)
	if !dir.hasFile("kept.json") || dir.isOver() {
		return 0, engine.NewNotRunningError()
	}
	launch, code, err := e.newCommandLaunch(dir, spec, c)
	if err != nil {
		return code, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(errEngineClosed) })()
	done, err := e.trackCommand(spec.Attempt, cancel)
	if err != nil {
		return 0, err
	}
	defer done()
	running, err := e.startCommand(dir, launch, c)
	if err != nil {
		return 0, err
	}
	return running.wait(ctx, c)
}

var errEngineClosed = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping, and the command was ended",
	Hint: "try again in a moment"}

// trackCommand registers a command, so that Close and Remove wait for its end. The
// caller calls done after that.
func (e *Engine) trackCommand(id dstack.AttemptID, cancel context.CancelCauseFunc) (done func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return nil, errEngineClosed
	}
	e.work.Add(1)
	entry := &trackedCommand{cancel: cancel, done: make(chan struct{})}
	e.commands[id] = append(e.commands[id], entry)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		left := e.commands[id][:0:0]
		for _, other := range e.commands[id] {
			if other != entry {
				left = append(left, other)
			}
		}
		if e.commands[id] = left; len(left) == 0 {
			delete(e.commands, id)
		}
		close(entry.done)
		e.work.Done()
	}, nil
}

// trackedCommand is a running command of an attempt.
type trackedCommand struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// endCommands ends the commands of an attempt and waits for that.
func (e *Engine) endCommands(ctx context.Context, id dstack.AttemptID) error {
	e.mu.Lock()
	running := e.commands[id]
	e.mu.Unlock()
	for _, c := range running {
		c.cancel(engine.NewAttemptEndedError())
	}
	for _, c := range running {
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// newCommandLaunch returns what the keeper of a command needs. If there is no such program,
// it returns an error with the command's exit code.
func (e *Engine) newCommandLaunch(
	dir folder, spec dstack.AttemptSpec, c engine.Command,
) (launch commandLaunch, exitCode int, err error) {
	workingDir, err := engine.ResolveWorkingDir(spec)
	if err != nil {
		return launch, 0, err
	}
	env := map[string]string{}
	if c.Terminal != nil && c.Terminal.Type != "" {
		env["TERM"] = c.Terminal.Type
	}
	maps.Copy(env, spec.Env)
	var started dstack.AttemptSpec
	if found, err := dir.readJSON("order.json", &started); err == nil && found && started.ChoosePort {
		env[dstack.PortVariable] = strconv.Itoa(started.Port)
	}
	spec.Env = env
	launch = commandLaunch{
		Argv: c.Argv, Env: buildEnv(spec, os.Environ(), e.opts.GPUs), Terminal: c.Terminal != nil,
		Dir:         filepath.Join(dir.path("work"), filepath.FromSlash(workingDir)),
		confinement: e.newConfinement(dir),
	}
	if len(launch.Argv) == 0 {
		launch.Argv = engine.ShellArgv()
	}
	program, ok := findProgram(launch.Argv[0], launch.Dir, launch.Env)
	if !ok {
		return launch, engine.ExitNoProgram, engine.NewNoProgramError(c.Argv)
	}
	if !isProgram(program) {
		return launch, engine.ExitNotExecutable, &dstack.Error{Kind: dstack.Invalid,
			Message: "cannot run `" + launch.Argv[0] + "`: it is not a program, or may not be run", Hint: "check the path"}
	}
	launch.Argv = append([]string{program}, launch.Argv[1:]...)
	return launch, 0, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// findProgram returns the path of a program as a shell in a folder finds it.
func findProgram(name, dir string, env []string) (string, bool) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		_, err := os.Stat(name)
		return name, err == nil
	}
	for _, v := range env {
		list, isPath := strings.CutPrefix(v, "PATH=")
		if !isPath {
			continue
		}
		for _, folder := range filepath.SplitList(list) {
			if !filepath.IsAbs(folder) {
				folder = filepath.Join(dir, folder)
			}
			path := filepath.Join(folder, name)
			if isProgram(path) {
				return path, true
			}
		}
	}
	return "", false
}

// startCommand starts the keeper of a command and sends it the launch.
func (e *Engine) startCommand(dir folder, launch commandLaunch, c engine.Command) (*command, error) {
	running := &command{ended: make(chan struct{})}
	err := running.openFiles(c)
	var control, result *os.File // the keeper's ends
	if err == nil {
		control, running.control, err = os.Pipe()
	}
	if err == nil {
		running.given = append(running.given, control)
		running.result, result, err = os.Pipe()
	}
	if err != nil {
		running.closeFiles()
		return nil, fmt.Errorf("cannot open the command's streams: %w", err)
	}
	files := append(running.given[:commandResultFD-commandFD:commandResultFD-commandFD], result)
	running.given = append(running.given, result)
	running.keeper = exec.Command(e.opts.KeeperProgram, "keep-command", string(dir))
	running.keeper.Env = inheritEnv(os.Environ())
	running.keeper.Dir = string(dir)
	running.keeper.Stdin = control
	running.keeper.ExtraFiles = files // become commandFD and the following
	running.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := running.keeper.Start(); err != nil {
		running.closeFiles()
		return nil, fmt.Errorf("cannot run %s: %w", e.opts.KeeperProgram, err)
	}
	for _, f := range running.given {
		_ = f.Close()
	}
	running.given = nil
	_ = running.control.SetWriteDeadline(time.Now().Add(launchTimeout))
	if err := json.NewEncoder(running.control).Encode(launch); err != nil {
		_ = running.keeper.Process.Kill()
		_ = running.keeper.Wait()
		running.closeFiles()
		return nil, fmt.Errorf("cannot send the command to its keeper: %w", err)
	}
	return running, nil
}

// openFiles opens the terminal or the pipes. The first three of given become the
// command's standard streams.
func (r *command) openFiles(c engine.Command) error {
	if c.Terminal != nil {
		near, far, err := pty.Open()
		if err != nil {
			return err
		}
		r.terminal, r.stdin, r.outputs = near, near, []*os.File{near}
		r.given = []*os.File{far, far, far}
		if c.Terminal.Size != (engine.TerminalSize{}) {
			return r.resize(c.Terminal.Size)
		}
		return nil
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		return err
	}
	r.stdin, r.given = in, []*os.File{stdin}
	for range 2 {
		out, w, err := os.Pipe()
		if err != nil {
			return err
		}
		r.outputs, r.given = append(r.outputs, out), append(r.given, w)
	}
	return nil
}

func (r *command) resize(size engine.TerminalSize) error {
	return pty.Setsize(r.terminal, &pty.Winsize{Rows: size.Rows, Cols: size.Columns})
}

// closeFiles closes all files of the engine. Closing one a second time does nothing.
func (r *command) closeFiles() {
	for _, f := range append(append([]*os.File{r.control, r.result, r.terminal, r.stdin}, r.outputs...), r.given...) {
		_ = f.Close() // a nil file gives an error, too
	}
}

// wait passes the streams on until the command has ended, and returns its exit code. When
// ctx ends, it lets the keeper end the command.
func (r *command) wait(ctx context.Context, c engine.Command) (int, error) {
	defer r.closeFiles()
	var copies sync.WaitGroup
	for i, w := range []io.Writer{c.Stdout, c.Stderr}[:len(r.outputs)] {
		copies.Go(func() { r.copyOutput(w, r.outputs[i]) })
	}
	stdinCopied := make(chan struct{})
	go func() { // may be blocked in Stdin after the end, as the contract says
		defer close(stdinCopied)
		r.copyInput(c.Stdin)
	}()
	if c.Terminal != nil && c.Terminal.Resizes != nil {
		copies.Go(func() { r.applyResizes(c.Terminal.Resizes) })
	}
	stop := context.AfterFunc(ctx, func() { _ = r.control.Close() })
	defer stop()
	var result commandResult
	err := json.NewDecoder(r.result).Decode(&result)
	_ = r.control.Close()
	_ = r.keeper.Wait() // the result says more than its exit code
	close(r.ended)
	for _, out := range r.outputs {
		_ = out.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	copies.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, &dstack.Error{Kind: dstack.Internal, Message: "the process that watches the command was killed", Cause: err}
	case result.AttemptEnded:
		return 0, engine.NewAttemptEndedError()
	case result.Error != "":
		return engine.ExitNotExecutable, &dstack.Error{Kind: dstack.Invalid, Message: result.Error, Hint: "check that it is a program"}
	}
	return result.ExitCode, nil
}

// copyOutput copies output until its end. After the end of the command it stops at
// drainTimeout without output: a process outside of the tree may hold the stream open.
func (r *command) copyOutput(w io.Writer, from *os.File) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				_ = r.control.Close() // nobody reads the output any more
				return
			}
		}
		if err != nil {
			return
		}
		select {
		case <-r.ended:
			_ = from.SetReadDeadline(time.Now().Add(drainTimeout))
		default:
		}
	}
}

// copyInput copies the input and passes its end on.
func (r *command) copyInput(in io.Reader) {
	const endOfTransmission = "\x04" // what Ctrl-D writes
	if in != nil {
		if _, err := io.Copy(onlyWriter{r.stdin}, in); err != nil {
			return // the command does not read, or the caller is gone
		}
	}
	if r.terminal != nil {
		_, _ = io.WriteString(r.terminal, endOfTransmission)
		return
	}
	_ = r.stdin.Close()
}

// onlyWriter hides the other methods of a file, so that io.Copy uses its own loop.
type onlyWriter struct{ io.Writer }

func (r *command) applyResizes(sizes <-chan engine.TerminalSize) {
	for {
		select {
		case size, open := <-sizes:
			if !open {
				return
			}
			_ = r.resize(size) // the command may have ended
		case <-r.ended:
			return
		}
	}
}
