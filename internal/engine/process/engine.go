// Package process runs replicas as plain processes of this machine, for
// machines without Docker and for Macs, whose GPU containers cannot use.
// Nothing is isolated: a replica sees the machine's files and programs.
//
// Each attempt is run by a keeper, a process of our own binary (see Keep)
// which outlives the server. All that is known of an attempt lies in its
// folder, so that the next server finds it again.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Options are what a process engine needs.
type Options struct {
	Dir  string            // where attempts live; made when missing, and nobody else's
	Self string            // the program whose command "keep FOLDER" calls Keep
	Code engine.CodeOpener // nil: no order has code
	GPUs bool              // the machine has NVIDIA GPUs, so those that an order may not use are hidden from it
}

// Engine runs attempts as processes.
type Engine struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // preparations

	mu           sync.Mutex
	preparations map[dstack.AttemptID]*preparation  // those under way
	refusals     map[dstack.AttemptID]dstack.Report // those whose folder cannot tell
	endedReports map[dstack.AttemptID]dstack.Report // ended, as their folder tells
	ports        map[dstack.AttemptID]portStatus    // what a running one's port said last
	keeperPIDs   map[dstack.AttemptID]int           // keepers that this engine spawned; zero once collected
}

// portStatus is what a port said, and where.
type portStatus struct {
	ready   bool
	port    string
	address string // without the port; empty: it never answered
}

var _ engine.Engine = (*Engine)(nil)

// New opens the engine over a folder. Attempts in it, of an earlier server
// too, are known at once.
func New(opts Options) (*Engine, error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, &dstack.Error{
			Kind:    dstack.Unavailable,
			Message: "cannot make the folder for processes: " + opts.Dir,
			Hint:    "make it writable, or choose another place with DSTACK_SERVER_DIR",
			Cause:   err,
		}
	}
	gone, _ := filepath.Glob(filepath.Join(opts.Dir, ".gone-*"))
	for _, dir := range gone {
		_ = folder(dir).removeAll()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Engine{
		opts: opts, ctx: ctx, cancel: cancel,
		preparations: map[dstack.AttemptID]*preparation{},
		refusals:     map[dstack.AttemptID]dstack.Report{},
		endedReports: map[dstack.AttemptID]dstack.Report{},
		ports:        map[dstack.AttemptID]portStatus{},
		keeperPIDs:   map[dstack.AttemptID]int{},
	}, nil
}

// Close ends what the engine is preparing. What runs goes on.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	return nil
}

func (e *Engine) folderOf(id dstack.AttemptID) folder {
	return folder(filepath.Join(e.opts.Dir, string(id)))
}

// isValidID refuses IDs that are no name of a folder; nothing was ever started
// with one.
func isValidID(id dstack.AttemptID) bool {
	return id != "" && id[0] != '.' && !strings.ContainsAny(string(id), `/\`) && filepath.IsLocal(string(id))
}

// Stop is described at engine.Engine.
func (e *Engine) Stop(_ context.Context, id dstack.AttemptID, grace time.Duration) error {
	if !isValidID(id) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.preparations[id]; p != nil && p.abort() {
		return nil
	}
	dir := e.folderOf(id)
	if dir.isOver() {
		return nil
	}
	want := stopRequest{Deadline: time.Now().Add(grace), Graceful: grace > 0}
	var had stopRequest
	if found, err := dir.readJSON("stop.json", &had); err == nil && found && !had.Deadline.After(want.Deadline) {
		return nil
	}
	if err := dir.writeJSON("stop.json", want); err != nil {
		return e.stopWithoutRequest(dir, err)
	}
	return e.signalKeeper(dir, syscall.SIGTERM)
}

// stopWithoutRequest is for a full disk: the keeper then gives the grace of
// its order.
func (e *Engine) stopWithoutRequest(dir folder, err error) error {
	if dir.hasFile("kept.json") {
		return e.signalKeeper(dir, syscall.SIGTERM)
	}
	return err
}

// signalKeeper signals a folder's keeper; none there is no error. While the lock
// is held, the number in kept.json is the keeper's.
func (e *Engine) signalKeeper(dir folder, sig syscall.Signal) error {
	var k keeperState
	found, err := dir.readJSON("kept.json", &k)
	if err != nil || !found || !dir.isLocked() {
		return err
	}
	if err := syscall.Kill(k.Keeper, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot signal process %d: %w", k.Keeper, err)
	}
	return nil
}

// Limits of Remove's wait for a killed attempt.
const (
	removeTimeout      = 3 * time.Second
	removePollInterval = 3 * time.Millisecond
)

// Remove is described at engine.Engine.
func (e *Engine) Remove(ctx context.Context, id dstack.AttemptID) error {
	if !isValidID(id) {
		return nil
	}
	if p := e.findPreparation(id); p != nil {
		p.abort()
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	dir := e.folderOf(id)
	if dir.isLocked() && !dir.hasFile("exit.json") {
		if err := e.Stop(ctx, id, 0); err != nil {
			return err
		}
	}
	if err := e.waitForKeeper(ctx, dir); err != nil {
		return err
	}
	e.reapKeepers()
	if err := e.deleteFolder(id); err != nil {
		return fmt.Errorf("cannot remove %s: %w", dir, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refusals, id)
	delete(e.endedReports, id)
	delete(e.ports, id)
	if e.keeperPIDs[id] == 0 {
		delete(e.keeperPIDs, id)
	}
	return nil
}

// waitForKeeper returns once a folder's keeper has ended; it kills one that
// takes too long.
func (e *Engine) waitForKeeper(ctx context.Context, dir folder) error {
	look := time.NewTicker(removePollInterval)
	defer look.Stop()
	late := time.After(removeTimeout)
	for dir.isLocked() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			if err := e.signalKeeper(dir, syscall.SIGKILL); err != nil {
				return err
			}
			late = nil
		case <-look.C:
		}
	}
	var k keeperState
	if found, _ := dir.readJSON("kept.json", &k); found && !dir.hasFile("exit.json") {
		killOrphans(k)
	}
	return nil
}

// deleteFolder deletes a folder under another name first, so that half of it is
// never taken for an attempt.
func (e *Engine) deleteFolder(id dstack.AttemptID) error {
	gone := filepath.Join(e.opts.Dir, ".gone-"+string(id))
	err := os.Rename(string(e.folderOf(id)), gone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return folder(gone).removeAll()
}

// reapKeepers lets the system forget keepers that have ended.
func (e *Engine) reapKeepers() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, pid := range e.keeperPIDs {
		if pid == 0 {
			continue
		}
		if got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got == pid || errors.Is(err, syscall.ECHILD) {
			e.keeperPIDs[id] = 0
		}
	}
}
