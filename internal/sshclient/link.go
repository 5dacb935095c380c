package sshclient

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// Bounds of one connection.
const (
	// maxChannels bounds the open channels: sshd needs an open file for each, of usually 1024, and a reader that lags behind
	// costs up to 2.5 MiB of memory here.
	maxChannels = 500
	// maxSessions bounds the commands: sshd allows 10 (MaxSessions). The others are for the command that kills another one,
	// and for the channel that keeps the connection from being unused.
	maxSessions = 8
	// maxPipes leaves one session for Run when all others belong to Pipe.
	maxPipes = maxSessions - 1
)

// link is one SSH connection that has logged in.
type link struct {
	client *Client
	net    *watchedConn
	ssh    ssh.Conn
	done   chan struct{} // closed when the connection is lost or closed
	tasks  taskGroup     // everything that runs for the link, except serve
	ping   atomic.Int64  // when the unanswered keep-alive message was sent, in Unix nanoseconds; 0: it was answered
	wakeUp chan struct{} // the interval of keep-alive messages changed
	ask    chan struct{} // the next keep-alive message is due at once

	offers   <-chan ssh.NewChannel // of the server, which may open those to a Listener
	requests <-chan *ssh.Request   // of the server, such as its own keep-alive messages

	// The client's mutex protects these.
	channels    int               // open channels, sessions among them
	sessions    int               // commands that have not ended, as far as is known
	stuck       int               // sessions among them whose channel is closed
	maxChannels int               // lowered when the server refuses more
	maxSessions int               // lowered when the server refuses more
	idleSince   time.Time         // valid without open channels
	lossReason  error             // why the client closed it; nil: the server did, or the network
	isHeld      bool              // a channel keeps it from being unused
	isMute      bool              // it was closed because the server did not answer
	listeners   map[int]*Listener // by port
}

// newLink returns a link. The caller runs serve.
func newLink(c *Client, conn *watchedConn, sshConn ssh.Conn) *link {
	return &link{client: c, net: conn, ssh: sshConn, done: make(chan struct{}), wakeUp: make(chan struct{}, 1), ask: make(chan struct{}, 1),
		maxChannels: maxChannels, maxSessions: maxSessions, idleSince: time.Now()}
}

// serve answers the server and sends keep-alive messages. It returns when the connection has ended and nothing runs for it
// any more.
func (l *link) serve() {
	l.tasks.start(l.keepAlive)
	for l.offers != nil || l.requests != nil {
		select {
		case offer, ok := <-l.offers:
			if !ok {
				l.offers = nil
				continue
			}
			l.acceptForwarded(offer)
		case request, ok := <-l.requests:
			if !ok {
				l.requests = nil
				continue
			}
			if request.WantReply {
				_ = request.Reply(false, nil)
			}
		}
	}
	_ = l.ssh.Wait()
	_ = l.net.Close()
	l.client.removeLink(l)
	close(l.done)
	l.tasks.stop()
}

// isLost reports whether the connection has ended. Reads of the connection fail before its channels end, so that a channel
// whose end is read on a connection that is not lost was closed by the other side.
func (l *link) isLost() bool {
	select {
	case <-l.done:
		return true
	default:
		return l.net.hasFailed.Load()
	}
}

// lost returns the error for what was open on a connection that was lost.
func (l *link) lost(cause error) error {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	return l.lostLocked(cause)
}

func (l *link) lostLocked(cause error) error {
	if l.lossReason != nil {
		return l.lossReason
	}
	return stepFailure(dstack.Unavailable, dstack.HostStepConnect, cause,
		fmt.Sprintf("the SSH connection to %s was lost", l.client.name()), "")
}

// close closes the connection for a reason that what is open on it gets.
func (l *link) close(reason error) {
	l.client.mu.Lock()
	if l.lossReason == nil {
		l.lossReason = reason
	}
	l.client.mu.Unlock()
	_ = l.net.Close()
}

// keepAlive asks the server for an answer again and again, and closes the connection if none comes. TCP's own keep-alive
// does not notice a cut while data is under way.
func (l *link) keepAlive() {
	for {
		l.client.holdOpen(l)
		timer := time.NewTimer(l.client.keepAliveInterval())
		select {
		case <-timer.C:
			if l.client.closeIfIdle(l) {
				return
			}
			l.sendKeepAlive()
		case <-l.ask:
			timer.Stop()
			l.sendKeepAlive()
		case <-l.wakeUp:
			timer.Stop()
		case <-l.done:
			timer.Stop()
			return
		}
	}
}

// sendKeepAlive sends one message and waits for the answer. Other data from the server counts as an answer, too: beside
// bulk data, the answer can take long.
func (l *link) sendKeepAlive() {
	sent := time.Now()
	l.ping.Store(sent.UnixNano())
	answered := make(chan struct{})
	l.tasks.start(func() {
		defer close(answered)
		if _, _, err := l.ssh.SendRequest("keepalive@openssh.com", true, nil); err == nil {
			l.ping.Store(0)
		}
	})
	limit := l.client.times.answer
	for wait := limit; wait > 0; {
		timer := time.NewTimer(wait)
		select {
		case <-answered:
			timer.Stop()
			return
		case <-l.done:
			timer.Stop()
			return
		case now := <-timer.C:
			latest := sent
			if read := l.net.lastRead(); read.After(sent) {
				latest = read
			}
			wait = limit - now.Sub(latest)
		}
	}
	l.client.mu.Lock()
	l.isMute = true
	l.client.mu.Unlock()
	l.close(stepFailure(dstack.Unavailable, dstack.HostStepConnect, nil,
		fmt.Sprintf("%s has not answered for %s over SSH", l.client.name(), limit), ""))
}

// open opens a channel. When ctx ends first, the channel is closed as soon as it is open.
func (l *link) open(ctx context.Context, kind string, payload []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type result struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	results := make(chan result)
	isStarted := l.tasks.start(func() {
		channel, requests, err := l.ssh.OpenChannel(kind, payload)
		select {
		case results <- result{channel, requests, err}:
		case <-ctx.Done():
			if err == nil {
				_ = channel.Close()
				ssh.DiscardRequests(requests)
			}
			l.client.release(l, kind == sessionChannel, false)
		}
	})
	if !isStarted {
		l.client.release(l, kind == sessionChannel, false)
		return nil, nil, l.lost(nil)
	}
	select {
	case r := <-results:
		if r.err != nil {
			l.client.release(l, kind == sessionChannel, false)
		}
		return r.channel, r.requests, r.err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// watchedConn notes when the server sent something, and whether the connection has failed.
type watchedConn struct {
	net.Conn
	readAt    atomic.Int64 // in Unix nanoseconds
	hasFailed atomic.Bool
}

// Read reads from the connection.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.noteRead()
	}
	if err != nil {
		c.hasFailed.Store(true)
	}
	return n, err
}

// Close closes the connection.
func (c *watchedConn) Close() error {
	c.hasFailed.Store(true)
	return c.Conn.Close()
}

func (c *watchedConn) noteRead()           { c.readAt.Store(time.Now().UnixNano()) }
func (c *watchedConn) lastRead() time.Time { return time.Unix(0, c.readAt.Load()) }

// taskGroup runs tasks until it is stopped. The zero value is ready to use.
type taskGroup struct {
	mu        sync.Mutex
	isStopped bool
	running   sync.WaitGroup
}

// start runs a task in the background. It reports false, and runs nothing, if the group is stopped.
func (g *taskGroup) start(task func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isStopped {
		return false
	}
	g.running.Go(task)
	return true
}

// stop waits for the tasks. No task starts any more.
func (g *taskGroup) stop() {
	g.mu.Lock()
	g.isStopped = true
	g.mu.Unlock()
	g.running.Wait()
}
