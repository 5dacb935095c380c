package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Forward is a port of a host's loopback interface at which programs of the host reach this server.
type Forward struct {
	Host dstack.InstanceID
	Port int
}

// Forwards keeps the ports of hosts open that it is to, and accepts the connections to all of them. If several servers keep
// the same port, one of them has it, and another one gets it when that one is away.
type Forwards struct {
	backend *Backend
	list    func(ctx context.Context) ([]Forward, error)
	conns   chan net.Conn
	work    sync.WaitGroup

	mu        sync.Mutex
	cancels   map[Forward]context.CancelFunc // of those that are open, or being opened
	notBefore map[Forward]time.Time          // of the next try after a failure
	reasons   map[dstack.InstanceID]string   // why a port of a host is not open
	failures  loop.RepeatFilter
}

// NewForwards returns forwards. list returns all that are to be open, and is called about once a second.
func (b *Backend) NewForwards(list func(ctx context.Context) ([]Forward, error)) *Forwards {
	return &Forwards{backend: b, list: list, conns: make(chan net.Conn), cancels: map[Forward]context.CancelFunc{}, notBefore: map[Forward]time.Time{},
		reasons: map[dstack.InstanceID]string{}}
}

// Failure returns why the port of a host is not open, for the user; empty: it is, or was not tried yet.
func (f *Forwards) Failure(host dstack.InstanceID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reasons[host]
}

// setReason notes why a port of a host is not open; nil: it is.
func (f *Forwards) setReason(host dstack.InstanceID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.reasons, host)
	if err == nil {
		return
	}
	text := err.Error()
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Hint != "" {
		text += "; " + e.Hint
	}
	f.reasons[host] = text
}

const (
	forwardInterval = time.Second
	forwardRetry    = time.Second // after a failure: a port that another server has, for example
)

// Task returns the task that keeps the ports open.
func (f *Forwards) Task() loop.Task {
	task := loop.Repeat("ports on hosts", loop.NewWake(), f.update)
	run := task.Run
	task.Run = func(ctx context.Context) error {
		defer f.work.Wait()
		return run(ctx)
	}
	return task
}

// update opens the ports that are missing, and closes those that are not needed any more.
func (f *Forwards) update(ctx context.Context) (time.Duration, error) {
	wanted, err := f.list(ctx)
	if err != nil {
		return 0, err
	}
	isWanted := map[Forward]bool{}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, w := range wanted {
		isWanted[w] = true
		if f.cancels[w] != nil || now.Before(f.notBefore[w]) {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		f.cancels[w] = cancel
		f.work.Go(func() {
			defer cancel()
			f.noteEnd(ctx, w, f.serve(ctx, w))
		})
	}
	for w, cancel := range f.cancels {
		if !isWanted[w] {
			cancel()
		}
	}
	for w := range f.notBefore {
		if !isWanted[w] {
			delete(f.notBefore, w)
			delete(f.reasons, w.Host)
		}
	}
	return forwardInterval, nil
}

// noteEnd makes a port be opened again, after a pause.
func (f *Forwards) noteEnd(ctx context.Context, w Forward, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.cancels, w)
	if ctx.Err() != nil {
		return
	}
	f.notBefore[w] = time.Now().Add(forwardRetry)
	if skipped, ok := f.failures.Admit(fmt.Sprint(w), err.Error(), time.Now()); ok {
		f.backend.Log.Info("gateways on a host cannot reach this server through its SSH connection", "host", w.Host, "port", w.Port, "err", err,
			"not_logged", skipped)
	}
}

// serve opens a port and hands its connections over until the SSH connection is lost.
func (f *Forwards) serve(ctx context.Context, w Forward) error {
	l := f.backend.findLink(w.Host)
	if l == nil {
		return errNoHost
	}
	l.mu.Lock()
	client := l.client
	l.mu.Unlock()
	listener, err := client.Listen(ctx, w.Port)
	if err != nil {
		f.setReason(w.Host, err)
		return err
	}
	f.setReason(w.Host, nil)
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	f.failures.Forget(fmt.Sprint(w))
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		select {
		case f.conns <- conn:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), conn.Close())
		}
	}
}

var errNoHost = errors.New("the host does not belong to a fleet any more")

// Listener returns a listener that accepts the connections to all ports until ctx ends.
func (f *Forwards) Listener(ctx context.Context) net.Listener {
	ctx, cancel := context.WithCancel(ctx)
	return &forwardListener{f, ctx, cancel}
}

type forwardListener struct {
	forwards *Forwards
	ctx      context.Context
	cancel   context.CancelFunc
}

// Accept implements net.Listener.
func (l *forwardListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.forwards.conns:
		return conn, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *forwardListener) Close() error {
	l.cancel()
	return nil
}

// Addr implements net.Listener.
func (l *forwardListener) Addr() net.Addr { return &net.UnixAddr{Name: "ports on hosts", Net: "unix"} }
