package main

import (
	"context"
	"net"
	"os"
	"strconv"

	"dstack/internal/loop"
)

// begin makes the running server stop accepting connections, if this process replaces one. After that, this process is the
// server of the folder.
func (d *daemon) begin(ctx context.Context) error {
	if err := d.beginServing(ctx); err != nil {
		return err
	}
	if err := d.joinServers(ctx); err != nil {
		return err
	}
	// The lock of the folder proves that no other server of this host runs its passes, so their leases are free.
	return d.store.FreeLeases(ctx, d.hostID)
}

// handoverTasks returns the tasks with which another process replaces this server.
func (d *daemon) handoverTasks(passes *loop.Pausable, replaced func()) []loop.Task {
	return d.tasks(handoverSteps{pause: passes.Pause, resume: passes.Resume, yield: d.reportApart, replaced: replaced})
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
