// Package sshclient keeps one SSH connection to a machine: it logs in on the first use, checks the pinned host key, notices
// within seconds that the machine is gone, and logs in again on the next use. Over it, callers open connections to addresses
// and sockets of the machine and run commands. No ssh process is started.
package sshclient

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"dstack/internal/dstack"
)

// Options configures a Client. Login is required.
type Options struct {
	Login dstack.SSHLogin
	// Jump is the client of the SSH server through which this one is reached; nil: directly. All hosts behind a jump host
	// share one client of it, which their owner closes after theirs.
	Jump *Client
	// Pin stores the host key, in the form of authorized_keys, before the login goes on. It is called with the first key that
	// is seen when Login.HostKey is empty, and when the key is another one that Login.Fingerprints allows. An error stops the
	// login. Nil: the key is kept in memory only.
	Pin func(ctx context.Context, hostKey string) error
	// Limits is shared by all clients of a process. Nil: the client has its own.
	Limits *LoginLimiter
	Log    *slog.Logger
}

// Client is a kept connection to an SSH server. It is safe for concurrent use.
type Client struct {
	options Options
}

// New returns a client. It connects on the first use; nothing happens before.
func New(o Options) *Client { return &Client{options: o} }

// Dial opens a connection from the machine to an address of its network. The network is "tcp" with an IP address and a port,
// never a name, or "unix" with a path. The error is of kind Unavailable if nothing answers there, and of kind Unsupported if
// the SSH server refuses to forward. The connection has deadlines and CloseWrite.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return nil, errSkeleton
}

// Output is what a command printed, and how it ended.
type Output struct {
	Stdout   []byte
	Stderr   []byte
	ExitCode int    // -1: a signal ended it
	Signal   string // such as KILL; empty: it exited
	Noise    string // what the login shell printed before the command's output; it is not in Stdout
}

// Run runs a command of POSIX sh, and returns once it has ended. A command that fails is no error: look at ExitCode. The
// error is of kind Unavailable if the connection is lost meanwhile; the command may have run. When ctx ends, Run kills the
// command, as well as SSH allows, and returns at once. A nil stdin is empty.
func (c *Client) Run(ctx context.Context, command string, stdin io.Reader) (Output, error) {
	return Output{}, errSkeleton
}

// Pipe runs a command of POSIX sh and returns a connection to its standard input and output. If the command fails, Read
// returns an error with an *ExitError in its chain. Close kills a command that does not end with its input.
func (c *Client) Pipe(ctx context.Context, command string) (net.Conn, error) {
	return nil, errSkeleton
}

// Bulk returns a client with the same login and connections of its own, for bulk data: beside it on one connection, streams of
// tokens would wait. It logs in on the first use and closes its connections when they are idle. Close of c closes it.
func (c *Client) Bulk() *Client { return c }

// SetBusy sets whether the host has replicas: silence is then noticed within 8 seconds, otherwise within 15.
func (c *Client) SetBusy(busy bool) {}

// State is what is known about the connection.
type State struct {
	IsConnected bool
	LastAnswer  time.Time // when the server sent something last; zero: never
	SilentSince time.Time // zero: it answers, or was never asked; otherwise when it sent something last
	Err         error     // why there is no connection: the reason that the user should read; nil with a connection
	NextTry     time.Time // a use before this time gets Err at once; zero: the next use connects
	HostKey     string    // in the form of authorized_keys, as pinned or seen; empty: none was seen yet
	Noise       string    // what the login shell prints before the output of commands
	Connections int       // logged in; without those of Bulk
	Channels    int       // open connections and commands
}

// State returns what is known about the connection now. It sends nothing.
func (c *Client) State() State { return State{} }

// Close closes all connections and returns when everything that runs for them has ended. The client cannot be used again.
func (c *Client) Close() error { return nil }
