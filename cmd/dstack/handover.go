package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
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
)

// runningServer is the server that this process replaces. Until Begin it serves, and after Close, too.
type runningServer interface {
	Begin(ctx context.Context) error
	Close()
}

// claimFolder makes this process the only server of its folder. With --take-over it gets the lock and the listening sockets
// of the running server, if there is one.
func (d *daemon) claimFolder(ctx context.Context) (err error) {
	if d.takeOver {
		if err := d.claimFromRunning(ctx); err != nil || d.lock != nil {
			return err
		}
	}
	d.lock, err = lockFolder(ctx, d.dir)
	return err
}

// claimFromRunning gets the lock and the sockets of the running server. Without one, the lock stays nil.
func (d *daemon) claimFromRunning(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	running, err := listen.TakeOver(limited, d.filePath(handoverName))
	if errors.Is(err, listen.ErrNone) {
		return d.claimFromEarlierVersion()
	}
	if err != nil {
		return &dstack.Error{Kind: dstack.Conflict, Message: "cannot take over from the running server", Cause: err,
			Hint: "look at the log of the running server, which goes on"}
	}
	d.running = running
	d.sockets.Inherit(running.Sockets...)
	for _, f := range running.Files {
		if f.Name == lockName {
			d.lock = f.File
		}
	}
	if d.lock == nil {
		running.Close()
		return errors.New("the running server did not hand over the lock of its folder")
	}
	d.log.Info("taking over from the running server", "pid", running.PID, "sockets", len(running.Sockets))
	return nil
}

// begin makes the running server stop accepting connections, if this process replaces one. After that, this process is the
// server of the folder.
func (d *daemon) begin(ctx context.Context) error {
	if d.running != nil {
		if err := d.running.Begin(ctx); err != nil {
			return &dstack.Error{Kind: dstack.Conflict, Message: "cannot take over from the running server", Cause: err,
				Hint: "look at the log of the running server"}
		}
	}
	d.sockets.CloseUnused()
	if err := d.joinServers(ctx); err != nil {
		return err
	}
	// The lock of the folder proves that no other server of this host runs its passes, so their leases are free.
	return d.store.FreeLeases(ctx, d.hostID)
}

// handoverTasks returns the tasks with which another process replaces this one. replaced is called when it has.
func (d *daemon) handoverTasks(passes *loop.Pausable, replaced func()) []loop.Task {
	handover := &listen.Predecessor{
		Path: d.filePath(handoverName), Sockets: &d.sockets, Files: []listen.File{{Name: lockName, File: d.lock}}, Log: d.log,
		Pause: func(ctx context.Context) error {
			d.notify(sdnotify.Reloading(), sdnotify.Status("a new process takes over"))
			ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
			defer cancel()
			return passes.Pause(ctx)
		},
		Resume: func() {
			passes.Resume()
			d.notify(sdnotify.Ready, sdnotify.Status("a new process did not take over; this one goes on"))
		},
		Yield: d.yield,
	}
	return []loop.Task{
		{Name: "handover", Run: func(ctx context.Context) error {
			if err := handover.Run(ctx); err == nil {
				replaced()
			} else if ctx.Err() == nil { // such as a path that is too long for a Unix socket
				d.log.Warn("this server cannot be replaced while it runs", "err", err)
			}
			<-ctx.Done()
			return ctx.Err()
		}},
		{Name: "replacement", Run: d.replaceOnSignal},
	}
}

// yield makes this process one that finishes its requests, immediately before its successor accepts connections.
func (d *daemon) yield(ctx context.Context, successor int) {
	d.successor.Store(int64(successor))
	d.reportApart(ctx)
	d.notify(sdnotify.Ready, sdnotify.MainPID(successor))
	d.log.Info("a new process has taken over; this one finishes its requests", "pid", successor)
}

// reportApart makes this process report the requests that it finishes under a name of its own: the next process reports under
// the name of the server, and replicas with requests of this one must stay known.
func (d *daemon) reportApart(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	d.gateway.SetName(d.drainName())
	if err := d.gateway.Report(ctx); err != nil {
		d.log.Warn("cannot report the requests that this process finishes", "err", err)
	}
}

// untilYielded returns a task that runs the passes. When they have ended for good and the listeners are closed, it gives the
// folder to the next process, which need not wait until the requests of this one have ended.
func (d *daemon) untilYielded(passes loop.Task) loop.Task {
	return loop.Task{Name: passes.Name, Run: func(ctx context.Context) error {
		err := passes.Run(ctx)
		if ctx.Err() == nil {
			return err
		}
		if !d.isReplaced() {
			d.reportApart(context.WithoutCancel(ctx))
		}
		for _, l := range []net.Listener{d.listener, d.metricsListener, d.sshListener} {
			if l != nil {
				_ = l.Close() // its task does the same
			}
		}
		_ = d.lock.Close()
		return err
	}}
}

// drainName returns the name of this process as a gateway that finishes its requests.
func (d *daemon) drainName() string { return d.hostID + "/" + strconv.Itoa(os.Getpid()) }

// isReplaced reports whether another process has taken over.
func (d *daemon) isReplaced() bool { return d.successor.Load() != 0 }

// forgetDrained deletes the report of this process, so that nothing waits for the next one.
func (d *daemon) forgetDrained(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	if err := d.store.ForgetGateway(ctx, d.drainName()); err != nil {
		d.log.Warn("cannot delete the last load report", "err", err)
	}
}

// untilReplaced returns a task that ends with the server, and that goes on in a replaced process until last ends or the
// process has waited long enough for its requests.
func (d *daemon) untilReplaced(last context.Context, task loop.Task) loop.Task {
	return loop.Task{Name: task.Name, Run: func(ctx context.Context) error {
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		defer context.AfterFunc(ctx, func() {
			if !d.isReplaced() {
				stop()
			}
		})()
		defer context.AfterFunc(last, stop)()
		defer context.AfterFunc(d.drained, stop)()
		return task.Run(running)
	}}
}

// replaceOnSignal starts the program that lies where this one was started from, as the successor of this process, on each
// SIGUSR2.
func (d *daemon) replaceOnSignal(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-signals:
			if err := d.startSuccessor(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("the new process did not take over; this one goes on", "program", d.program, "err", err)
				d.notify(sdnotify.Ready, sdnotify.Status("the new process did not take over: "+err.Error()))
			}
		}
	}
}

// startSuccessor starts a process that takes over, and waits until that process or ctx ends.
func (d *daemon) startSuccessor(ctx context.Context) error {
	args := os.Args[1:]
	if !slices.Contains(args, takeOverFlag) {
		args = append(slices.Clone(args), takeOverFlag)
	}
	successor := exec.Command(d.program, args...) // it outlives this process
	successor.Stdout, successor.Stderr = os.Stdout, os.Stderr
	successor.Env = sdnotify.Environment(os.Environ())
	if err := successor.Start(); err != nil {
		return err
	}
	d.log.Info("a new process was started", "program", d.program, "pid", successor.Process.Pid)
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
func (d *daemon) notify(states ...string) {
	if err := d.supervisor.Notify(states...); err != nil {
		d.log.Warn("the supervisor does not listen", "err", err)
	}
}

// markLastResponse makes a response of a replaced process the last one of its connection.
func (d *daemon) markLastResponse(w http.ResponseWriter, r *http.Request) {
	if d.isReplaced() && r.Header.Get("Upgrade") == "" {
		w.Header().Set("Connection", "close")
	}
}
