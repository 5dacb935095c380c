package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// killDelay is how long a git command that is canceled may take to end.
const killDelay = 5 * time.Second

// maxErrorBytes limits what is kept of a command's error output.
const maxErrorBytes = 16 << 10

// gitCommand is one call of git.
type gitCommand struct {
	access *access
	dir    string // where it runs; empty: the folder of access
	args   []string
	env    []string // in addition to that of access
	stdin  io.Reader
	stdout io.Writer // nil: runGit returns the beginning of the output
	memory uint64    // bytes of its own that it may use, on Linux; 0: no limit
}

// runGit runs git and returns the beginning of its output. Its error is a gitError, or
// that git could not be run. When ctx or git ends, it kills the programs that git has
// started.
func runGit(ctx context.Context, c gitCommand) (string, error) {
	program, err := findGit(ctx)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, c.args...)
	cmd.Dir, cmd.Stdin = c.dir, c.stdin
	if cmd.Dir == "" {
		cmd.Dir = c.access.dir
	}
	cmd.Env = append(append([]string{}, c.access.env...), c.env...)
	if c.access.token != "" {
		pipe, err := openTokenPipe(c.access.token)
		if err != nil {
			return "", err
		}
		defer pipe.Close()
		cmd.ExtraFiles = []*os.File{pipe}
	}
	var out, errOut boundedBuffer
	if c.stdout == nil {
		c.stdout = &out
	}
	err = runGroup(cmd, c.memory, c.stdout, &errOut)
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if _, isExit := errors.AsType[*exec.ExitError](err); !isExit {
		return "", err
	}
	return out.String(), &gitError{text: hideSecret(errOut.String(), c.access.token), cause: err}
}

// runGroup runs a command in its own process group. Once the command has ended it kills the
// others of the group, such as git's ssh, and then waits for the end of the output. It
// copies the output itself, because cmd.Wait waits for all who can write to it.
func runGroup(cmd *exec.Cmd, memory uint64, out, errOut io.Writer) error {
	var output outputReader
	defer output.close()
	stdout, err := output.open(out)
	if err != nil {
		return err
	}
	stderr, err := output.open(errOut)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killDelay
	if err := cmd.Start(); err != nil {
		return err
	}
	err = limitMemory(cmd.Process.Pid, memory)
	if err != nil {
		_ = cmd.Cancel()
	}
	err = errors.Join(cmd.Wait(), err)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // most often, no other is left
	return err
}

// outputReader copies what processes write to its pipes.
type outputReader struct {
	readers, writers []*os.File
	tasks            sync.WaitGroup
}

// open returns a file for processes, and copies to a writer what they write to it.
func (o *outputReader) open(to io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.readers, o.writers = append(o.readers, r), append(o.writers, w)
	o.tasks.Go(func() { _, _ = io.Copy(to, r) }) // ends with the last writer, or with close
	return w, nil
}

// close waits until everything is copied, at most killDelay: a process that has left its
// group may still hold a pipe.
func (o *outputReader) close() {
	for _, w := range o.writers {
		_ = w.Close()
	}
	for _, r := range o.readers {
		_ = r.SetReadDeadline(time.Now().Add(killDelay))
	}
	o.tasks.Wait()
	for _, r := range o.readers {
		_ = r.Close()
	}
}

// openTokenPipe returns a pipe that contains the answer to git's question for a login. It
// fits into the pipe's buffer. Hosts that take a token accept any user name with it.
func openTokenPipe(token string) (*os.File, error) {
	if len(token) > maxTokenBytes { // nobody reads the pipe yet, so a longer one would block
		return nil, newTokenError()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if err := w.SetWriteDeadline(time.Now().Add(killDelay)); err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	_, err = io.WriteString(w, "username=oauth2\npassword="+token+"\n")
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// boundedBuffer keeps the first maxErrorBytes that are written to it.
type boundedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:min(len(p), max(maxErrorBytes-b.buf.Len(), 0))])
	return len(p), nil
}

func (b *boundedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
