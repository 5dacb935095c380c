package sshserver_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
	"dstack/internal/sshserver"
)

func TestServer_ForwardsToPortsOfTheJob(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	client := r.mustDial()
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]", "LOCALHOST"} {
		c, err := client.Dial("tcp", host+":8000")
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		expectEcho(t, c)
	}
}

// TestServer_RefusesLogins: only a job's key with that job's name opens anything.
func TestServer_RefusesLogins(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	other := newSigner(t)
	r.jobs.setKey("theirs", keyOf(other))
	for _, c := range []struct {
		name, user string
		auth       []ssh.AuthMethod
	}{
		{"no method", "job", []ssh.AuthMethod{}},
		{"an unknown key", "job", []ssh.AuthMethod{ssh.PublicKeys(newSigner(t))}},
		{"the key of another job", "job", []ssh.AuthMethod{ssh.PublicKeys(other)}},
		{"the name of another job", "theirs", []ssh.AuthMethod{ssh.PublicKeys(r.signer)}},
		{"the name of no job", "nobody", []ssh.AuthMethod{ssh.PublicKeys(r.signer)}},
		{"no name", "", []ssh.AuthMethod{ssh.PublicKeys(r.signer)}},
		{"root", "root", []ssh.AuthMethod{ssh.PublicKeys(r.signer)}},
		{"a password", "job", []ssh.AuthMethod{ssh.Password("secret")}},
		{"answers", "job", []ssh.AuthMethod{ssh.KeyboardInteractive(
			func(string, string, []string, []bool) ([]string, error) { return nil, nil })}},
		{"a certificate for the key", "job", []ssh.AuthMethod{ssh.PublicKeys(newCertificate(t, r.signer))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.auth == nil {
				c.auth = []ssh.AuthMethod{ssh.Password("")}
			}
			if _, err := r.dial(c.user, append(c.auth, ssh.Password("x"))...); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
				t.Errorf("the login ended with %v", err)
			}
		})
	}
	r.mustDial() // the right one still works
}

// newCertificate returns a certificate that the key's owner has issued.
func newCertificate(t *testing.T, signer ssh.Signer) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"job"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(strings.NewReader(strings.Repeat("x", 1000)), signer); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		t.Fatal(err)
	}
	return certified
}

// offeredOnly has the public key of one signer, and signs with another.
type offeredOnly struct{ public, private ssh.Signer }

func (o offeredOnly) PublicKey() ssh.PublicKey { return o.public.PublicKey() }
func (o offeredOnly) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return o.private.Sign(rand, data)
}

// TestServer_NeedsTheProvenKey: a client that offers a job's public key, but proves another one, gets the rights of
// the one that it proved, which may be none.
func TestServer_NeedsTheProvenKey(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	own := newSigner(t)
	r.jobs.setKey("own", keyOf(own))
	if _, err := r.dial("job", ssh.PublicKeys(offeredOnly{r.signer, own})); err == nil {
		t.Error("a public key without its private key opens a job")
	}
	if _, err := r.dial("job", ssh.PublicKeys(offeredOnly{r.signer, own}, own)); err == nil {
		t.Error("the key of another job opens a job whose key was offered first")
	}
}

func TestServer_RefusesEverythingButForwarding(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	client := r.mustDial()
	for _, kind := range []string{"session", "direct-streamlocal@openssh.com", "forwarded-tcpip", "x11",
		"auth-agent@openssh.com", "tun@openssh.com", "", "made-up"} {
		_, _, err := client.OpenChannel(kind, nil)
		if refused, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refused.Reason != ssh.Prohibited {
			t.Errorf("a channel of type %q ended with %v", kind, err)
		}
	}
	for _, request := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "no-more-sessions@openssh.com", "made-up"} {
		if ok, _, err := client.SendRequest(request, true, ssh.Marshal(struct {
			Host string
			Port uint32
		}{"127.0.0.1", 0})); ok || err != nil {
			t.Errorf("the request %q ended with %t, %v", request, ok, err)
		}
	}
	if _, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("the server listens for a client")
	}
	c, err := client.Dial("tcp", "localhost:8000")
	if err != nil {
		t.Fatalf("forwarding does not work after all that: %v", err)
	}
	expectEcho(t, c)
}

func TestServer_RefusesOtherTargets(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	client := r.mustDial()
	for _, target := range []string{"localhost:8001", "localhost:22", "localhost:1", "127.0.0.2:8000", "10.0.0.1:8000",
		"169.254.169.254:80", "example.com:8000", "0.0.0.0:8000", "localhost.:8000", "[::]:8000", "[::ffff:127.0.0.1]:8000"} {
		_, err := client.Dial("tcp", target)
		if refused, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refused.Reason != ssh.Prohibited {
			t.Errorf("%s ended with %v", target, err)
		}
	}
	for name, data := range map[string][]byte{
		"no data":            nil,
		"half of it":         ssh.Marshal(struct{ Host string }{"localhost"}),
		"a port too high":    ssh.Marshal(directTCPIP{"localhost", 65536 + 8000, "", 0}),
		"port 0":             ssh.Marshal(directTCPIP{"localhost", 0, "", 0}),
		"a negative port":    ssh.Marshal(directTCPIP{"localhost", 1<<32 - 1, "", 0}),
		"a name with a NUL":  ssh.Marshal(directTCPIP{"localhost\x00.example.com", 8000, "", 0}),
		"more than there is": append(ssh.Marshal(directTCPIP{"localhost", 8000, "", 0}), 1),
	} {
		if _, _, err := client.OpenChannel("direct-tcpip", data); err == nil {
			t.Errorf("%s: the channel was opened", name)
		}
	}
}

type directTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// dialInner logs in at the job's own SSH port, through another connection.
func (r *rig) dialInner(outer *ssh.Client, user string, signer ssh.Signer) (*ssh.Client, error) {
	r.t.Helper()
	channel, err := outer.Dial("tcp", "localhost:10022")
	if err != nil {
		r.t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(channel, "localhost:10022", &ssh.ClientConfig{User: user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(r.hostKey())})
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(conn, channels, requests)
	r.t.Cleanup(func() { _ = client.Close() })
	return client, nil
}

// TestServer_InnerConnection: clients that jump through the first connection to the job's own SSH port reach the same
// ports, whatever user name they give there, and nothing more.
func TestServer_InnerConnection(t *testing.T) {
	r := newRig(t, sshserver.Limits{CheckInterval: 10 * time.Millisecond})
	other := newSigner(t)
	r.jobs.setKey("theirs", keyOf(other))
	outer := r.mustDial()
	inner, err := r.dialInner(outer, "root", r.signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := inner.Dial("tcp", "localhost:8000")
	if err != nil {
		t.Fatal(err)
	}
	expectEcho(t, c)
	if _, err := inner.Dial("tcp", "localhost:10022"); err == nil {
		t.Error("the inner connection leads to a third one")
	}
	if _, err := inner.NewSession(); err == nil {
		t.Error("the inner connection has a shell")
	}
	for name, login := range map[string]struct {
		user   string
		signer ssh.Signer
	}{
		"the key of another job":          {"root", other},
		"the name and key of another job": {"theirs", other},
		"an unknown key":                  {"job", newSigner(t)},
	} {
		if _, err := r.dialInner(outer, login.user, login.signer); err == nil {
			t.Errorf("%s opens an inner connection", name)
		}
	}
	r.jobs.setKey("job", "")
	r.expectClosed(inner, 5*time.Second)
}

// TestServer_AccessEnds: a connection ends when its key no longer opens the job, and outlives failures of the check.
func TestServer_AccessEnds(t *testing.T) {
	r := newRig(t, sshserver.Limits{CheckInterval: 10 * time.Millisecond})
	client := r.mustDial()
	c, err := client.Dial("tcp", "localhost:8000")
	if err != nil {
		t.Fatal(err)
	}
	r.jobs.setFailure(&dstack.Error{Kind: dstack.Unavailable, Message: "the server cannot check the key now", Cause: errors.New("secret")})
	if _, err := r.dial("job"); err == nil {
		t.Error("a client logs in while its key cannot be checked")
	}
	if _, err := client.Dial("tcp", "localhost:8000"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a connection that cannot be checked ended with %v", err)
	}
	time.Sleep(100 * time.Millisecond)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("an open connection was closed because the check failed: %v", err)
	}
	r.jobs.setFailure(nil)
	r.jobs.setKey("job", "")
	r.expectClosed(client, 5*time.Second)
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, io.EOF) {
		t.Logf("the forwarded connection ended with %v", err)
	}
}

func (r *rig) eventually(what string, check func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !check(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within 10s: %s\n%s", what, r.log.String())
		}
	}
}

// isOpen reports whether the server still answers.
func isOpen(c *ssh.Client) bool {
	_, _, err := c.SendRequest("made-up", true, nil)
	return err == nil
}

// TestServer_RefusesAddressesThatFail: an address that fails to log in again and again is refused at once.
func TestServer_RefusesAddressesThatFail(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	stranger := newSigner(t)
	for range 20 {
		r.mustDial() // successful logins do not count
	}
	failed := 0
	for range 40 {
		_, err := r.dial("job", ssh.PublicKeys(stranger))
		if err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			break
		}
		failed++
	}
	if failed < 25 || failed > 35 {
		t.Errorf("%d logins were checked before the address was refused", failed)
	}
}

func TestServer_ClosesIdleConnections(t *testing.T) {
	r := newRig(t, sshserver.Limits{KeepAlive: 20 * time.Millisecond, IdleTime: 300 * time.Millisecond})
	idle, busy := r.mustDial(), r.mustDial()
	c, err := busy.Dial("tcp", "localhost:8000")
	if err != nil {
		t.Fatal(err)
	}
	r.expectClosed(idle, 5*time.Second)
	if !isOpen(busy) {
		t.Fatal("a connection with a forwarded one was closed")
	}
	expectEcho(t, c)
	_ = c.Close()
	r.expectClosed(busy, 5*time.Second)
}

// TestServer_ClosesSilentPeers: a peer that is gone without a word is noticed.
func TestServer_ClosesSilentPeers(t *testing.T) {
	r := newRig(t, sshserver.Limits{KeepAlive: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	silent := &blockableConn{Conn: conn, blocked: make(chan struct{})}
	sshConn, _, requests, err := ssh.NewClientConn(silent, r.addr, &ssh.ClientConfig{User: "job",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(r.signer)}, HostKeyCallback: ssh.FixedHostKey(r.hostKey())})
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	time.Sleep(400 * time.Millisecond)
	if strings.Contains(r.log.String(), "has left") {
		t.Fatal("a client that answers was closed")
	}
	close(silent.blocked)
	r.eventually("the server has closed the connection", func() bool { return strings.Contains(r.log.String(), "has left") })
	_ = sshConn.Close()
}

// blockableConn discards what it is to send once blocked is closed.
type blockableConn struct {
	net.Conn
	blocked chan struct{}
}

func (c *blockableConn) Write(p []byte) (int, error) {
	select {
	case <-c.blocked:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

func TestServer_StopClosesConnections(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	client := r.mustDial()
	c, err := client.Dial("tcp", "localhost:8000")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", r.addr) // has not logged in
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	r.stop()
	r.expectClosed(client, 5*time.Second)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a forwarded connection is still open")
	}
	if _, err := r.dial("job"); err == nil {
		t.Error("the server still listens")
	}
}

// TestServer_OutlivesPanics: a panic ends one connection only.
func TestServer_OutlivesPanics(t *testing.T) {
	r := newRig(t, sshserver.Limits{})
	client := r.mustDial()
	r.jobs.mu.Lock()
	r.jobs.panic = true
	r.jobs.mu.Unlock()
	if _, err := client.Dial("tcp", "localhost:8000"); err == nil {
		t.Error("a connection was forwarded")
	}
	r.expectClosed(client, 5*time.Second)
	r.mustDial()
}

// TestServer_PanicsLeaveNoSlots: a login or a connection that ends with a panic counts no longer.
func TestServer_PanicsLeaveNoSlots(t *testing.T) {
	r := newRig(t, sshserver.Limits{Connections: 1, Logins: 1, OfUser: 1, Channels: 1, AllChannels: 1})
	setPanic := func(flag *bool, value bool) {
		r.jobs.mu.Lock()
		defer r.jobs.mu.Unlock()
		*flag = value
	}
	setPanic(&r.jobs.panicAtLogin, true)
	if _, err := r.dial("job"); err == nil {
		t.Error("a login that panics lets the client in")
	}
	setPanic(&r.jobs.panicAtLogin, false)
	var client *ssh.Client
	r.eventually("a login after one that panicked", func() bool {
		c, err := r.dial("job")
		client = c
		return err == nil
	})
	setPanic(&r.jobs.panic, true)
	if _, err := client.Dial("tcp", "localhost:8000"); err == nil {
		t.Error("a connection was forwarded")
	}
	r.expectClosed(client, 5*time.Second)
	setPanic(&r.jobs.panic, false)
	r.eventually("a forwarded connection after one that panicked", func() bool {
		c, err := r.dial("job")
		if err != nil {
			return false
		}
		_, err = c.Dial("tcp", "localhost:8000")
		_ = c.Close()
		return err == nil
	})
}

// TestServer_OutlivesGarbage: what is not SSH is closed, and does not stop the server.
func TestServer_OutlivesGarbage(t *testing.T) {
	r := newRig(t, sshserver.Limits{LoginTime: time.Second})
	for _, text := range []string{"", "GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n" + strings.Repeat("\xff", 1000),
		"SSH-1.5-x\r\n", strings.Repeat("a", 100_000), "SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14"} {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection that sent %.20q is still open", text)
		}
		_ = conn.Close()
	}
	r.mustDial()
}

func TestNew_NeedsASeed(t *testing.T) {
	if _, err := sshserver.New(sshserver.Options{HostSeed: []byte("short")}); err == nil {
		t.Error("a short seed makes a host key")
	}
}
