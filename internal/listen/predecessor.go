package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"
)

const (
	messageLimit        = 10 * time.Second
	defaultPrepareLimit = 10 * time.Minute
)

// Predecessor lets another process take over the sockets of this one.
type Predecessor struct {
	Path    string // of the Unix socket at which a successor asks; its folder must belong to this user alone
	Sockets *Set
	Files   []File // go with the sockets
	// Pause stops what only one of the two processes may do, and returns once that has ended. Resume begins it again,
	// after a successor that gave up or failed.
	Pause  func(ctx context.Context) error
	Resume func()
	// Yield is called when the successor is ready to serve, immediately before it begins.
	Yield        func(ctx context.Context, successor int)
	PrepareLimit time.Duration // how long a successor may prepare itself; 0: 10m
	Log          *slog.Logger
}

// errPrepareLimit means that a successor took too long.
var errPrepareLimit = errors.New("the new process was not ready in time")

// Run waits for successors until one has taken over or ctx ends; the error is that of ctx, or of the Unix socket. After
// nil, this process must accept no further connections. The path is the successor's then.
func (p *Predecessor) Run(ctx context.Context) error {
	if err := os.Remove(p.Path); err != nil && !errors.Is(err, os.ErrNotExist) { // that of a process that was killed
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.Path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for a new process: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path may be the successor's already
	if err := os.Chmod(p.Path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer func() { _ = l.Close() }()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("listen for a new process: %w", err)
		}
		if p.serve(ctx, conn) {
			return nil
		}
	}
}

// serve serves one successor, and reports whether it has taken over.
func (p *Predecessor) serve(ctx context.Context, conn *net.UnixConn) (isReplaced bool) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	hello, err := p.readHello(conn)
	if err == nil {
		isReplaced, err = p.handOver(ctx, conn, hello.PID)
	}
	if err != nil && ctx.Err() == nil {
		p.Log.Warn("a new process did not take over; this one goes on", "pid", hello.PID, "err", err)
		_ = writeMessage(conn, message{Error: err.Error()}, messageLimit) // it may be gone
	}
	return isReplaced
}

// readHello reads the first message, of a process of the same user or of root.
func (p *Predecessor) readHello(conn *net.UnixConn) (message, error) {
	if err := checkPeer(conn); err != nil {
		return message{}, err
	}
	hello, descriptors, err := readMessage(conn, messageLimit)
	closeDescriptors(descriptors)
	if err == nil && hello.Hello != helloVersion {
		err = fmt.Errorf("it speaks version %d of this conversation, and this process version %d", hello.Hello, helloVersion)
	}
	return hello, err
}

// handOver pauses this process, gives the sockets to a successor and waits until it is ready.
func (p *Predecessor) handOver(ctx context.Context, conn *net.UnixConn, successor int) (isReplaced bool, err error) {
	defer func() {
		if !isReplaced && ctx.Err() == nil {
			p.Resume()
		}
	}()
	if err := p.Pause(ctx); err != nil {
		return false, err
	}
	sockets := p.Sockets.Sockets()
	offer := message{Hello: helloVersion, PID: os.Getpid()}
	for _, s := range sockets {
		offer.Sockets = append(offer.Sockets, socketName{s.Name, s.Address})
	}
	for _, f := range p.Files {
		offer.Files = append(offer.Files, f.Name)
	}
	err = withDescriptors(sockets, p.Files, func(descriptors []int) error {
		return writeMessage(conn, offer, messageLimit, descriptors...)
	})
	if err != nil {
		return false, err
	}
	limit := p.PrepareLimit
	if limit == 0 {
		limit = defaultPrepareLimit
	}
	ready, descriptors, err := readMessage(conn, limit)
	closeDescriptors(descriptors)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, errPrepareLimit
	case err != nil:
		return false, fmt.Errorf("it ended before it was ready: %w", err)
	case !ready.Ready:
		return false, errors.New("it gave up: " + ready.Error)
	}
	p.Yield(ctx, successor)
	// From here on there is no way back: the successor may have received the message even if this fails.
	if err := writeMessage(conn, message{Go: true}, messageLimit); err != nil {
		p.Log.Warn("the new process may have ended", "pid", successor, "err", err)
	}
	return true, nil
}

// checkPeer refuses processes of other users, except root.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var uid int
	var peerErr error
	if err := errors.Join(raw.Control(func(fd uintptr) { uid, peerErr = peerUser(int(fd)) }), peerErr); err != nil {
		return fmt.Errorf("cannot tell whose process it is: %w", err)
	}
	if uid != 0 && uid != os.Getuid() {
		return fmt.Errorf("it is a process of user %d, and this one of user %d", uid, os.Getuid())
	}
	return nil
}
