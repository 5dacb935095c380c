package sshclient

import "time"

// times are the limits and intervals of a client. Tests shorten them.
type times struct {
	connect      time.Duration // to open the TCP connection
	handshake    time.Duration // for key exchange and login
	warmUp       time.Duration // for the first command of a connection
	busyInterval time.Duration // between two keep-alive messages, while the host has replicas
	idleInterval time.Duration // the same, otherwise
	answer       time.Duration // for the answer to a keep-alive message
	overdue      time.Duration // after which State calls an unanswered server silent
	quick        time.Duration // for which callers that can go elsewhere wait for a login, or a silent server
	idle         time.Duration // after which a connection closes that is not the first, or is for bulk data
	exit         time.Duration // for a command to end after its input has ended, and for its exit code after its output
	kill         time.Duration // for a killed command to end
}

func defaultTimes() times {
	return times{
		connect: 10 * time.Second, handshake: 20 * time.Second, warmUp: 3 * time.Second,
		busyInterval: 3 * time.Second, idleInterval: 10 * time.Second, answer: 5 * time.Second, overdue: time.Second, quick: 3 * time.Second,
		idle: 30 * time.Second, exit: 2 * time.Second, kill: 5 * time.Second,
	}
}
