package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// preparation is an attempt between the call of Start and the start of its keeper.
type preparation struct {
	spec   dstack.AttemptSpec
	lock   *os.File
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	stopped  bool
	spawned  bool
	progress string // what it waits for, for the user
}

func (p *preparation) setProgress(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = text
}

func (p *preparation) getProgress() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.progress
}

// abort cancels the preparation. It returns false if the keeper has been spawned already.
func (p *preparation) abort() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spawned {
		return false
	}
	p.stopped = true
	p.cancel()
	return true
}

func (p *preparation) isStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

func (p *preparation) isSpawned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spawned
}

func (e *Engine) findPreparation(id dstack.AttemptID) *preparation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.preparations[id]
}

func (e *Engine) isPreparing(id dstack.AttemptID) bool { return e.findPreparation(id) != nil }

// Start implements engine.Engine.
func (e *Engine) Start(_ context.Context, spec dstack.AttemptSpec) error {
	if !isValidID(spec.Attempt) {
		return &dstack.Error{Kind: dstack.Internal, Message: fmt.Sprintf("%q is not an attempt ID", spec.Attempt)}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.refusals[spec.Attempt]; ok || e.preparations[spec.Attempt] != nil || e.ctx.Err() != nil {
		return nil
	}
	dir := e.folderOf(spec.Attempt)
	if dir.hasFile("kept.json") || dir.hasFile("exit.json") {
		return nil
	}
	lock, err := e.lockFolder(dir)
	if err != nil {
		e.refusals[spec.Attempt] = e.recordRefusal(dir, spec.Attempt, err)
		return nil
	}
	if lock == nil || dir.hasFile("kept.json") || dir.hasFile("exit.json") { // a keeper runs it, or has
		return closeFile(lock)
	}
	ctx, cancel := context.WithCancel(e.ctx)
	p := &preparation{spec: spec, lock: lock, cancel: cancel, done: make(chan struct{})}
	e.preparations[spec.Attempt] = p
	e.work.Go(func() { e.prepareAttempt(ctx, p) })
	return nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// lockFolder creates the folder if needed and locks it; nil if another process holds the
// lock.
func (e *Engine) lockFolder(dir folder) (*os.File, error) {
	if err := os.Mkdir(string(dir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return dir.tryLock()
}

// prepareAttempt fills the attempt's folder and spawns the keeper.
func (e *Engine) prepareAttempt(ctx context.Context, p *preparation) {
	id, dir := p.spec.Attempt, e.folderOf(p.spec.Attempt)
	keeper, err := e.spawnAttempt(ctx, dir, p)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		e.keeperPIDs[id] = keeper
	case p.isStopped():
		now := time.Now().UTC()
		err = dir.writeJSON("exit.json", exitRecord{
			State: dstack.AttemptExited, ExitCode: 128 + int(syscall.SIGTERM),
			Error: "stopped before it had started", StartedAt: now, EndedAt: now,
		})
		if err != nil {
			e.refusals[id] = e.recordRefusal(dir, id, err)
		}
	case e.ctx.Err() == nil:
		e.refusals[id] = e.recordRefusal(dir, id, err)
	}
	delete(e.preparations, id)
	p.cancel()
	_ = p.lock.Close() // the keeper has a copy
	close(p.done)
}

// recordRefusal writes exit.json for an attempt that could not be started, and returns
// its report. The caller keeps the report in memory, because the write may fail.
func (e *Engine) recordRefusal(dir folder, id dstack.AttemptID, err error) dstack.Report {
	refusal := engine.NewRefusedReport(id, err, time.Now().UTC())
	_ = dir.writeJSON("exit.json", newExitRecord(refusal))
	return refusal
}

// spawnAttempt checks the specification, fills the folder, spawns the keeper and returns
// its process number.
func (e *Engine) spawnAttempt(ctx context.Context, dir folder, p *preparation) (keeper int, err error) {
	spec := p.spec
	workingDir, err := engine.ResolveWorkingDir(spec)
	if err != nil {
		return 0, err
	}
	links, err := e.resolveMounts(spec)
	if err != nil {
		return 0, err
	}
	if err := engine.ValidateLaunch(spec); err != nil {
		return 0, err
	}
	bash, err := findBash(spec)
	if err != nil {
		return 0, err
	}
	if spec, err = e.reservePort(ctx, dir, p); err != nil {
		return 0, err
	}
	if err := e.unpackCode(ctx, dir.path("work"), workingDir, spec); err != nil {
		return 0, err
	}
	if err := linkMounts(dir, links); err != nil {
		return 0, err
	}
	return e.spawnKeeper(dir, p, launchSpec{
		Argv:  []string{bash, "-c", spec.Script},
		Env:   buildEnv(spec, os.Environ(), e.opts.GPUs),
		Dir:   filepath.Join(dir.path("work"), filepath.FromSlash(workingDir)),
		Grace: spec.StopGracePeriod,

		confinement: e.newConfinement(dir),
	})
}

func findBash(spec dstack.AttemptSpec) (string, error) {
	if spec.Script == "" {
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

func (e *Engine) unpackCode(ctx context.Context, work, workingDir string, spec dstack.AttemptSpec) error {
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
	if err := e.writeCode(ctx, root, workingDir, spec); err != nil {
		return err
	}
	for _, file := range spec.Files {
		if err := e.writeFile(ctx, root, workingDir, spec, file); err != nil {
			return err
		}
	}
	return root.MkdirAll(workingDir, 0o755)
}

// writeCode writes the code of an attempt to its path in root.
func (e *Engine) writeCode(ctx context.Context, root *os.Root, workingDir string, spec dstack.AttemptSpec) error {
	if !spec.HasCode() || e.opts.Code == nil {
		return nil
	}
	if spec.CodePath != "" {
		target, err := findTarget(workingDir, spec.CodePath)
		if err != nil {
			return err
		}
		if err := root.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if root, err = root.OpenRoot(target); err != nil {
			return err
		}
		defer root.Close()
	}
	code, err := e.opts.Code(ctx, spec)
	if err != nil {
		return err
	}
	defer code.Close()
	leftOut, err := engine.UnpackArchive(ctx, root, code)
	engine.LogLeftOut(e.opts.Log, spec, leftOut)
	return err
}

// writeFile writes a file or folder of an attempt to its path in root, and replaces what is
// there.
func (e *Engine) writeFile(ctx context.Context, root *os.Root, workingDir string, spec dstack.AttemptSpec, file dstack.FileArchive) error {
	if e.opts.Files == nil {
		return nil
	}
	target, err := findTarget(workingDir, file.Path)
	if err != nil {
		return err
	}
	archive, err := e.opts.Files(ctx, file)
	if err != nil {
		return err
	}
	defer archive.Close()
	leftOut, err := engine.UnpackFiles(ctx, root, target, archive)
	engine.LogLeftOut(e.opts.Log, spec, leftOut)
	return err
}

// findTarget returns a path of the code or of a file relative to the attempt's folder. A
// process has no other files of its own.
func findTarget(workingDir, name string) (string, error) {
	target, ok := dstack.FindPathInFolder(workingDir, name)
	if !ok {
		return "", &dstack.Error{Kind: dstack.Unsupported,
			Message: fmt.Sprintf("the path %s is outside of the folder of the replica, and plain processes have no other", name),
			Hint:    "write a path inside of the working directory, or install Docker"}
	}
	return target, nil
}

// launchTimeout limits the time in which the keeper has to read its launchSpec.
const launchTimeout = 5 * time.Second

// spawnKeeper starts the keeper in a session of its own, passes it the lock of the folder
// and writes the launchSpec to its standard input. It returns the keeper's process
// number.
func (e *Engine) spawnKeeper(dir folder, p *preparation, launch launchSpec) (int, error) {
	out, err := os.OpenFile(dir.path("keeper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
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
	keeper := exec.Command(e.opts.KeeperProgram, "keep", string(dir))
	keeper.Env = inheritEnv(os.Environ())
	keeper.Dir = string(dir)
	keeper.Stdin, keeper.Stdout, keeper.Stderr = r, out, out
	keeper.ExtraFiles = []*os.File{p.lock} // becomes lockFD
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = keeper.Start()
	p.spawned = err == nil
	p.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("cannot run %s: %w", e.opts.KeeperProgram, err)
	}
	pid := keeper.Process.Pid
	_ = keeper.Process.Release() // see reapKeepers
	_ = r.Close()
	_ = w.SetWriteDeadline(time.Now().Add(launchTimeout))
	if err := json.NewEncoder(w).Encode(launch); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return 0, fmt.Errorf("cannot send the command to the keeper: %w", err)
	}
	return pid, nil
}
