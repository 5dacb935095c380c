package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"dstack/internal/dstack"
)

// folder is the folder of one attempt. Its files hold the state of the attempt, for this
// server and for any later one; the formats of the files must stay readable:
//
//	order.json  the specification of the attempt, without secrets
//	lock        locked by the engine before it spawns the keeper, and then by the
//	            keeper until it ends
//	kept.json   keeperState, written by the keeper: the command has been started
//	stop.json   stopRequest, written by the engine: when the attempt has to end
//	exit.json   exitRecord: the attempt has ended, or could not be started; all of
//	            its output is in the log
//	mounts.json mountRecord: the volumes that the attempt has
//	log.N       output; the two newest files are kept
//	work/       the code
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// keeperState identifies the processes of an attempt. A process number is valid only
// with the boot and the start time that it belongs to, because numbers are reused.
type keeperState struct {
	KeeperPID       int    `json:"Keeper"`
	LeaderPID       int    `json:"Leader"` // the command; it leads a session and a process group
	LeaderStartTime string `json:"Birth"`  // see startTime
	BootID          string `json:"Boot"`   // see bootID
	StartedAt       time.Time
}

// stopRequest says when an attempt has to end.
type stopRequest struct {
	Deadline time.Time // SIGKILL
	Graceful bool      `json:"Gently"` // SIGTERM first
}

// exitRecord says how an attempt ended.
type exitRecord struct {
	State      dstack.AttemptState `json:"Outcome"` // exited or refused
	ExitCode   int                 `json:"Code"`
	Error      string              `json:",omitempty"`
	Permanent  bool                `json:",omitempty"`
	LastOutput []string            `json:"LastOut,omitempty"`
	StartedAt  time.Time
	EndedAt    time.Time
}

func newExitRecord(r dstack.Report) exitRecord {
	return exitRecord{
		State: r.State, ExitCode: r.ExitCode, Error: r.Error, Permanent: r.Permanent,
		LastOutput: r.LastOutput, StartedAt: r.StartedAt, EndedAt: r.EndedAt,
	}
}

// readJSON decodes a file of the folder into v. It returns false if the file does not
// exist.
func (f folder) readJSON(name string, v any) (bool, error) {
	data, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", f.path(name), err)
	}
	return true, nil
}

// writeJSON encodes v into a file of the folder. It replaces the file atomically.
func (f folder) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", f.path(name), err)
	}
	draft, err := os.CreateTemp(string(f), name+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", f.path(name), err)
	}
	_, err = draft.Write(data)
	if err = errors.Join(err, draft.Close()); err == nil {
		err = os.Rename(draft.Name(), f.path(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot write %s: %w", f.path(name), err), os.Remove(draft.Name()))
	}
	return nil
}

func (f folder) hasFile(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

// tryLock takes the lock of the folder; it returns nil if another process holds it. The
// lock is released once all processes have closed their copies of the file.
func (f folder) tryLock() (*os.File, error) {
	file, err := os.OpenFile(f.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = retryInterrupted(func() error { return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err == nil {
		return file, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("cannot lock %s: %w", f.path("lock"), err)
}

// isLocked reports whether a process holds the lock. If the lock file cannot be opened,
// for example because no file descriptors are left, the lock counts as held: a running
// attempt must not be killed as an orphan.
func (f folder) isLocked() bool {
	file, err := os.Open(f.path("lock"))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer file.Close()
	err = retryInterrupted(func() error { return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) })
	return errors.Is(err, syscall.EWOULDBLOCK)
}

func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// isOver reports whether the attempt has ended, so that no more output will come.
func (f folder) isOver() bool {
	return f.hasFile("exit.json") || !f.isLocked()
}

// removeAll deletes the folder. It also deletes folders without write permission, which
// package managers leave in their caches.
func (f folder) removeAll() error {
	if os.RemoveAll(string(f)) == nil {
		return nil
	}
	_ = filepath.WalkDir(string(f), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // best effort: the folder is about to be deleted
		}
		return nil
	})
	return os.RemoveAll(string(f))
}
