package sshclient

import (
	"errors"
	"time"
)

// State is what is known about the connection.
type State struct {
	IsConnected bool
	LastAnswer  time.Time // when the server sent something last; zero: never
	SilentSince time.Time // zero: it answers, or was never asked; otherwise when it sent something last
	Err         error     // why there is no connection: the reason that the user should read; nil with a connection
	NextTry     time.Time // a use before this time gets Err at once, or waits; zero: the next use connects
	HostKey     string    // in the form of authorized_keys, as pinned or seen; empty: none was seen yet
	Noise       string    // what the login shell prints before the output of commands
	Connections int       // logged in; without those of Bulk
	Channels    int       // open connections and commands
}

// State returns what is known about the connection now. It sends nothing.
func (c *Client) State() State {
	nextTry := c.limits.nextTry(c.login)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{LastAnswer: c.last.answer, HostKey: c.hostKey, Noise: c.noise}
	isSilent, err := c.last.isLost, c.last.err
	for _, l := range c.links {
		if read := l.net.lastRead(); read.After(s.LastAnswer) {
			s.LastAnswer = read
		}
		if l.isLost() { // and not removed yet
			if reason := l.lostLocked(nil); !errors.Is(reason, errIdle) {
				isSilent, err = true, reason
			}
			continue
		}
		s.IsConnected = true
		s.Connections++
		s.Channels += l.channels
		isSilent = isSilent || l.isOverdue()
	}
	if isSilent {
		s.SilentSince = s.LastAnswer
	}
	if !s.IsConnected {
		s.Err, s.NextTry = err, nextTry
		if paused, ok := errors.AsType[*pausedError](s.Err); ok {
			s.Err = paused.err
		}
	}
	return s
}

// isOverdue reports whether the server has not answered a keep-alive message for some time, nor sent anything else since.
func (l *link) isOverdue() bool {
	ping := l.ping.Load()
	return ping != 0 && time.Since(time.Unix(0, ping)) > l.client.times.overdue && l.net.readAt.Load() < ping
}
