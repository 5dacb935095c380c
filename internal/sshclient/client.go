// Package sshclient keeps one SSH connection to a machine: it logs in on the first use, checks the pinned host key, notices
// within seconds that the machine is gone, and logs in again on the next use. Over it, callers open connections to addresses
// and sockets of the machine and run commands. No ssh process is started.
package sshclient

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
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

// Client is a kept connection to an SSH server, and further ones while it has many channels. It is safe for concurrent use.
type Client struct {
	options Options
	times   times
	limits  *LoginLimiter
	login   login
	log     *slog.Logger
	isBulk  bool
	ctx     context.Context // of logins; Close ends it
	cancel  context.CancelFunc
	tasks   taskGroup      // logins and links
	changed loop.Broadcast // of what acquire waits for
	// failures are the logins that failed, for the log.
	failures loop.RepeatFilter

	mu         sync.Mutex
	isClosed   bool
	links      []*link
	loggingIn  *loginResult // nil: no login is under way
	hostKey    string       // as pinned or seen
	noise      string
	isBusy     bool
	dependents int  // busy clients that have this one as their jump host
	mustHold   bool // the server closes connections without channels
	bulk       *Client
	last       lastState
}

// lastState is what is known from connections that have ended.
type lastState struct {
	answer time.Time
	isLost bool  // there was a connection, and it was lost
	err    error // of the latest login, or why the latest connection was lost
	// hasFailed is whether the latest login failed, or the latest connection was lost because the machine did not answer.
	hasFailed bool
}

// New returns a client. It connects on the first use; nothing happens before.
func New(o Options) *Client {
	c := &Client{options: o, times: defaultTimes(), limits: o.Limits, login: newLogin(o), log: o.Log, hostKey: o.Login.HostKey}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.limits == nil {
		c.limits = NewLoginLimiter()
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Bulk returns a client with the same login and connections of its own, for bulk data: beside it on one connection, streams of
// tokens would wait. It logs in on the first use and closes its connections when they are idle. Close of c closes it.
func (c *Client) Bulk() *Client {
	if c.isBulk {
		return c
	}
	bulk, mustBeBusy := c.shareBulk()
	if mustBeBusy {
		bulk.SetBusy(true)
	}
	return bulk
}

// shareBulk returns the client for bulk data. It reports whether it is a new one, and the host has replicas.
func (c *Client) shareBulk() (bulk *Client, mustBeBusy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bulk == nil {
		mustBeBusy = c.isBusy
		o := c.options
		o.Limits, o.Login.HostKey = c.limits, c.hostKey
		o.Pin = c.pinForBulk
		if o.Jump != nil {
			o.Jump = o.Jump.Bulk()
		}
		c.bulk = New(o)
		c.bulk.isBulk, c.bulk.times = true, c.times
		if c.isClosed {
			c.bulk.isClosed = true
		}
	}
	return c.bulk, mustBeBusy
}

// pinForBulk pins the key that the connection for bulk data has seen first.
func (c *Client) pinForBulk(ctx context.Context, hostKey string) error {
	if c.options.Pin != nil {
		if err := c.options.Pin(ctx, hostKey); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hostKey = hostKey
	return nil
}

// SetBusy sets whether the host has replicas: silence is then noticed within 8 seconds, otherwise within 15.
func (c *Client) SetBusy(busy bool) {
	c.mu.Lock()
	isChanged, bulk := c.isBusy != busy, c.bulk
	c.isBusy = busy
	c.wakeLinks()
	c.mu.Unlock()
	if bulk != nil {
		bulk.SetBusy(busy)
	}
	if jump := c.options.Jump; isChanged && jump != nil {
		jump.addDependents(busy)
	}
}

// TryAgain ends the pause after failed logins, of this machine and its jump hosts: the user says that they are mended. The
// next use logs in at once, or within 5 seconds where TryAgain ended a pause at the same address shortly before. Repeating it
// does no harm.
func (c *Client) TryAgain() {
	c.limits.forgive(c.login)
	if c.options.Jump != nil {
		c.options.Jump.TryAgain()
	}
}

// addDependents notes that a client behind this jump host became busy, or ended to be.
func (c *Client) addDependents(busy bool) {
	c.mu.Lock()
	if busy {
		c.dependents++
	} else {
		c.dependents--
	}
	c.wakeLinks()
	c.mu.Unlock()
	if jump := c.options.Jump; jump != nil {
		jump.addDependents(busy)
	}
}

// wakeLinks lets the keep-alive loops use the present interval.
func (c *Client) wakeLinks() {
	for _, l := range c.links {
		select {
		case l.wakeUp <- struct{}{}:
		default:
		}
	}
}

func (c *Client) keepAliveInterval() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isBusy || c.dependents > 0 {
		return c.times.busyInterval
	}
	return c.times.idleInterval
}

// Close closes all connections and returns when everything that runs for them has ended. The client cannot be used again.
func (c *Client) Close() error {
	c.SetBusy(false)
	c.mu.Lock()
	c.isClosed = true
	links, bulk := slices.Clone(c.links), c.bulk
	c.mu.Unlock()
	c.cancel()
	if bulk != nil {
		_ = bulk.Close()
	}
	for _, l := range links {
		l.close(c.closedError())
	}
	c.changed.Notify()
	c.tasks.stop()
	return nil
}

func (c *Client) closedError() error {
	return stepFailure(dstack.Unavailable, dstack.HostStepConnect, nil, "the SSH connection to "+c.name()+" was closed", "")
}

// name returns how messages call the server.
func (c *Client) name() string { return c.options.Login.Address }

func (c *Client) pinnedKey() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hostKey
}
