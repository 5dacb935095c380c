package sshserver_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
	"dstack/internal/sshserver"
)

// fakeJobs has one key for each job. All jobs have the same ports.
type fakeJobs struct {
	mu    sync.Mutex
	keys  map[string]sshserver.Key
	fail  error                    // of Authorize, if not nil
	ports map[int]func(c net.Conn) // by port; serves the other end
	panic bool                     // in Dial

	panicAtLogin bool // in Authorize
}

var errForbidden = &dstack.Error{Kind: dstack.Forbidden, Message: "no job accepts this key"}

func (f *fakeJobs) Authorize(_ context.Context, login sshserver.Login) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.panicAtLogin:
		panic("the test wants it")
	case f.fail != nil:
		return f.fail
	case f.keys[login.User] == "" || f.keys[login.User] != login.Key:
		return errForbidden
	}
	return nil
}

func (f *fakeJobs) Dial(ctx context.Context, login sshserver.Login, port int) (net.Conn, error) {
	if err := f.Authorize(ctx, login); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panic {
		panic("the test wants it")
	}
	serve := f.ports[port]
	if serve == nil {
		return nil, &dstack.Error{Kind: dstack.Forbidden, Message: fmt.Sprintf("port %d is not a port of the job", port)}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		defer func() { _ = l.Close() }()
		if c, err := l.Accept(); err == nil {
			serve(c)
		}
	}()
	return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
}

func (f *fakeJobs) setKey(user string, key sshserver.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[user] = key
}

func (f *fakeJobs) setFailure(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// echo sends back what it receives, and “bye” at the end.
func echo(c net.Conn) {
	defer func() { _ = c.Close() }()
	_, _ = io.Copy(c, c)
	_, _ = c.Write([]byte("bye"))
}

// rig is a server with the job “job”, whose key is signer.
type rig struct {
	t      *testing.T
	jobs   *fakeJobs
	addr   string
	signer ssh.Signer
	seed   []byte
	log    *lockedBuffer
	stop   func()
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newRig(t *testing.T, limits sshserver.Limits) *rig {
	t.Helper()
	r := &rig{t: t, signer: newSigner(t), seed: bytes.Repeat([]byte{7}, ed25519.SeedSize), log: &lockedBuffer{}}
	r.jobs = &fakeJobs{keys: map[string]sshserver.Key{"job": keyOf(r.signer)}, ports: map[int]func(net.Conn){8000: echo}}
	server, err := sshserver.New(sshserver.Options{HostSeed: r.seed, Jobs: r.jobs, Limits: limits,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Serve returned %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve does not return after its context ended")
		}
	})
	t.Cleanup(r.stop)
	return r
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func keyOf(s ssh.Signer) sshserver.Key { return sshserver.Key(s.PublicKey().Marshal()) }

// dial logs in.
func (r *rig) dial(user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	if len(auth) == 0 {
		auth = []ssh.AuthMethod{ssh.PublicKeys(r.signer)}
	}
	client, err := ssh.Dial("tcp", r.addr, &ssh.ClientConfig{User: user, Auth: auth, Timeout: 10 * time.Second,
		HostKeyCallback: ssh.FixedHostKey(r.hostKey())})
	if err == nil {
		r.t.Cleanup(func() { _ = client.Close() })
	}
	return client, err
}

func (r *rig) hostKey() ssh.PublicKey {
	key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(r.seed).Public())
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

func (r *rig) mustDial() *ssh.Client {
	r.t.Helper()
	client, err := r.dial("job")
	if err != nil {
		r.t.Fatal(err)
	}
	return client
}

// expectClosed waits until the server has closed a connection.
func (r *rig) expectClosed(c *ssh.Client, within time.Duration) {
	r.t.Helper()
	closed := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(within):
		r.t.Errorf("the connection is still open after %s", within)
	}
}

// expectEcho sends a text through a forwarded connection.
func expectEcho(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	if text, err := io.ReadAll(c); string(text) != "hellobye" {
		t.Errorf("got %q, %v", text, err)
	}
}
