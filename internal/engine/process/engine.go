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

	mu       sync.Mutex
	prepared map[dstack.AttemptID]*preparation  // those under way
	refused  map[dstack.AttemptID]dstack.Report // those whose folder cannot tell
	over     map[dstack.AttemptID]dstack.Report // ended, as their folder tells
	answered map[dstack.AttemptID]answer        // what a running one's port said last
	keepers  map[dstack.AttemptID]int           // keepers that this engine spawned; zero once collected
}

// answer is what a port said, and where.
type answer struct {
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
		_ = folder(dir).remove()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Engine{
		opts: opts, ctx: ctx, cancel: cancel,
		prepared: map[dstack.AttemptID]*preparation{},
		refused:  map[dstack.AttemptID]dstack.Report{},
		over:     map[dstack.AttemptID]dstack.Report{},
		answered: map[dstack.AttemptID]answer{},
		keepers:  map[dstack.AttemptID]int{},
	}, nil
}

// Close ends what the engine is preparing. What runs goes on.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	return nil
}

func (e *Engine) folder(id dstack.AttemptID) folder {
	return folder(filepath.Join(e.opts.Dir, string(id)))
}

// known refuses IDs that are no name of a folder; nothing was ever started
// with one.
func known(id dstack.AttemptID) bool {
	return id != "" && id[0] != '.' && !strings.ContainsAny(string(id), `/\`) && filepath.IsLocal(string(id))
}

// Stop is described at engine.Engine.
func (e *Engine) Stop(_ context.Context, id dstack.AttemptID, grace time.Duration) error {
	if !known(id) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.prepared[id]; p != nil && p.stop() {
		return nil
	}
	dir := e.folder(id)
	if dir.over() {
		return nil
	}
	want := stop{Deadline: time.Now().Add(grace), Gently: grace > 0}
	var had stop
	if found, err := dir.read("stop.json", &had); err == nil && found && !had.Deadline.After(want.Deadline) {
		return nil
	}
	if err := dir.write("stop.json", want); err != nil {
		return e.stopWithoutWriting(dir, err)
	}
	return e.toKeeper(dir, syscall.SIGTERM)
}

// stopWithoutWriting is for a full disk: the keeper then gives the grace of
// its order.
func (e *Engine) stopWithoutWriting(dir folder, err error) error {
	if dir.has("kept.json") {
		return e.toKeeper(dir, syscall.SIGTERM)
	}
	return err
}

// toKeeper signals a folder's keeper; none there is no error. While the lock
// is held, the number in kept.json is the keeper's.
func (e *Engine) toKeeper(dir folder, sig syscall.Signal) error {
	var k kept
	found, err := dir.read("kept.json", &k)
	if err != nil || !found || !dir.held() {
		return err
	}
	if err := syscall.Kill(k.Keeper, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot signal process %d: %w", k.Keeper, err)
	}
	return nil
}

// Limits of Remove's wait for a killed attempt.
const (
	removeLimit = 3 * time.Second
	removeLook  = 3 * time.Millisecond
)

// Remove is described at engine.Engine.
func (e *Engine) Remove(ctx context.Context, id dstack.AttemptID) error {
	if !known(id) {
		return nil
	}
	if p := e.preparation(id); p != nil {
		p.stop()
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	dir := e.folder(id)
	if dir.held() && !dir.has("exit.json") {
		if err := e.Stop(ctx, id, 0); err != nil {
			return err
		}
	}
	if err := e.waitUntilFree(ctx, dir); err != nil {
		return err
	}
	e.collect()
	if err := e.discard(id); err != nil {
		return fmt.Errorf("cannot remove %s: %w", dir, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refused, id)
	delete(e.over, id)
	delete(e.answered, id)
	if e.keepers[id] == 0 {
		delete(e.keepers, id)
	}
	return nil
}

// waitUntilFree returns once a folder's keeper has ended; it kills one that
// takes too long.
func (e *Engine) waitUntilFree(ctx context.Context, dir folder) error {
	look := time.NewTicker(removeLook)
	defer look.Stop()
	late := time.After(removeLimit)
	for dir.held() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			if err := e.toKeeper(dir, syscall.SIGKILL); err != nil {
				return err
			}
			late = nil
		case <-look.C:
		}
	}
	var k kept
	if found, _ := dir.read("kept.json", &k); found && !dir.has("exit.json") {
		bury(k)
	}
	return nil
}

// discard deletes a folder under another name first, so that half of it is
// never taken for an attempt.
func (e *Engine) discard(id dstack.AttemptID) error {
	gone := filepath.Join(e.opts.Dir, ".gone-"+string(id))
	err := os.Rename(string(e.folder(id)), gone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return folder(gone).remove()
}

// collect lets the system forget keepers that have ended.
func (e *Engine) collect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, pid := range e.keepers {
		if pid == 0 {
			continue
		}
		if got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got == pid || errors.Is(err, syscall.ECHILD) {
			e.keepers[id] = 0
		}
	}
}
