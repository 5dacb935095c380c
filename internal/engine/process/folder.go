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

// folder is where one attempt lives. What it holds says how the attempt
// stands, to any server that comes later:
//
//	order.json  what was ordered, without secrets
//	lock        held, from before the keeper is spawned until it has ended
//	kept.json   the keeper's: the process runs
//	stop.json   the engine's: it is to end by then
//	exit.json   it ended, or never began; all output is in the log
//	log.N       output; the two newest files
//	work/       the code
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// keeperState is what the keeper says of the process that it started.
type keeperState struct {
	Keeper    int
	Leader    int    // the process, and the session and group it leads
	Birth     string // when that process was born, so that nobody else's is taken for it
	Boot      string // of the machine
	StartedAt time.Time
}

// stopRequest is when an attempt has to have ended.
type stopRequest struct {
	Deadline time.Time
	Graceful bool // SIGTERM first
}

// exitRecord is how an attempt ended.
type exitRecord struct {
	Outcome   dstack.AttemptState // exited or refused
	Code      int
	Error     string   `json:",omitempty"`
	Permanent bool     `json:",omitempty"`
	LastOut   []string `json:",omitempty"`
	StartedAt time.Time
	EndedAt   time.Time
}

func newExitRecord(r dstack.Report) exitRecord {
	return exitRecord{
		Outcome: r.State, Code: r.ExitCode, Error: r.Error, Permanent: r.Permanent,
		LastOut: r.LastOutput, StartedAt: r.StartedAt, EndedAt: r.EndedAt,
	}
}

// readJSON fills v from a file of the folder; false when there is no such file.
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

// writeJSON puts v into a file of the folder, whole or not at all.
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

// tryLock takes the lock, or returns nil when somebody holds it. It is free once
// every copy of the file is closed, in whatever process.
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

// isLocked says whether somebody holds the lock. One that cannot be looked at, for
// want of file descriptors, counts as held: what runs is not to be buried.
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

// isOver says that no more output will come.
func (f folder) isOver() bool {
	return f.hasFile("exit.json") || !f.isLocked()
}

// removeAll deletes the folder, folders without write permission included, as
// package caches leave them.
func (f folder) removeAll() error {
	if os.RemoveAll(string(f)) == nil {
		return nil
	}
	_ = filepath.WalkDir(string(f), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // ours, and about to go
		}
		return nil
	})
	return os.RemoveAll(string(f))
}
