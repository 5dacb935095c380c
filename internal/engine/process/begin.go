package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// preparation is an attempt between Start and its keeper.
type preparation struct {
	order  dstack.AttemptSpec
	lock   *os.File
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	stopped bool
	spawned bool
}

// stop ends the preparation; false when the keeper has been spawned already.
func (p *preparation) stop() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spawned {
		return false
	}
	p.stopped = true
	p.cancel()
	return true
}

func (p *preparation) wasStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

func (p *preparation) wasSpawned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spawned
}

func (e *Engine) preparation(id dstack.AttemptID) *preparation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.prepared[id]
}

func (e *Engine) preparing(id dstack.AttemptID) bool { return e.preparation(id) != nil }

// Start is described at engine.Engine.
func (e *Engine) Start(_ context.Context, o dstack.AttemptSpec) error {
	if !known(o.Attempt) {
		return &dstack.Error{Kind: dstack.Internal, Message: fmt.Sprintf("%q is no ID of an attempt", o.Attempt)}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.refused[o.Attempt]; ok || e.prepared[o.Attempt] != nil || e.ctx.Err() != nil {
		return nil
	}
	dir := e.folder(o.Attempt)
	if dir.has("kept.json") || dir.has("exit.json") {
		return nil
	}
	lock, err := e.open(dir)
	if err != nil {
		e.refused[o.Attempt] = e.refuse(dir, o.Attempt, err)
		return nil
	}
	if lock == nil || dir.has("kept.json") || dir.has("exit.json") { // its keeper is at it
		return closed(lock)
	}
	ctx, cancel := context.WithCancel(e.ctx)
	p := &preparation{order: o, lock: lock, cancel: cancel, done: make(chan struct{})}
	e.prepared[o.Attempt] = p
	e.work.Go(func() { e.prepare(ctx, p) })
	return nil
}

func closed(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

func (e *Engine) open(dir folder) (*os.File, error) {
	if err := os.Mkdir(string(dir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return dir.lock()
}

// prepare makes the attempt's folder and hands it over to a keeper.
func (e *Engine) prepare(ctx context.Context, p *preparation) {
	id, dir := p.order.Attempt, e.folder(p.order.Attempt)
	keeper, err := e.makeReady(ctx, dir, p)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		e.keepers[id] = keeper
	case p.wasStopped():
		now := time.Now().UTC()
		err = dir.write("exit.json", exit{
			Outcome: dstack.AttemptExited, Code: 128 + int(syscall.SIGTERM),
			Error: "stopped before it had started", StartedAt: now, EndedAt: now,
		})
		if err != nil {
			e.refused[id] = e.refuse(dir, id, err)
		}
	case e.ctx.Err() == nil:
		e.refused[id] = e.refuse(dir, id, err)
	}
	delete(e.prepared, id)
	p.cancel()
	_ = p.lock.Close() // the keeper has its own
	close(p.done)
}

// refuse writes down that an attempt could not begin, and returns the report,
// which stands in memory even where nothing can be written.
func (e *Engine) refuse(dir folder, id dstack.AttemptID, err error) dstack.Report {
	no := engine.NewRefusedReport(id, err, time.Now().UTC())
	_ = dir.write("exit.json", exitOf(no))
	return no
}

func (e *Engine) makeReady(ctx context.Context, dir folder, p *preparation) (keeper int, err error) {
	o := p.order
	workingDir, err := engine.ResolveWorkingDir(o)
	if err != nil {
		return 0, err
	}
	bash, err := shell(o)
	if err != nil {
		return 0, err
	}
	if err := portIsFree(ctx, o.Port); err != nil {
		return 0, err
	}
	public := o // what is left on disk has no secrets in it
	public.Env, public.Auth, public.Script, public.Argv = nil, nil, "", nil
	if err := dir.write("order.json", public); err != nil {
		return 0, err
	}
	if err := e.unpack(ctx, dir.file("work"), workingDir, o); err != nil {
		return 0, err
	}
	return e.spawn(dir, p, launch{
		Argv:  []string{bash, "-c", o.Script},
		Env:   environment(o, os.Environ(), e.opts.GPUs),
		Dir:   filepath.Join(dir.file("work"), filepath.FromSlash(workingDir)),
		Grace: o.StopGracePeriod,
	})
}

func shell(o dstack.AttemptSpec) (string, error) {
	if o.Script == "" {
		return "", &dstack.Error{
			Kind: dstack.Invalid, Message: "there is no command to run without a container",
			Hint: "add commands to the configuration, or install Docker to run an image's own",
		}
	}
	if info, err := os.Stat("/bin/bash"); err == nil && info.Mode().IsRegular() {
		return "/bin/bash", nil
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		return "", &dstack.Error{
			Kind: dstack.Unsupported, Message: "this machine has no bash",
			Hint: "install bash", Cause: err,
		}
	}
	return filepath.Abs(shell)
}

// Limits of the wait for a port that somebody is just leaving.
const (
	portLimit = 300 * time.Millisecond
	portLook  = 20 * time.Millisecond
)

// portIsFree refuses a port that somebody listens on, who would be taken for
// the replica. One that only a connection holds, or the last minute of one,
// will be free again: that is no fault of the order's.
func portIsFree(ctx context.Context, port int) error {
	look := time.NewTicker(portLook)
	defer look.Stop()
	for late := time.After(portLimit); ; {
		err := tryPort(port)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		case <-late:
			if !answered(ctx, port) {
				return &dstack.Error{
					Kind:    dstack.Unavailable,
					Message: fmt.Sprintf("port %d of this machine is still held by a connection", port),
					Hint:    "it is tried again by itself; such connections last a minute at most once they are closed",
					Cause:   err,
				}
			}
			return &dstack.Error{
				Kind:    dstack.Conflict,
				Message: fmt.Sprintf("port %d is already in use on this machine", port),
				Hint:    "stop what listens there, or give the service another port",
				Cause:   err,
			}
		}
	}
}

// answered says whether somebody listens on a port, or might.
func answered(ctx context.Context, port int) bool {
	for _, host := range []string{"127.0.0.1", "::1"} {
		if engine.CheckPort(ctx, net.JoinHostPort(host, strconv.Itoa(port)), false) != engine.PortRefused {
			return true
		}
	}
	return false
}

// tryPort returns an error when a port is in use.
func tryPort(port int) error {
	defer forbidForks()()
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
		} else if errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return nil
}

func (e *Engine) unpack(ctx context.Context, work, workingDir string, o dstack.AttemptSpec) error {
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(work)
	if err != nil {
		return err
	}
	defer root.Close()
	if o.CodeHash != "" && e.opts.Code != nil {
		code, err := e.opts.Code(ctx, o)
		if err != nil {
			return err
		}
		defer code.Close()
		if err := engine.UnpackArchive(ctx, root, code); err != nil {
			return err
		}
	}
	return root.MkdirAll(workingDir, 0o755)
}

const launchLimit = 5 * time.Second

// spawn starts the keeper, in a session of its own, with the lock, and tells
// it what to run.
func (e *Engine) spawn(dir folder, p *preparation, order launch) (int, error) {
	out, err := os.OpenFile(dir.file("keeper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	defer r.Close()
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return 0, context.Canceled
	}
	keeper := exec.Command(e.opts.Self, "keep", string(dir)) // our own binary
	keeper.Env = inherited(os.Environ())
	keeper.Dir = string(dir)
	keeper.Stdin, keeper.Stdout, keeper.Stderr = r, out, out
	keeper.ExtraFiles = []*os.File{p.lock} // becomes lockFD
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = keeper.Start()
	p.spawned = err == nil
	p.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("cannot run %s: %w", e.opts.Self, err)
	}
	pid := keeper.Process.Pid
	_ = keeper.Process.Release() // collected when it has ended, see collect
	_ = r.Close()
	_ = w.SetWriteDeadline(time.Now().Add(launchLimit))
	if err := json.NewEncoder(w).Encode(order); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return 0, fmt.Errorf("cannot tell the keeper what to run: %w", err)
	}
	return pid, nil
}
