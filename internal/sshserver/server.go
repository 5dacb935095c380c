// Package sshserver is an SSH server that forwards connections to the ports of jobs, and does nothing else: it has no
// shell, no commands, no files, no agent and no remote forwarding. The published client of dstack 0.18.10 attaches to runs
// through it.
package sshserver

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Jobs are the jobs to whose ports clients connect. Several goroutines call the methods at once.
type Jobs interface {
	// Authorize returns nil if the key of a login opens the job that its user name names, now. The server calls it at the
	// login, and again and again while the connection is open. Errors of kind Forbidden end the connection; with others,
	// such as those of a database, the server refuses logins, but keeps the connections that are open.
	Authorize(ctx context.Context, login Login) error
	// Dial opens a connection to a port of the job. It fails with Forbidden if the login does not open the job or the job
	// has no such port, and with Unavailable if nothing answers there. The caller closes the connection.
	Dial(ctx context.Context, login Login, port int) (net.Conn, error)
}

// Login is what a client proved at its login.
type Login struct {
	User string // names a job
	Key  Key    // the public key whose private key the client has
}

// Limits bounds what clients can use. Zero fields have defaults.
type Limits struct {
	Connections   int // at the same time
	OfUser        int // connections with the same user name, inner ones among them
	Logins        int // connections that have not logged in
	Channels      int // forwarded connections with the same user name
	AllChannels   int // forwarded connections of all users
	LoginTime     time.Duration
	DialTime      time.Duration // to open a forwarded connection
	KeepAlive     time.Duration // between two keep-alive messages, and for the reply
	CheckInterval time.Duration // between two checks of a connection's access
	IdleTime      time.Duration // without a forwarded connection
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Connections: cmp.Or(l.Connections, 256), OfUser: cmp.Or(l.OfUser, 16), Logins: cmp.Or(l.Logins, 64),
		Channels: cmp.Or(l.Channels, 64), AllChannels: cmp.Or(l.AllChannels, 256),
		LoginTime: cmp.Or(l.LoginTime, 10*time.Second), DialTime: cmp.Or(l.DialTime, 10*time.Second),
		KeepAlive: cmp.Or(l.KeepAlive, 30*time.Second), CheckInterval: cmp.Or(l.CheckInterval, time.Second),
		IdleTime: cmp.Or(l.IdleTime, 12*time.Hour),
	}
}

// Options configures a Server. HostSeed and Jobs are required.
type Options struct {
	HostSeed []byte // ed25519.SeedSize bytes, from which the host key is made
	Jobs     Jobs
	Limits   Limits
	Log      *slog.Logger
}

// Server is an SSH server. It is safe for concurrent use.
type Server struct {
	jobs     Jobs
	limits   Limits
	log      *slog.Logger
	hostKey  ssh.Signer
	attempts *loginLimiter
	usage    *usage
	full     loop.RepeatFilter // lines about too many connections
}

// New returns a server. It starts no goroutines.
func New(o Options) (*Server, error) {
	if len(o.HostSeed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the seed of the SSH host key has %d bytes, and not %d", len(o.HostSeed), ed25519.SeedSize)
	}
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(o.HostSeed))
	if err != nil {
		return nil, err
	}
	limits := o.Limits.withDefaults()
	s := &Server{jobs: o.Jobs, limits: limits, log: o.Log, hostKey: key, attempts: newLoginLimiter(),
		usage: newUsage(limits)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// acceptRetryDelay is the wait after the listener failed, for example because too many files are open.
const acceptRetryDelay = 100 * time.Millisecond

// Serve serves the connections of a listener until ctx ends. It then closes the listener and all connections, and returns
// once they have ended. If the caller closes the listener, Serve goes on until the open connections have ended.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var connections sync.WaitGroup
	defer connections.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var failures loop.RepeatFilter
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			connections.Wait()
			return err
		case err != nil:
			if skipped, ok := failures.Admit("accept", err.Error(), time.Now()); ok {
				s.log.Warn("the SSH listener failed", "err", err, "not_logged", skipped)
			}
			_ = loop.Sleep(ctx, acceptRetryDelay) // the next turn notices that ctx has ended
			continue
		}
		connections.Go(func() { s.serveConn(ctx, conn) })
	}
}

// serveConn serves one connection and closes it.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	defer s.recoverPanic(conn)
	from := addressOf(conn)
	if !s.attempts.take(from, time.Now()) {
		s.log.Debug("an SSH connection was refused: its address has tried too often", "from", from)
		return
	}
	if !s.usage.beginLogin() {
		s.attempts.giveBack(from, time.Now())
		if skipped, ok := s.full.Admit("connections", "", time.Now()); ok {
			s.log.Warn("an SSH connection was refused: there are too many", "from", from, "not_logged", skipped)
		}
		return
	}
	defer s.usage.endConnection()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c, err := s.countedLogIn(ctx, conn)
	if err != nil {
		s.log.Info("an SSH login was refused", "from", from, "why", err)
		return
	}
	s.attempts.giveBack(from, time.Now())
	if !s.usage.addUser(c.login.User) {
		s.log.Info("an SSH connection was refused: its user has too many", "from", from, "user", c.login.User)
		_ = c.ssh.Close()
		return
	}
	defer s.usage.removeUser(c.login.User)
	s.log.Info("an SSH client has logged in", "from", from, "user", c.login.User)
	c.serve(ctx)
	s.log.Info("an SSH client has left", "from", from, "user", c.login.User)
}

// recoverPanic logs a panic and closes the connection that it belongs to.
func (s *Server) recoverPanic(conn net.Conn) {
	if p := recover(); p != nil {
		s.log.Error("an SSH connection failed", "panic", p, "stack", string(debug.Stack()))
		_ = conn.Close()
	}
}

// countedLogIn is logIn for a connection that beginLogin has counted. It ends that, after a panic, too.
func (s *Server) countedLogIn(ctx context.Context, conn net.Conn) (*connection, error) {
	defer s.usage.endLogin()
	return s.logIn(ctx, conn, "")
}

// logIn runs the key exchange and the login. The user name is the client's own, unless user is not empty.
func (s *Server) logIn(ctx context.Context, conn net.Conn, user string) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.LoginTime)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	sshConn, channels, requests, err := ssh.NewServerConn(conn, s.newConfig(ctx, user))
	if err != nil {
		return nil, err
	}
	login, ok := sshConn.Permissions.ExtraData[loginKey{}].(Login)
	if !ok { // no other callback than the one of newConfig lets a client in
		_ = sshConn.Close()
		return nil, errors.New("the login is not known")
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = sshConn.Close()
		return nil, err
	}
	return &connection{server: s, net: conn, ssh: sshConn, login: login, channels: channels, requests: requests}, nil
}

// loginKey is the key of the Login among the data of ssh.Permissions, which belong to the key that the client has proven
// to have, and not only offered.
type loginKey struct{}

// newConfig returns the configuration for one login; see logIn. ctx bounds the checks of the keys that the client offers.
func (s *Server) newConfig(ctx context.Context, user string) *ssh.ServerConfig {
	secure := ssh.SupportedAlgorithms() // those without known weaknesses
	config := &ssh.ServerConfig{
		Config:                  ssh.Config{KeyExchanges: secure.KeyExchanges, Ciphers: secure.Ciphers, MACs: secure.MACs},
		PublicKeyAuthAlgorithms: secure.PublicKeyAuths,
		ServerVersion:           "SSH-2.0-dstack",
		MaxAuthTries:            maxLoginTries,
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			login := Login{User: cmp.Or(user, meta.User()), Key: Key(key.Marshal())}
			if err := s.jobs.Authorize(ctx, login); err != nil {
				return nil, &ssh.BannerError{Err: err, Message: "dstack: " + describeRefusal(err) + "\n"}
			}
			return &ssh.Permissions{ExtraData: map[any]any{loginKey{}: login}}, nil
		},
	}
	config.AddHostKey(s.hostKey)
	return config
}

// maxLoginTries is how many keys a client may try on one connection.
const maxLoginTries = 6

// describeRefusal returns what a client may read about a refusal.
func describeRefusal(err error) string {
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok || e.Kind != dstack.Forbidden && e.Kind != dstack.Unavailable {
		return "the server cannot check this now"
	}
	return e.Message
}
