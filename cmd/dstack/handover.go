package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/listen"
	"dstack/internal/loop"
	"dstack/internal/sdnotify"
)

const (
	// handoverName is the Unix socket in the server's folder at which a new process asks for the listening sockets.
	handoverName = "handover.sock"
	takeOverFlag = "--take-over"

	takeOverTimeout = time.Minute      // for the running server to end its passes
	reportTimeout   = 5 * time.Second  // for the report of the requests that a replaced server finishes
	pauseTimeout    = 30 * time.Second // for the passes to end
	// idleGrace is how long a replaced server serves connections that are idle, so that clients can use each once more:
	// the response says that it is the last one.
	idleGrace = 3 * time.Second
	// unusedTimeout is when inherited sockets are closed that nothing uses. Ports of gateways are opened some time after the start.
	unusedTimeout = 30 * time.Second
)

// runningServer is the server that this process replaces. Until Begin it serves, and after Close, too.
type runningServer interface {
	Begin(ctx context.Context) error
	Close()
}

// handover is the part of a process that replaces the one that runs in its folder, and that the next one replaces.
type handover struct {
	folder     string
	lockFolder func(ctx context.Context, dir string) (*os.File, error)
	takesOver  bool // --take-over
	// claimEarlier claims the folder from a process that cannot hand over, and leaves lock nil if there is none; nil: no such
	// process is known.
	claimEarlier func() error
	events       *slog.Logger

	lock       *os.File // of the folder
	sockets    listen.Set
	running    runningServer // the process that this one replaces; nil: none
	successor  atomic.Int64  // the process that has replaced this one; 0: none
	program    string        // the path that this process was started from
	supervisor sdnotify.Supervisor
}

// claimFolder makes this process the only one of its folder. With --take-over it gets the lock and the listening sockets of
// the running one, if there is one.
func (h *handover) claimFolder(ctx context.Context) (err error) {
	h.supervisor = sdnotify.FromEnvironment()
	if h.program, err = os.Executable(); err != nil {
		return fmt.Errorf("cannot find the dstack program: %w", err)
	}
	if h.takesOver {
		if err := h.claimFromRunning(ctx); err != nil || h.lock != nil {
			return err
		}
	}
	h.lock, err = h.lockFolder(ctx, h.folder)
	return err
}

// claimFromRunning gets the lock and the sockets of the running process. Without one, the lock stays nil.
func (h *handover) claimFromRunning(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	running, err := listen.TakeOver(limited, filepath.Join(h.folder, handoverName))
	switch {
	case errors.Is(err, listen.ErrNone) && h.claimEarlier == nil:
		return nil
	case errors.Is(err, listen.ErrNone):
		return h.claimEarlier()
	case err != nil:
		return &dstack.Error{Kind: dstack.Conflict, Message: "cannot take over from the running process", Cause: err,
			Hint: "look at the log of the running process, which goes on"}
	}
	h.running = running
	h.sockets.Inherit(running.Sockets...)
	for _, f := range running.Files {
		if f.Name == lockName {
			h.lock = f.File
		}
	}
	if h.lock == nil {
		running.Close()
		return errors.New("the running process did not hand over the lock of its folder")
	}
	h.events.Info("taking over from the running process", "pid", running.PID, "sockets", len(running.Sockets))
	return nil
}

// beginServing makes the running process stop accepting connections, if this one replaces it. After that, the folder is this
// process's alone.
func (h *handover) beginServing(ctx context.Context) error {
	if h.running == nil {
		return nil
	}
	if err := h.running.Begin(ctx); err != nil {
		return &dstack.Error{Kind: dstack.Conflict, Message: "cannot take over from the running process", Cause: err,
			Hint: "look at the log of the running process"}
	}
	return nil
}

// handoverSteps are what a process does when another one takes over.
type handoverSteps struct {
	pause  func(ctx context.Context) error // stops what only one of them may do, and returns when that has ended
	resume func()                          // begins it again
	yield  func(ctx context.Context)       // the other one is about to accept connections
	// replaced is called when this process accepts no more connections, and only finishes its requests.
	replaced func()
}

// tasks returns the tasks with which another process replaces this one.
func (h *handover) tasks(steps handoverSteps) []loop.Task {
	p := &listen.Predecessor{
		Path: filepath.Join(h.folder, handoverName), Sockets: &h.sockets, Files: []listen.File{{Name: lockName, File: h.lock}}, Log: h.events,
		Pause: func(ctx context.Context) error {
			h.notify(sdnotify.Reloading(), sdnotify.Status("a new process takes over"))
			ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
			defer cancel()
			return steps.pause(ctx)
		},
		Resume: func() {
			steps.resume()
			h.notify(sdnotify.Ready, sdnotify.Status("a new process did not take over; this one goes on"))
		},
		Yield: func(ctx context.Context, successor int) {
			steps.yield(ctx)
			h.successor.Store(int64(successor))
			h.notify(sdnotify.Ready, sdnotify.MainPID(successor))
			h.events.Info("a new process has taken over; this one finishes its requests", "pid", successor)
		},
	}
	return append(h.supervisor.Tasks(),
		loop.Task{Name: "handover", Run: func(ctx context.Context) error {
			if err := p.Run(ctx); err == nil {
				steps.replaced()
			} else if ctx.Err() == nil { // such as a path that is too long for a Unix socket
				h.events.Warn("this process cannot be replaced while it runs", "err", err)
			}
			<-ctx.Done()
			return ctx.Err()
		}},
		loop.Task{Name: "replacement", Run: h.replaceOnSignal},
		loop.Task{Name: "inherited sockets", Run: func(ctx context.Context) error {
			if err := loop.Sleep(ctx, unusedTimeout); err == nil {
				h.sockets.CloseUnused()
			}
			<-ctx.Done()
			return ctx.Err()
		}})
}

// isReplaced reports whether another process has taken over.
func (h *handover) isReplaced() bool { return h.successor.Load() != 0 }

// replaceOnSignal starts the program that lies where this one was started from, as the successor of this process, on each
// SIGUSR2.
func (h *handover) replaceOnSignal(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-signals:
			if err := h.startSuccessor(ctx); err != nil && ctx.Err() == nil {
				h.events.Error("the new process did not take over; this one goes on", "program", h.program, "err", err)
				h.notify(sdnotify.Ready, sdnotify.Status("the new process did not take over: "+err.Error()))
			}
		}
	}
}

// startSuccessor starts a process that takes over, and waits until that process or ctx ends.
func (h *handover) startSuccessor(ctx context.Context) error {
	args := os.Args[1:]
	if !slices.Contains(args, takeOverFlag) {
		args = append(slices.Clone(args), takeOverFlag)
	}
	successor := exec.Command(h.program, args...) // it outlives this process
	successor.Stdout, successor.Stderr = os.Stdout, os.Stderr
	successor.Env = sdnotify.Environment(os.Environ())
	if err := successor.Start(); err != nil {
		return err
	}
	h.events.Info("a new process was started", "program", h.program, "pid", successor.Process.Pid)
	ended := make(chan error, 1)
	var wait errgroup.Group
	wait.Go(func() error {
		ended <- successor.Wait()
		return nil
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-ended:
		return fmt.Errorf("it ended: %w", errors.Join(err, errors.New("see its output")))
	}
}

// notify tells the supervisor of this process what it does.
func (h *handover) notify(states ...string) {
	if err := h.supervisor.Notify(states...); err != nil {
		h.events.Warn("the supervisor does not listen", "err", err)
	}
}

// markLastResponse makes a response of a replaced process the last one of its connection.
func (h *handover) markLastResponse(w http.ResponseWriter, r *http.Request) {
	if h.isReplaced() && r.Header.Get("Upgrade") == "" {
		w.Header().Set("Connection", "close")
	}
}
