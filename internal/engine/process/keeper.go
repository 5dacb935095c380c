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

// launchSpec is the command that a keeper runs. The engine writes it to the keeper's
// standard input, because it contains secrets, which must not be on disk.
type launchSpec struct {
	Argv  []string
	Env   []string
	Dir   string
	Grace time.Duration // from SIGTERM to SIGKILL if stop.json does not say it
	confinement
}

// Times of a keeper's waits. drainTimeout limits the wait for output if a process outside
// of the process tree holds the pipe open.
const (
	killTimeout      = 2 * time.Second
	drainTimeout     = time.Second
	treePollInterval = 5 * time.Millisecond
)

// lockFD is the file descriptor of the folder's lock, which a keeper inherits from the
// engine.
const lockFD = 3

// Keep runs one attempt in a folder that the process engine has prepared, and returns
// once the command and all of its descendants have ended. It returns an exit code for
// this process. Keep is the hidden command "dstack keep FOLDER", which only the engine
// calls: it passes the folder's lock as file descriptor 3 and a launchSpec on standard
// input.
func Keep(path string) int {
	dir := folder(path)
	lock, err := openInheritedLock(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "dstack keep:", err)
		return 2
	}
	// The lock is never closed, so that exactly the end of this process releases it.
	defer runtime.KeepAlive(lock)
	stopSignals := make(chan os.Signal, 8)
	ossignal.Notify(stopSignals, syscall.SIGTERM)
	// Not Ignore: the replica would inherit that.
	ossignal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	k := &keeper{dir: dir, stopSignals: stopSignals}
	if err := k.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dstack keep:", err)
		return 1
	}
	return 0
}

// openInheritedLock returns the folder's lock, which this process inherited. An error
// means that the engine has not started this process.
func openInheritedLock(dir folder) (*os.File, error) {
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

// keeper runs the command of one attempt and waits for its process tree: the command,
// which is the leader of a session and a process group, and all of its descendants.
type keeper struct {
	dir         folder
	stopSignals chan os.Signal
	journal     *journal
	leaderPID   int
	startedAt   time.Time
	copying     sync.WaitGroup // of the output into the journal
	output      *os.File       // the keeper's end of the output's pipe
	reserved    *os.File       // disk space for exit.json, allocated at the start

	leaderExited chan syscall.WaitStatus
	childless    chan struct{} // closed once no child is left
	stopping     bool
	killTimer    <-chan time.Time // end of the grace period
	killed       bool
}

func (k *keeper) run() error {
	var launch launchSpec
	if err := json.NewDecoder(os.Stdin).Decode(&launch); err != nil {
		return fmt.Errorf("cannot read what to run: %w", err) // the engine was killed
	}
	if err := k.prepare(); err != nil {
		return k.writeRefusal(err)
	}
	if err := k.startCommand(launch); err != nil {
		return k.writeRefusal(err)
	}
	k.startedAt = time.Now().UTC()
	err := k.dir.writeJSON("kept.json", keeperState{
		KeeperPID: os.Getpid(), LeaderPID: k.leaderPID, LeaderStartTime: startTime(k.leaderPID),
		BootID: bootID(), StartedAt: k.startedAt,
	})
	if err != nil { // a later server could not find the attempt
		signalTree(os.Getpid(), k.leaderPID, syscall.SIGKILL)
		return k.writeRefusal(err)
	}
	k.applyStop(launch.Grace, false) // stop.json may have been written before kept.json
	status := k.waitForExit(launch.Grace)
	k.drainOutput()
	return k.writeExit(exitRecord{
		State: dstack.AttemptExited, ExitCode: exitCodeOf(status),
		LastOutput: k.journal.copyLastLines(), StartedAt: k.startedAt, EndedAt: time.Now().UTC(),
	})
}

// prepare opens the journal and reserves disk space for exit.json, so that the end of the
// attempt can be recorded on a full disk, too.
func (k *keeper) prepare() (err error) {
	if err = becomeReaper(); err != nil {
		return fmt.Errorf("cannot adopt orphans: %w", err)
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

// startCommand starts the command in a session of its own, so that its whole process group
// can be signaled.
func (k *keeper) startCommand(launch launchSpec) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	output, err := k.openOutput()
	if err != nil {
		return err
	}
	defer output.Close()
	attributes := &syscall.ProcAttr{
		Dir: launch.Dir, Env: launch.Env,
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	k.leaderPID, err = launch.start(launch.Argv, attributes)
	if err != nil {
		return fmt.Errorf("cannot run %s: %w", launch.Argv[0], err)
	}
	k.leaderExited, k.childless = make(chan syscall.WaitStatus, 1), make(chan struct{})
	go k.reapChildren() // ends when no child is left; waitForTree waits for that
	return nil
}

// openOutput returns the write end of a pipe whose output is copied into the journal. The
// command's stdout and stderr share it, because two pipes would lose the order in which
// their lines were written.
func (k *keeper) openOutput() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k.output = r
	k.copying.Go(func() {
		lines := bufio.NewReaderSize(r, maxLineBytes)
		for {
			line, err := lines.ReadSlice('\n')
			if len(line) > 0 {
				if line[len(line)-1] == '\n' {
					line = line[:len(line)-1]
				}
				k.journal.add(line)
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

// reapChildren waits for all children: the leader, and the orphans that this process has
// adopted.
func (k *keeper) reapChildren() {
	defer close(k.childless)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return
		case pid == k.leaderPID:
			k.leaderExited <- status
		}
	}
}

// waitForExit waits until the whole process tree has ended, and returns the status of the
// leader. When the leader ends by itself, its descendants are killed, as in a container.
func (k *keeper) waitForExit(grace time.Duration) syscall.WaitStatus {
	var status syscall.WaitStatus
	for leaderRuns := true; leaderRuns; {
		select {
		case status = <-k.leaderExited:
			leaderRuns = false
		case <-k.stopSignals:
			k.applyStop(grace, true)
		case <-k.killTimer:
			k.killTree()
		}
	}
	if !k.stopping {
		k.killTree()
	}
	k.waitForTree(grace)
	return status
}

// waitForTree waits until no child and no process of the leader's group is left. Once the
// tree has been killed, it waits for killTimeout at most.
func (k *keeper) waitForTree(grace time.Duration) {
	poll := time.NewTicker(treePollInterval)
	defer poll.Stop()
	childless := k.childless
	timeout := (<-chan time.Time)(nil)
	for childless != nil || !isGroupEmpty(k.leaderPID) {
		if k.killed && timeout == nil {
			timeout = time.After(killTimeout)
		}
		select {
		case <-childless:
			childless = nil
		case <-k.stopSignals:
			k.applyStop(grace, true)
		case <-k.killTimer:
			k.killTree()
		case <-poll.C:
			if k.killed {
				k.killTree()
			}
		case <-timeout: // a process is blocked in the kernel
			return
		}
	}
}

// applyStop does what stop.json says. If there is no stop.json and the keeper was
// signaled, as on shutdown of the machine, it stops the attempt with grace.
func (k *keeper) applyStop(grace time.Duration, signaled bool) {
	var request stopRequest
	found, err := k.dir.readJSON("stop.json", &request)
	if err != nil || !found {
		if !signaled || k.stopping {
			return
		}
		request = stopRequest{Deadline: time.Now().Add(grace), Graceful: grace > 0}
	}
	remaining := time.Until(request.Deadline)
	if remaining <= 0 {
		k.stopping = true
		k.killTree()
		return
	}
	k.killTimer = time.After(remaining)
	if request.Graceful && !k.stopping {
		signalTree(os.Getpid(), k.leaderPID, syscall.SIGTERM)
	}
	k.stopping = true
}

// killTree sends SIGKILL to the whole process tree.
func (k *keeper) killTree() {
	k.killed, k.killTimer = true, nil
	signalTree(os.Getpid(), k.leaderPID, syscall.SIGKILL)
}

// drainOutput waits until all output is in the journal. If a process outside of the tree
// holds the pipe open, it waits for drainTimeout.
func (k *keeper) drainOutput() {
	_ = k.output.SetReadDeadline(time.Now().Add(drainTimeout))
	k.copying.Wait()
	k.journal.finish()
}

// writeRefusal records that the command could not be started because of err.
func (k *keeper) writeRefusal(err error) error {
	if k.output != nil {
		_ = k.output.Close()
	}
	k.copying.Wait()
	return k.writeExit(newExitRecord(engine.NewRefusedReport("", err, time.Now().UTC())))
}

// writeExit writes exit.json, into the reserved disk space if there is any.
func (k *keeper) writeExit(exit exitRecord) error {
	if k.reserved == nil {
		return k.dir.writeJSON("exit.json", exit)
	}
	data, err := json.Marshal(exit)
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

// exitCodeOf returns the exit code as shells report it: 128 + the signal's number for a
// process that a signal ended.
func exitCodeOf(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
