package sshclient

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// fakeServer is an SSH server with faults. It runs commands with sh and forwards TCP connections.
type fakeServer struct {
	t       testing.TB
	address string
	hostKey ssh.Signer
	key     string // the private key of its users
	tasks   sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	requests []string // the types of the channels' requests
	faults   faults
	accepted int // connections
	opened   int // logins
	atOnce   int // connections that have not logged in
	maxOnce  int
}

// faults change what a fakeServer does.
type faults struct {
	drop        int           // so many of the next connections are closed at once
	isSilent    bool          // it accepts connections and says nothing
	refuse      bool          // it accepts no key
	loginDelay  time.Duration // before a key is accepted
	openDelay   time.Duration // before a forwarded connection is opened
	unusedLimit time.Duration // connections without channels for so long are closed
}

func newFakeServer(t testing.TB) *fakeServer {
	t.Helper()
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(hostKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	private, _ := newKey(t)
	s := &fakeServer{t: t, address: l.Addr().String(), hostKey: signer, key: private, conns: map[net.Conn]bool{}}
	s.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.tasks.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.closeAll()
		s.tasks.Wait()
	})
	return s
}

func (s *fakeServer) login() dstack.SSHLogin {
	return dstack.SSHLogin{Address: s.address, User: "ann", PrivateKey: s.key,
		HostKey: string(ssh.MarshalAuthorizedKey(s.hostKey.PublicKey()))}
}

func (s *fakeServer) client(t testing.TB) *Client { return newTestClient(t, Options{Login: s.login()}) }

func (s *fakeServer) set(f faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *fakeServer) counts() (accepted, opened int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, s.opened
}

// closeAll closes all connections.
func (s *fakeServer) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *fakeServer) serve(conn net.Conn) {
	s.mu.Lock()
	s.accepted++
	s.conns[conn] = true
	s.atOnce++
	s.maxOnce = max(s.maxOnce, s.atOnce)
	f := s.faults
	s.faults.drop = max(0, f.drop-1)
	s.mu.Unlock()
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	isCounted := true
	endLogin := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if isCounted {
			s.atOnce--
		}
		isCounted = false
	}
	defer endLogin()
	switch {
	case f.drop > 0:
		return
	case f.isSilent:
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	signer, _ := ssh.ParsePrivateKey([]byte(s.key))
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		time.Sleep(f.loginDelay)
		if f.refuse || !isSameKey(key, signer.PublicKey()) {
			return nil, errors.New("refused")
		}
		return nil, nil
	}}
	config.AddHostKey(s.hostKey)
	sshConn, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	endLogin()
	s.mu.Lock()
	s.opened++
	s.mu.Unlock()
	s.tasks.Go(func() { ssh.DiscardRequests(requests) })
	var open atomic.Int32
	if f.unusedLimit > 0 {
		s.tasks.Go(func() {
			for {
				time.Sleep(f.unusedLimit)
				if open.Load() == 0 {
					_ = sshConn.Close()
					return
				}
			}
		})
	}
	for offered := range channels {
		open.Add(1)
		s.tasks.Go(func() {
			defer open.Add(-1)
			s.serveChannel(offered)
		})
	}
}

func (s *fakeServer) serveChannel(offered ssh.NewChannel) {
	if offered.ChannelType() == tcpChannel {
		s.mu.Lock()
		delay := s.faults.openDelay
		s.mu.Unlock()
		time.Sleep(delay)
		var target struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}
		_ = ssh.Unmarshal(offered.ExtraData(), &target)
		conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP(target.Host), Port: int(target.Port)})
		if err != nil {
			_ = offered.Reject(ssh.ConnectionFailed, "Connection refused")
			return
		}
		channel, requests, _ := offered.Accept()
		s.tasks.Go(func() { ssh.DiscardRequests(requests) })
		s.tasks.Go(func() { _, _ = io.Copy(conn, channel); _ = conn.CloseWrite() })
		_, _ = io.Copy(channel, conn)
		_ = channel.Close()
		_ = conn.Close()
		return
	}
	channel, requests, _ := offered.Accept()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for r := range requests {
		s.mu.Lock()
		s.requests = append(s.requests, r.Type)
		s.mu.Unlock()
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		var command struct{ Text string }
		_ = ssh.Unmarshal(r.Payload, &command)
		_ = r.Reply(true, nil)
		s.tasks.Go(func() {
			cmd := exec.CommandContext(ctx, "sh", "-c", command.Text) // killed when the channel ends
			cmd.WaitDelay = 500 * time.Millisecond
			cmd.Stdin, cmd.Stdout, cmd.Stderr = channel, channel, channel.Stderr()
			_ = cmd.Run()
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(cmd.ProcessState.ExitCode())}))
			_ = channel.Close()
		})
	}
}

// proxy forwards TCP connections to an address until it is cut: then nothing arrives any more, and nothing is closed.
type proxy struct {
	address string
	isCut   atomic.Bool
	conns   sync.Map
	tasks   sync.WaitGroup
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String()}
	p.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", target)
			if err != nil {
				_ = conn.Close()
				continue
			}
			p.conns.Store(conn, nil)
			p.conns.Store(up, nil)
			p.tasks.Go(func() { p.copy(up, conn) })
			p.tasks.Go(func() { p.copy(conn, up) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.isCut.Store(false)
		p.conns.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); return true })
		p.tasks.Wait()
	})
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if p.isCut.Load() {
			if err == nil {
				continue
			}
			return
		}
		if n > 0 {
			_, _ = to.Write(buffer[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// heal lets new connections through again. Those from before the cut stay dead.
func (p *proxy) heal() {
	p.conns.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); p.conns.Delete(conn); return true })
	p.isCut.Store(false)
}

// count returns how often a word is in the requests of a fakeServer's channels.
func (s *fakeServer) count(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(s.requests), func(r string) bool { return r != kind }))
}
