package sshclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// wish is what a caller needs of a connection for its channel.
type wish struct {
	sessions int  // the most sessions that the connection may have then; 0: the channel is no session
	isQuick  bool // the caller can go elsewhere, and does not wait for a machine that does not answer
}

// DialNow is Dial to an IP address for callers that can go elsewhere. It fails with Unavailable within 3 seconds, and mostly at
// once, while the machine is silent or the login takes long. When the latest login failed, it returns that error at once. A
// login goes on all the same.
func (c *Client) DialNow(ctx context.Context, address string) (net.Conn, error) {
	return c.dial(ctx, "tcp", address, true)
}

// waitQuickly returns a channel that ends the wait of a quick caller for a login. It is nil for others.
func (c *Client) waitQuickly(login *loginResult, isQuick bool) <-chan time.Time {
	if !isQuick || login == nil {
		return nil
	}
	c.mu.Lock()
	hasFailed := c.last.hasFailed
	c.mu.Unlock()
	wait := c.times.quick - time.Since(login.begun)
	if hasFailed {
		wait = 0
	}
	return time.After(max(0, wait))
}

// noLogin returns the error for a quick caller that does not wait for a login any longer.
func (c *Client) noLogin() error {
	if err := c.lastError(); err != nil {
		if paused, ok := errors.AsType[*pausedError](err); ok {
			return paused.err
		}
		return err
	}
	return stepFailure(dstack.Unavailable, dstack.HostStepConnect, nil, fmt.Sprintf("%s does not let dstack in within %s", c.name(), c.times.quick), "")
}

// errSilent is in the chain of the error for a quick caller that met a silent machine.
var errSilent = errors.New("silent")

// newSilenceError returns the error of a call to a machine that has been silent for too long.
func (l *link) newSilenceError() error {
	return stepFailure(dstack.Unavailable, dstack.HostStepConnect, errSilent,
		fmt.Sprintf("%s has not answered for %s over SSH", l.client.name(), time.Since(l.net.lastRead()).Round(100*time.Millisecond)), "")
}

// isSilent reports whether the server has been silent for longer than a quick caller waits.
func (l *link) isSilent() bool {
	return l.isOverdue() && time.Since(l.net.lastRead()) >= l.client.times.quick
}

// openQuickly is open for a quick caller.
func (l *link) openQuickly(ctx context.Context, kind string, payload []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	if l.isSilent() {
		l.client.release(l, false, false)
		return nil, nil, l.newSilenceError()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.tasks.start(func() { l.watchSilence(ctx, cancel) })
	channel, requests, err := l.open(ctx, kind, payload)
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		err = l.newSilenceError()
	}
	return channel, requests, err
}

// watchSilence cancels a call if the server is silent. It asks the server for an answer: the next keep-alive message may be
// far.
func (l *link) watchSilence(ctx context.Context, cancel context.CancelCauseFunc) {
	wait := l.client.times.overdue
	for i := 0; ; i++ {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if i == 0 && time.Since(l.net.lastRead()) >= wait {
			select {
			case l.ask <- struct{}{}:
			default:
			}
		}
		if l.isSilent() {
			cancel(errSilent)
			return
		}
		wait = l.client.times.overdue / 8
	}
}
