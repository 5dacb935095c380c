package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/sdnotify"
)

// drainNoticeDelay is how long the server finishes requests silently. Most are done within that time, and so are long
// polls of the command line, which end at once.
const drainNoticeDelay = 200 * time.Millisecond

// cutTimeout is how long requests that were cut off, and the ends of responses, have before their connections are closed.
const cutTimeout = time.Second

// inFlight counts requests, including those that have become a WebSocket, which an http.Server does not wait for, and those of
// the fast path.
type inFlight struct {
	count     atomic.Int64
	isAwaited atomic.Bool // idle is set

	mu   sync.Mutex
	idle chan struct{} // closed when the count becomes 0; nil: nobody waits
}

// begin counts a request until done is called.
func (f *inFlight) begin() (done func()) {
	f.count.Add(1)
	return f.end
}

// end ends the count of a request.
func (f *inFlight) end() {
	if f.count.Add(-1) == 0 && f.isAwaited.Load() {
		f.signalIdle()
	}
}

func (f *inFlight) signalIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle != nil {
		close(f.idle)
		f.idle = nil
		f.isAwaited.Store(false)
	}
}

// waitIdle waits until no request is in flight. It returns how many are left if ctx ends first.
func (f *inFlight) waitIdle(ctx context.Context) (left int) {
	f.mu.Lock()
	if f.idle == nil {
		f.idle = make(chan struct{})
		f.isAwaited.Store(true)
	}
	idle := f.idle
	f.mu.Unlock()
	if f.count.Load() == 0 { // before or after isAwaited was set: end may not have seen it
		f.signalIdle()
	}
	select {
	case <-idle:
		return 0
	case <-ctx.Done():
		return int(f.count.Load())
	}
}

// drain ends the requests of a server that stops: it closes the listener and idle connections, refuses requests that wait
// for a replica, lets the others finish for drainTimeout, and cuts the rest. A replaced process has more time, and requests
// go on waiting in it.
func (d *daemon) drain(ctx context.Context, port *mainPort, cut context.CancelFunc) {
	timeout := d.drainTimeout
	if d.isReplaced() {
		timeout = d.longDrain
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = d.listener.Close()
	d.published.frontend.StopAccepting()
	if d.isReplaced() {
		defer context.AfterFunc(d.interrupted, func() {
			_ = loop.Sleep(limited, d.drainTimeout)
			cancel()
		})()
		_ = loop.Sleep(limited, idleGrace)
		d.waitForReplaced(limited, timeout)
	} else {
		d.notify(sdnotify.Stopping)
		d.gateway.RefuseWaiting()
	}
	var group errgroup.Group
	group.Go(func() error { return port.shutDown(limited) })
	group.Go(func() error { d.published.frontend.Drain(limited); return nil })
	if left := d.waitForRequests(limited); left > 0 {
		d.log.Warn("requests were cut off because the server stops", "requests", left, "drain_timeout", timeout)
		cut()
	}
	ended, cancelEnded := context.WithTimeout(ctx, cutTimeout)
	defer cancelEnded()
	context.AfterFunc(ended, cancel)
	d.requests.waitIdle(ended)
	_ = group.Wait() // until the ends of the responses are sent; its error is that of limited
	_ = port.server.Close()
	d.published.frontend.Close()
}

// waitForReplaced waits until no request of a replaced process is in flight.
func (d *daemon) waitForReplaced(ctx context.Context, timeout time.Duration) {
	brief, cancel := context.WithTimeout(ctx, drainNoticeDelay)
	defer cancel()
	if left := d.requests.waitIdle(brief); left > 0 && ctx.Err() == nil {
		fmt.Fprintf(d.errOut, " process %d has taken over; this one finishes %s, at most %s\n",
			d.successor.Load(), human.Count(left, "request"), human.ExactDuration(timeout))
		d.requests.waitIdle(ctx)
	}
}

// waitForRequests waits until no request is in flight, and says so if that takes long. It returns how many are left if
// ctx ends first.
func (d *daemon) waitForRequests(ctx context.Context) (left int) {
	brief, cancel := context.WithTimeout(ctx, drainNoticeDelay)
	defer cancel()
	if left = d.requests.waitIdle(brief); left == 0 || ctx.Err() != nil {
		return left
	}
	fmt.Fprintf(d.errOut, " finishing %s, at most %s; press Ctrl-C again to end at once; services keep running in any case\n",
		human.Count(left, "request"), human.ExactDuration(d.drainTimeout))
	return d.requests.waitIdle(ctx)
}

// untilDrained returns a task that runs on while the server drains, after ctx has ended.
func (d *daemon) untilDrained(task loop.Task) loop.Task {
	return loop.Task{Name: task.Name, Run: func(ctx context.Context) error {
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		defer context.AfterFunc(d.drained, stop)()
		return task.Run(running)
	}}
}
