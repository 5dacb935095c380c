package sshserver

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// connection is a client that has logged in.
type connection struct {
	server   *Server
	net      net.Conn
	ssh      *ssh.ServerConn
	login    Login
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
	isInner  bool // it came through another connection; see innerPort
	tasks    sync.WaitGroup

	mu        sync.Mutex
	open      int       // forwarded connections
	idleSince time.Time // valid if open is 0
}

// serve forwards connections until the client leaves, its access ends or ctx ends.
func (c *connection) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer c.tasks.Wait()
	defer func() { _ = c.ssh.Close() }()
	defer cancel() // first of the three, after a panic, too
	c.idleSince = time.Now()
	c.start(func() { ssh.DiscardRequests(c.requests) }) // refuses remote forwarding
	c.start(func() { c.keepAlive(ctx) })
	c.start(func() { c.checkAccess(ctx) })
	for offered := range c.channels {
		c.serveChannel(ctx, offered)
	}
}

// start runs a task of the connection in the background. A panic ends the connection.
func (c *connection) start(task func()) {
	c.tasks.Go(func() {
		defer c.server.recoverPanic(c.net)
		task()
	})
}

// keepAlive closes the connection if the client does not answer, or has forwarded nothing for long.
func (c *connection) keepAlive(ctx context.Context) {
	limits := c.server.limits
	for loop.Sleep(ctx, limits.KeepAlive) == nil {
		if idle := c.idleTime(time.Now()); idle >= limits.IdleTime {
			c.server.log.Info("an SSH connection was closed: it was idle", "user", c.login.User, "for", idle)
			_ = c.net.Close()
			return
		}
		noReply := time.AfterFunc(limits.KeepAlive, func() { _ = c.net.Close() })
		_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		noReply.Stop()
		if err != nil {
			return // the connection is closed
		}
	}
}

// checkAccess closes the connection when its key no longer opens the job.
func (c *connection) checkAccess(ctx context.Context) {
	for loop.Sleep(ctx, c.server.limits.CheckInterval) == nil {
		if err := c.authorize(ctx); dstack.KindOf(err) == dstack.Forbidden {
			c.server.log.Info("an SSH connection was closed: it lost access", "user", c.login.User, "why", err)
			_ = c.net.Close()
			return
		}
	}
}

func (c *connection) authorize(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.server.limits.LoginTime)
	defer cancel()
	return c.server.jobs.Authorize(ctx, c.login)
}

func (c *connection) idleTime(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open > 0 {
		return 0
	}
	return now.Sub(c.idleSince)
}

// addChannel counts a forwarded connection. It returns false if there are too many.
func (c *connection) addChannel() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.server.usage.addChannel(c.login.User) {
		return false
	}
	c.open++
	return true
}

func (c *connection) removeChannel() {
	c.server.usage.removeChannel(c.login.User)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	c.idleSince = time.Now()
}

// directTCPIP is the data of a channel of type direct-tcpip (RFC 4254, section 7.2).
type directTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// jobHosts are the names of the job's own machine, as a client asks for it.
var jobHosts = []string{"localhost", "127.0.0.1", "::1"}

// Reasons for refused channels. OpenSSH prints them.
const (
	onlyForwards  = "this server only forwards ports of jobs; for a shell use: dstack exec RUN"
	onlyLocalhost = "only ports of localhost are forwarded: those of the job"
)

// serveChannel forwards a channel of type direct-tcpip in the background, and refuses all others.
func (c *connection) serveChannel(ctx context.Context, offered ssh.NewChannel) {
	if offered.ChannelType() != "direct-tcpip" {
		_ = offered.Reject(ssh.Prohibited, onlyForwards)
		return
	}
	var to directTCPIP
	if err := ssh.Unmarshal(offered.ExtraData(), &to); err != nil {
		_ = offered.Reject(ssh.ConnectionFailed, "the request is malformed")
		return
	}
	if !slices.Contains(jobHosts, strings.ToLower(to.Host)) || to.Port < 1 || to.Port > 65535 {
		_ = offered.Reject(ssh.Prohibited, onlyLocalhost)
		return
	}
	if !c.addChannel() {
		_ = offered.Reject(ssh.ResourceShortage, "too many connections are forwarded")
		return
	}
	c.start(func() {
		defer c.removeChannel()
		if to.Port == innerPort && !c.isInner {
			c.serveInner(ctx, offered)
			return
		}
		c.forward(ctx, offered, int(to.Port))
	})
}

// innerPort is where a container of the original dstack has an SSH server of its own. Clients of later versions log in
// there, with a user name of the container, through a first connection that names the job (ProxyJump). Here this server
// itself answers: the inner connection belongs to the same job, and needs a key that opens it, too.
const innerPort = 10022

// serveInner serves a channel as another connection for the same job. It counts like one, while it logs in, too.
func (c *connection) serveInner(ctx context.Context, offered ssh.NewChannel) {
	if !c.server.usage.addUser(c.login.User) {
		_ = offered.Reject(ssh.ResourceShortage, "the job has too many SSH connections")
		return
	}
	defer c.server.usage.removeUser(c.login.User)
	channel, requests, err := offered.Accept()
	if err != nil {
		return // the connection is closed
	}
	defer func() { _ = channel.Close() }()
	c.start(func() { ssh.DiscardRequests(requests) })
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	c.start(func() {
		defer func() { _ = server.Close() }()
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		inner, err := c.server.logIn(ctx, server, c.login.User)
		if err != nil {
			c.server.log.Info("an inner SSH login was refused", "user", c.login.User, "why", err)
			return
		}
		inner.isInner = true
		inner.serve(ctx)
	})
	copyBoth(channel, client)
}

// forward connects a channel to a port of the job, and copies until both directions have ended.
func (c *connection) forward(ctx context.Context, offered ssh.NewChannel, port int) {
	target, err := c.dial(ctx, port)
	if err != nil {
		reason := ssh.ConnectionFailed
		if dstack.KindOf(err) == dstack.Forbidden {
			reason = ssh.Prohibited
		}
		c.server.log.Debug("an SSH channel was refused", "user", c.login.User, "port", port, "why", err)
		_ = offered.Reject(reason, describeRefusal(err))
		return
	}
	defer func() { _ = target.Close() }()
	channel, requests, err := offered.Accept()
	if err != nil {
		return // the connection is closed
	}
	defer func() { _ = channel.Close() }()
	defer context.AfterFunc(ctx, func() { _ = target.Close() })()
	c.start(func() { ssh.DiscardRequests(requests) })
	copyBoth(channel, target)
}

func (c *connection) dial(ctx context.Context, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.server.limits.DialTime)
	defer cancel()
	return c.server.jobs.Dial(ctx, c.login, port)
}

// halfCloser is a connection whose sending direction can be closed alone.
type halfCloser interface{ CloseWrite() error }

// copyBoth copies in both directions until both have ended. If the target can close one direction alone, the end of one
// leaves the other open. A failure closes both.
func copyBoth(channel ssh.Channel, target net.Conn) {
	half, canHalfClose := target.(halfCloser)
	var toTarget sync.WaitGroup
	toTarget.Go(func() {
		_, err := io.Copy(target, channel)
		if err == nil && canHalfClose {
			err = half.CloseWrite()
		}
		if err != nil || !canHalfClose {
			_ = target.Close()
		}
	})
	_, err := io.Copy(channel, target)
	if err == nil {
		err = channel.CloseWrite()
	}
	if err != nil || !canHalfClose {
		_ = channel.Close()
	}
	toTarget.Wait()
}
