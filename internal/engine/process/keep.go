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

// launch is what a keeper is told through its standard input: it holds the
// user's secrets, so it never lies on disk.
type launch struct {
	Argv  []string
	Env   []string
	Dir   string
	Grace time.Duration // when the keeper is told to end and nothing else is known
}

// Limits of a keeper's waits. drainLimit is for output that somebody outside
// the family still holds open.
const (
	killLimit  = 2 * time.Second
	drainLimit = time.Second
	lookAgain  = 5 * time.Millisecond
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
	k := &keeper{dir: dir, terms: terms}
	if err := k.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dstack keep:", err)
		return 1
	}
	return 0
}

// inheritedLock is the folder's lock, which this process was born with.
func inheritedLock(dir folder) (*os.File, error) {
	want, err := os.Stat(dir.file("lock"))
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
	dir     folder
	terms   chan os.Signal
	journal *journal
	leader  int
	started time.Time
	streams sync.WaitGroup
	readers []*os.File
	spare   *os.File // room for exit.json, set aside while there was some

	ended    chan syscall.WaitStatus // the leader has
	alone    chan struct{}           // closed: no child is left
	stopping bool
	kill     <-chan time.Time // when to stop being gentle
	killed   bool
}

func (k *keeper) run() error {
	var order launch
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		return fmt.Errorf("cannot read what to run: %w", err) // the engine died: nothing has begun
	}
	if err := k.prepare(); err != nil {
		return k.refuse(err)
	}
	if err := k.start(order); err != nil {
		return k.refuse(err)
	}
	k.started = time.Now().UTC()
	err := k.dir.write("kept.json", kept{os.Getpid(), k.leader, birth(k.leader), boot(), k.started})
	if err != nil { // nobody could find it again
		signal(os.Getpid(), k.leader, syscall.SIGKILL)
		return k.refuse(err)
	}
	k.obey(order.Grace, false) // a stop may have come before kept.json told whom to signal
	status := k.wait(order.Grace)
	k.drain()
	return k.tell(exit{
		Outcome: dstack.AttemptExited, Code: codeOf(status),
		LastOut: k.journal.tail(), StartedAt: k.started, EndedAt: time.Now().UTC(),
	})
}

func (k *keeper) prepare() (err error) {
	if err = becomeReaper(); err != nil {
		return fmt.Errorf("cannot look after orphans: %w", err)
	}
	if k.journal, err = openJournal(k.dir); err != nil {
		return err
	}
	k.spare, err = os.OpenFile(k.dir.file("exit.spare"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = k.spare.Write(make([]byte, lastLines*lastWidth*2))
	return err
}

// start runs the command in a session of its own, so that its whole group can
// be signalled.
func (k *keeper) start(order launch) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	stdout, err := k.stream("stdout")
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := k.stream("stderr")
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
	k.ended, k.alone = make(chan syscall.WaitStatus, 1), make(chan struct{})
	go k.reap() // ends when no child is left; wait waits for that
	return nil
}

// stream copies what comes through the returned end into the journal.
func (k *keeper) stream(name string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k.readers = append(k.readers, r)
	k.streams.Go(func() {
		lines := bufio.NewReaderSize(r, longestLine)
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

// reap collects every child that ends: the leader, and orphans of its family.
func (k *keeper) reap() {
	defer close(k.alone)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return
		case pid == k.leader:
			k.ended <- status
		}
	}
}

// wait returns how the leader ended, once the whole family has.
func (k *keeper) wait(grace time.Duration) syscall.WaitStatus {
	var status syscall.WaitStatus
	for leading := true; leading; {
		select {
		case status = <-k.ended:
			leading = false
		case <-k.terms:
			k.obey(grace, true)
		case <-k.kill:
			k.finish()
		}
	}
	if !k.stopping { // what it leaves behind ends with it, as in a container
		k.finish()
	}
	k.waitForFamily(grace)
	return status
}

func (k *keeper) waitForFamily(grace time.Duration) {
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	alone := k.alone
	limit := (<-chan time.Time)(nil)
	for alone != nil || !empty(k.leader) {
		if k.killed && limit == nil {
			limit = time.After(killLimit)
		}
		select {
		case <-alone:
			alone = nil
		case <-k.terms:
			k.obey(grace, true)
		case <-k.kill:
			k.finish()
		case <-look.C:
			if k.killed {
				k.finish()
			}
		case <-limit: // stuck in the kernel: nothing can be done about it
			return
		}
	}
}

// obey does what stop.json says. Told to end by somebody else, it gives the
// order's grace.
func (k *keeper) obey(grace time.Duration, told bool) {
	var s stop
	found, err := k.dir.read("stop.json", &s)
	if err != nil || !found {
		if !told || k.stopping {
			return
		}
		s = stop{Deadline: time.Now().Add(grace), Gently: grace > 0}
	}
	left := time.Until(s.Deadline)
	if left <= 0 {
		k.stopping = true
		k.finish()
		return
	}
	k.kill = time.After(left)
	if s.Gently && !k.stopping {
		signal(os.Getpid(), k.leader, syscall.SIGTERM)
	}
	k.stopping = true
}

// finish kills the whole family.
func (k *keeper) finish() {
	k.killed, k.kill = true, nil
	signal(os.Getpid(), k.leader, syscall.SIGKILL)
}

// drain waits until all output is in the journal, but not for somebody who
// escaped and holds the pipes.
func (k *keeper) drain() {
	for _, r := range k.readers {
		_ = r.SetReadDeadline(time.Now().Add(drainLimit))
	}
	k.streams.Wait()
	k.journal.finish()
}

func (k *keeper) refuse(err error) error {
	for _, r := range k.readers {
		_ = r.Close()
	}
	k.streams.Wait()
	return k.tell(exitOf(engine.NewRefusedReport("", err, time.Now().UTC())))
}

// tell writes exit.json into the room set aside for it.
func (k *keeper) tell(e exit) error {
	if k.spare == nil {
		return k.dir.write("exit.json", e)
	}
	data, err := json.Marshal(e)
	if err == nil {
		_, err = k.spare.WriteAt(data, 0)
	}
	if err == nil {
		err = k.spare.Truncate(int64(len(data)))
	}
	if err = errors.Join(err, k.spare.Close()); err != nil {
		return err
	}
	return os.Rename(k.dir.file("exit.spare"), k.dir.file("exit.json"))
}

func codeOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
