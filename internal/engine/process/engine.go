// Package process runs replicas as plain processes of this machine. It is for machines
// without Docker, and for Macs, because containers cannot use their GPUs. Nothing is
// isolated: a replica sees the machine's files and programs.
//
// A keeper, a process of this program's own binary (see Keep), runs each attempt and
// outlives the server. The attempt's folder holds everything that the engine has to
// know about it, so that a restarted server finds it again.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Options configures an Engine.
type Options struct {
	Dir           string            // the folder of the attempts' folders; created if missing, used by one engine only
	VolumesDir    string            // the folder of the volumes' folders; empty: the engine keeps none
	KeeperProgram string            // the program whose command "keep FOLDER" calls Keep
	Code          engine.CodeOpener // nil: attempts have no code
	Files         engine.FileOpener // nil: attempts have no files
	Dialer        *dial.Dialer      // opens the connections of port checks; nil: directly
	Hidden        []string          // folders that attempts must not read, if the system can hide them; Dir may be in one
	GPUs          bool              // the machine has NVIDIA GPUs: an attempt sees only those that it was given
	Log           *slog.Logger      // nil: no log
}

// Engine runs attempts as processes.
type Engine struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // preparations
	hides  bool           // this system lets it hide folders

	mu           sync.Mutex
	preparations map[dstack.AttemptID]*preparation      // attempts whose keeper is not running yet
	refusals     map[dstack.AttemptID]dstack.Report     // refused attempts, also if exit.json could not be written
	endedReports map[dstack.AttemptID]dstack.Report     // the contents of exit.json
	ports        map[dstack.AttemptID]portStatus        // of running attempts
	keeperPIDs   map[dstack.AttemptID]int               // keepers of this engine; 0: ended and reaped
	commands     map[dstack.AttemptID][]*trackedCommand // see Exec
	choosing     sync.Mutex                             // held while a port is chosen and reserved in an attempt's folder
}

// portStatus is the last definite result of checkPort.
type portStatus struct {
	ready  bool
	port   string
	chosen int    // the port, if the engine chose it
	host   string // where the port accepted a connection; empty: never

	listening   []dstack.Listener
	listeningAt time.Time // when they were read
	wasReady    bool      // then
}

var _ engine.Engine = (*Engine)(nil)

// New opens the engine of a folder. ListReports returns the attempts of an earlier server
// in the folder, too.
func New(opts Options) (*Engine, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, &dstack.Error{
			Kind:    dstack.Unavailable,
			Message: "cannot create the folder for processes: " + opts.Dir,
			Hint:    "make it writable, or choose another folder with DSTACK_SERVER_DIR",
			Cause:   err,
		}
	}
	if opts.Dialer == nil {
		opts.Dialer = &dial.Dialer{}
	}
	deleted, _ := filepath.Glob(filepath.Join(opts.Dir, ".gone-*"))
	for _, dir := range deleted {
		_ = folder(dir).removeAll()
	}
	if opts.VolumesDir != "" {
		deleted, _ = filepath.Glob(filepath.Join(opts.VolumesDir, ".gone-*"))
		for _, dir := range deleted {
			_ = folder(dir).removeAll()
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Engine{
		opts: opts, ctx: ctx, cancel: cancel, hides: canHide(opts),
		preparations: map[dstack.AttemptID]*preparation{},
		refusals:     map[dstack.AttemptID]dstack.Report{},
		endedReports: map[dstack.AttemptID]dstack.Report{},
		ports:        map[dstack.AttemptID]portStatus{},
		keeperPIDs:   map[dstack.AttemptID]int{},
		commands:     map[dstack.AttemptID][]*trackedCommand{},
	}, nil
}

// Capabilities returns what the process engine can do.
func Capabilities() dstack.EngineCapabilities {
	return dstack.EngineCapabilities{Name: "process", SharesPorts: true}
}

// Close cancels preparations and ends commands, and waits for them. Attempts keep running.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	return nil
}

func (e *Engine) folderOf(id dstack.AttemptID) folder {
	return folder(filepath.Join(e.opts.Dir, string(id)))
}

// isValidID reports whether an ID can be the name of a folder. No attempt has an ID for
// which it is false.
func isValidID(id dstack.AttemptID) bool {
	return id != "" && id[0] != '.' && !strings.ContainsAny(string(id), `/\`) && filepath.IsLocal(string(id))
}

// Stop implements engine.Engine.
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
	request := stopRequest{Deadline: time.Now().Add(grace), Graceful: grace > 0}
	var earlier stopRequest
	if found, err := dir.readJSON("stop.json", &earlier); err == nil && found && !earlier.Deadline.After(request.Deadline) {
		return nil
	}
	if err := dir.writeJSON("stop.json", request); err != nil {
		return e.stopWithoutRequest(dir, err)
	}
	return e.signalKeeper(dir, syscall.SIGTERM)
}

// stopWithoutRequest stops an attempt whose stop.json cannot be written, as on a full
// disk. The keeper then uses the grace period of the specification.
func (e *Engine) stopWithoutRequest(dir folder, err error) error {
	if dir.hasFile("kept.json") {
		return e.signalKeeper(dir, syscall.SIGTERM)
	}
	return err
}

// signalKeeper sends a signal to the keeper of a folder, if it runs. While the lock is
// held, the process number in kept.json belongs to the keeper.
func (e *Engine) signalKeeper(dir folder, sig syscall.Signal) error {
	var k keeperState
	found, err := dir.readJSON("kept.json", &k)
	if err != nil || !found || !dir.isLocked() {
		return err
	}
	if err := syscall.Kill(k.KeeperPID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot signal process %d: %w", k.KeeperPID, err)
	}
	return nil
}

// Times of Remove's wait for a killed attempt.
const (
	removeTimeout      = 3 * time.Second
	removePollInterval = 3 * time.Millisecond
)

// Remove implements engine.Engine.
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
	if err := e.endCommands(ctx, id); err != nil {
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

// waitForKeeper waits until the keeper of a folder has ended. It kills the keeper if
// that takes longer than removeTimeout.
func (e *Engine) waitForKeeper(ctx context.Context, dir folder) error {
	poll := time.NewTicker(removePollInterval)
	defer poll.Stop()
	timeout := time.After(removeTimeout)
	for dir.isLocked() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			if err := e.signalKeeper(dir, syscall.SIGKILL); err != nil {
				return err
			}
			timeout = nil
		case <-poll.C:
		}
	}
	var k keeperState
	if found, _ := dir.readJSON("kept.json", &k); found && !dir.hasFile("exit.json") {
		killOrphans(k)
	}
	return nil
}

// deleteFolder deletes the folder of an attempt. It renames the folder first, so that a
// partly deleted folder never counts as an attempt.
func (e *Engine) deleteFolder(id dstack.AttemptID) error {
	deleted := filepath.Join(e.opts.Dir, ".gone-"+string(id))
	err := os.Rename(string(e.folderOf(id)), deleted)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return folder(deleted).removeAll()
}

// reapKeepers waits for keepers that have ended, so that they do not stay zombies.
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
