package sshclient

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// maxLinks bounds the connections of one client. Callers beyond their channels wait.
const maxLinks = 8

// loginResult is a login that callers wait for. err is valid once done is closed.
type loginResult struct {
	begun time.Time
	done  chan struct{}
	err   error
}

// acquire returns a connection with a place for one more channel, which release gives back. It logs in if there is none.
func (c *Client) acquire(ctx context.Context, w wish) (*link, error) {
	for {
		changed := c.changed.Changed()
		l, login, err := c.tryAcquire(w.sessions)
		if l != nil || err != nil {
			return l, err
		}
		var done chan struct{} // nil: all connections are full
		if login != nil {
			done = login.done
		}
		select {
		case <-done:
			if login.err != nil {
				return nil, login.err
			}
		case <-changed:
		case <-c.waitQuickly(login, w.isQuick):
			return nil, c.noLogin()
		case <-ctx.Done():
			return nil, stopped(ctx, c.name(), c.lastError())
		}
	}
}

// tryAcquire returns a connection, or the login to wait for, or neither when all connections are full and no more are
// allowed.
func (c *Client) tryAcquire(sessions int) (*link, *loginResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return nil, nil, c.closedError()
	}
	for _, l := range c.links {
		if l.lossReason == nil && !l.isLost() && l.channels < l.maxChannels && (sessions == 0 || l.sessions < min(sessions, l.maxSessions)) {
			l.reserve(sessions > 0)
			return l, nil, nil
		}
	}
	if c.loggingIn == nil && len(c.links) < maxLinks {
		result := &loginResult{begun: time.Now(), done: make(chan struct{})}
		c.loggingIn = result
		c.tasks.start(func() { c.runLogin(result) })
	}
	return nil, c.loggingIn, nil
}

// reserve counts one more channel.
func (l *link) reserve(isSession bool) {
	l.channels++
	if isSession {
		l.sessions++
	}
}

// release gives the place of a channel back. The place of a session is stuck if its channel is closed, but its command may
// still run: sshd counts it until it ends.
func (c *Client) release(l *link, isSession, isStuck bool) {
	c.mu.Lock()
	l.channels--
	if l.channels == 0 {
		l.idleSince = time.Now()
	}
	switch {
	case isStuck:
		l.stuck++
	case isSession:
		l.sessions--
	}
	c.mu.Unlock()
	c.changed.Notify()
}

// isRefusedAsFull lowers the bound of a connection after the server refused a channel, and reports whether the reason may be
// that the connection has too many. A refusal beside few channels has another reason.
func (c *Client) isRefusedAsFull(l *link, isSession bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isSession && l.sessions > 0 {
		l.maxSessions = l.sessions
		return true
	}
	if l.channels >= minFullChannels {
		l.maxChannels = l.channels
		return true
	}
	return false
}

// minFullChannels is from how many channels on a refused one can mean that sshd has too many open files.
const minFullChannels = 32

// runLogin logs in and adds the connection.
func (c *Client) runLogin(result *loginResult) {
	l, err := c.logIn(c.ctx)
	if err == nil {
		if !c.tasks.start(l.serve) { // the client is closed
			l.close(c.closedError())
			l.serve()
		}
		l.warmUp(c.ctx)
		err = c.addLink(l)
	}
	c.mu.Lock()
	c.loggingIn, result.err = nil, err
	if err != nil {
		c.last.err, c.last.hasFailed = err, true
	}
	c.mu.Unlock()
	close(result.done)
	c.changed.Notify()
	if err != nil && !errors.As(err, new(*pausedError)) && c.ctx.Err() == nil {
		c.logFailure(err)
	}
}

// logFailure logs why a login failed. A changed host key is an error, the others are for the caller to judge.
func (c *Client) logFailure(err error) {
	skipped, ok := c.failures.Admit("login", err.Error(), time.Now())
	if !ok {
		return
	}
	level := slog.LevelInfo
	if dstack.KindOf(err) == dstack.Forbidden {
		level = slog.LevelError
	}
	c.log.Log(c.ctx, level, "an SSH login failed", "host", c.name(), "user", c.options.Login.User, "err", err,
		"cause", errors.Unwrap(err), "not_logged", skipped)
}

// addLink adds a connection, unless the client is closed, or the connection lost again.
func (c *Client) addLink(l *link) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.isClosed:
		l.lossReason = c.closedError()
		_ = l.net.Close()
		return l.lossReason
	case l.isLost():
		return l.lostLocked(nil)
	}
	c.failures.Forget("login")
	c.links = append(c.links, l)
	c.last = lastState{answer: c.last.answer}
	return nil
}

// removeLink removes a connection that has ended.
func (c *Client) removeLink(l *link) {
	c.mu.Lock()
	isAdded := slices.Contains(c.links, l)
	c.links = slices.DeleteFunc(c.links, func(other *link) bool { return other == l })
	if read := l.net.lastRead(); read.After(c.last.answer) {
		c.last.answer = read
	}
	isUnused := l.channels == 0 && !l.isHeld
	if l.lossReason == nil && isUnused {
		c.mustHold = true // UnusedConnectionTimeout looks like this
	}
	reason := l.lostLocked(nil)
	isLoss := isAdded && !c.isClosed && !errors.Is(reason, errIdle)
	if isLoss && len(c.links) == 0 {
		c.last.isLost, c.last.err, c.last.hasFailed = true, reason, l.isMute
	}
	channels := l.channels
	c.mu.Unlock()
	c.changed.Notify()
	if isLoss {
		c.log.Info("an SSH connection was lost", "host", c.name(), "why", reason, "channels", channels)
	}
}

// errIdle is why a connection was closed that nobody needs.
var errIdle = errors.New("the SSH connection was idle")

// closeIfIdle closes a connection that has no channels for long, if it is not the first one, or carries bulk data, or has
// sessions that are stuck.
func (c *Client) closeIfIdle(l *link) bool {
	c.mu.Lock()
	isKept := !c.isBulk && l.stuck == 0 && len(c.links) > 0 && c.links[0] == l
	isIdle := !isKept && l.channels == 0 && time.Since(l.idleSince) >= c.times.idle
	if isIdle {
		l.lossReason = errIdle
	}
	c.mu.Unlock()
	if isIdle {
		_ = l.net.Close()
	}
	return isIdle
}

// holdOpen opens a channel without a command where the server closes connections that have none.
func (c *Client) holdOpen(l *link) {
	c.mu.Lock()
	isNeeded := c.mustHold && !l.isHeld && !c.isBulk
	if isNeeded {
		l.isHeld = true
	}
	c.mu.Unlock()
	if !isNeeded {
		return
	}
	l.tasks.start(func() {
		_, requests, err := l.ssh.OpenChannel(sessionChannel, nil)
		if err == nil {
			ssh.DiscardRequests(requests) // until the channel ends
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		l.isHeld = false
	})
}

// lastError returns why there is no connection, or nil.
func (c *Client) lastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.err
}
