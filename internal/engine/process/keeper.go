package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	ossignal "os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// launchSpec is what a keeper is told through its standard input: it holds the
// user's secrets, so it never lies on disk.
type launchSpec struct {
	Argv  []string
	Env   []string
	Dir   string
	Grace time.Duration // when the keeper is told to end and nothing else is known
}

// Limits of a keeper's waits. drainTimeout is for output that somebody outside
// the family still holds open.
const (
	killTimeout      = 2 * time.Second
	drainTimeout     = time.Second
	treePollInterval = 5 * time.Millisecond
)

// lockFD is the file descriptor that a keeper is born with: the folder's
// lock, taken by the engine.
const lockFD = 3

// Keep runs one attempt whose folder the process engine has prepared, and
// stays until it and all of its descendants have ended. It is what the hidden
// command "dstack keep FOLDER" does; only the engine calls that, with the
// folder's lock as file 3 and the launch on standard input. It returns the
// exit code of the command.
func Keep(path string) int {
	dir := folder(path)
	lock, err := inheritedLock(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "dstack keep:", err)
		return 2
	}
	// Never closed: the end of the process frees it, and not a moment before.
	defer runtime.KeepAlive(lock)
	terms := make(chan os.Signal, 8)
	ossignal.Notify(terms, syscall.SIGTERM)
	ossignal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	k := &keeper{dir: dir, sigterms: terms}
	if err := k.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dstack keep:", err)
		return 1
	}
	return 0
}

// inheritedLock is the folder's lock, which this process was born with.
func inheritedLock(dir folder) (*os.File, error) {
	want, err := os.Stat(dir.path("lock"))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(lockFD)
	lock := os.NewFile(lockFD, "lock")
	got, err := lock.Stat()
	if err != nil || !os.SameFile(got, want) {
		return nil, errors.New("this command is started by the server, not by hand")
	}
	return lock, nil
}

// keeper runs one process and its family.
type keeper struct {
	dir      folder
	sigterms chan os.Signal
	journal  *journal
	leader   int
	started  time.Time
	streams  sync.WaitGroup
	readers  []*os.File
	reserved *os.File // room for exit.json, set aside while there was some

	leaderExited chan syscall.WaitStatus // the leader has
	childless    chan struct{}           // closed: no child is left
	stopping     bool
	killTimer    <-chan time.Time // when to stop being gentle
	killed       bool
}

func (k *keeper) run() error {
	var order launchSpec
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		return fmt.Errorf("cannot read what to run: %w", err) // the engine died: nothing has begun
	}
	if err := k.prepare(); err != nil {
		return k.writeRefusal(err)
	}
	if err := k.startCommand(order); err != nil {
		return k.writeRefusal(err)
	}
	k.started = time.Now().UTC()
	err := k.dir.writeJSON("kept.json", keeperState{os.Getpid(), k.leader, startTime(k.leader), bootID(), k.started})
	if err != nil { // nobody could find it again
		signalTree(os.Getpid(), k.leader, syscall.SIGKILL)
		return k.writeRefusal(err)
	}
	k.applyStop(order.Grace, false) // a stop may have come before kept.json told whom to signal
	status := k.waitForExit(order.Grace)
	k.drainOutput()
	return k.writeExit(exitRecord{
		Outcome: dstack.AttemptExited, Code: exitCodeOf(status),
		LastOut: k.journal.copyLastLines(), StartedAt: k.started, EndedAt: time.Now().UTC(),
	})
}

func (k *keeper) prepare() (err error) {
	if err = becomeReaper(); err != nil {
		return fmt.Errorf("cannot look after orphans: %w", err)
	}
	if k.journal, err = openJournal(k.dir); err != nil {
		return err
	}
	k.reserved, err = os.OpenFile(k.dir.path("exit.spare"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = k.reserved.Write(make([]byte, maxLastLines*maxLastLineBytes*2))
	return err
}

// startCommand runs the command in a session of its own, so that its whole group can
// be signalled.
func (k *keeper) startCommand(order launchSpec) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	stdout, err := k.openStream("stdout")
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := k.openStream("stderr")
	if err != nil {
		return err
	}
	defer stderr.Close()
	k.leader, err = syscall.ForkExec(order.Argv[0], order.Argv, &syscall.ProcAttr{
		Dir: order.Dir, Env: order.Env,
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("cannot run %s: %w", order.Argv[0], err)
	}
	k.leaderExited, k.childless = make(chan syscall.WaitStatus, 1), make(chan struct{})
	go k.reapChildren() // ends when no child is left; wait waits for that
	return nil
}

// openStream copies what comes through the returned end into the journal.
func (k *keeper) openStream(name string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k.readers = append(k.readers, r)
	k.streams.Go(func() {
		lines := bufio.NewReaderSize(r, maxLineBytes)
		for {
			line, err := lines.ReadSlice('\n')
			if len(line) > 0 {
				if line[len(line)-1] == '\n' {
					line = line[:len(line)-1]
				}
				k.journal.add(name, line)
			}
			if lines.Buffered() == 0 || err != nil {
				k.journal.flush()
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	})
	return w, nil
}

// reapChildren collects every child that ends: the leader, and orphans of its family.
func (k *keeper) reapChildren() {
	defer close(k.childless)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return
		case pid == k.leader:
			k.leaderExited <- status
		}
	}
}

// waitForExit returns how the leader ended, once the whole family has.
func (k *keeper) waitForExit(grace time.Duration) syscall.WaitStatus {
	var status syscall.WaitStatus
	for leading := true; leading; {
		select {
		case status = <-k.leaderExited:
			leading = false
		case <-k.sigterms:
			k.applyStop(grace, true)
		case <-k.killTimer:
			k.killTree()
		}
	}
	if !k.stopping { // what it leaves behind ends with it, as in a container
		k.killTree()
	}
	k.waitForTree(grace)
	return status
}

func (k *keeper) waitForTree(grace time.Duration) {
	look := time.NewTicker(treePollInterval)
	defer look.Stop()
	alone := k.childless
	limit := (<-chan time.Time)(nil)
	for alone != nil || !isGroupEmpty(k.leader) {
		if k.killed && limit == nil {
			limit = time.After(killTimeout)
		}
		select {
		case <-alone:
			alone = nil
		case <-k.sigterms:
			k.applyStop(grace, true)
		case <-k.killTimer:
			k.killTree()
		case <-look.C:
			if k.killed {
				k.killTree()
			}
		case <-limit: // stuck in the kernel: nothing can be done about it
			return
		}
	}
}

// applyStop does what stop.json says. Told to end by somebody else, it gives the
// order's grace.
func (k *keeper) applyStop(grace time.Duration, told bool) {
	var s stopRequest
	found, err := k.dir.readJSON("stop.json", &s)
	if err != nil || !found {
		if !told || k.stopping {
			return
		}
		s = stopRequest{Deadline: time.Now().Add(grace), Graceful: grace > 0}
	}
	left := time.Until(s.Deadline)
	if left <= 0 {
		k.stopping = true
		k.killTree()
		return
	}
	k.killTimer = time.After(left)
	if s.Graceful && !k.stopping {
		signalTree(os.Getpid(), k.leader, syscall.SIGTERM)
	}
	k.stopping = true
}

// killTree kills the whole family.
func (k *keeper) killTree() {
	k.killed, k.killTimer = true, nil
	signalTree(os.Getpid(), k.leader, syscall.SIGKILL)
}

// drainOutput waits until all output is in the journal, but not for somebody who
// escaped and holds the pipes.
func (k *keeper) drainOutput() {
	for _, r := range k.readers {
		_ = r.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	k.streams.Wait()
	k.journal.finish()
}

func (k *keeper) writeRefusal(err error) error {
	for _, r := range k.readers {
		_ = r.Close()
	}
	k.streams.Wait()
	return k.writeExit(newExitRecord(engine.NewRefusedReport("", err, time.Now().UTC())))
}

// writeExit writes exit.json into the room set aside for it.
func (k *keeper) writeExit(e exitRecord) error {
	if k.reserved == nil {
		return k.dir.writeJSON("exit.json", e)
	}
	data, err := json.Marshal(e)
	if err == nil {
		_, err = k.reserved.WriteAt(data, 0)
	}
	if err == nil {
		err = k.reserved.Truncate(int64(len(data)))
	}
	if err = errors.Join(err, k.reserved.Close()); err != nil {
		return err
	}
	return os.Rename(k.dir.path("exit.spare"), k.dir.path("exit.json"))
}

func exitCodeOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
