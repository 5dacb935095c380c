package sshclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// sshd is OpenSSH's server on a port of this machine, which lets the current user in.
type sshd struct {
	t       testing.TB
	dir     string
	address string
	key     string // the private key that it accepts
	log     *logFile
	cmd     *exec.Cmd
	starts  int
	// maxFiles is the limit of open files of the server's processes; 0: that of the tests.
	maxFiles int
}

// startSSHD starts a server with further lines of configuration.
func startSSHD(t testing.TB, lines ...string) *sshd {
	t.Helper()
	s := newSSHD(t)
	s.start(lines...)
	return s
}

// newSSHD prepares a server with a host key of each type.
func newSSHD(t testing.TB) *sshd {
	t.Helper()
	path, err := exec.LookPath("sshd")
	if err != nil {
		path = "/usr/sbin/sshd"
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs ssh: this machine has no sshd")
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &sshd{t: t, dir: t.TempDir(), address: freeAddress(t), log: newLogFile(t)}
	s.cmd = &exec.Cmd{Path: path}
	private, public := newKey(t)
	s.key = private
	s.write("authorized_keys", public+"\n")
	keys, err := hostKeys()
	if err != nil {
		t.Fatal(err)
	}
	for kind, key := range keys {
		s.writeHostKey(kind, key)
	}
	t.Cleanup(s.stop)
	return s
}

// hostKeys are a private key of each type, made once: RSA takes long.
var hostKeys = sync.OnceValues(func() (map[string]crypto.PrivateKey, error) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	return map[string]crypto.PrivateKey{"ed25519": ed, "ecdsa": ec, "rsa": rs}, err
})

// changeHostKey replaces the host key of ed25519.
func (s *sshd) changeHostKey() {
	s.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	s.writeHostKey("ed25519", key)
}

func (s *sshd) writeHostKey(kind string, key crypto.PrivateKey) {
	s.t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		s.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("host_"+kind, string(pem.EncodeToMemory(block)))
	s.write("host_"+kind+".pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// fingerprint returns the SHA256 fingerprint of a host key.
func (s *sshd) fingerprint(kind string) string {
	return ssh.FingerprintSHA256(s.hostKey(kind))
}

func (s *sshd) hostKey(kind string) ssh.PublicKey {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "host_"+kind+".pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func (s *sshd) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// start runs the server. Lines such as "HostKey host_rsa" replace the default host keys; names of files are in its folder.
func (s *sshd) start(lines ...string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.address)
	config := fmt.Sprintf("ListenAddress %s\nPort %s\nPidFile none\nUsePAM no\nStrictModes no\nPrintMotd no\nLogLevel VERBOSE\n"+
		"AuthorizedKeysFile %[3]s/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"+
		"SetEnv HOME=%[3]s\n", host, port, s.dir) // without what the user's own login shell does
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, "HostKey ") {
		text += "\nHostKey host_ed25519\nHostKey host_ecdsa\nHostKey host_rsa"
	}
	config += strings.ReplaceAll(text, "HostKey ", "HostKey "+s.dir+"/") + "\n"
	path := s.write("sshd_config", config)
	s.cmd = &exec.Cmd{Path: s.cmd.Path, Args: []string{s.cmd.Path, "-D", "-e", "-f", path}, Stderr: s.log.file}
	if s.maxFiles > 0 {
		s.cmd.Args = []string{"sh", "-c", fmt.Sprintf("ulimit -n %d; exec %s", s.maxFiles, strings.Join(s.cmd.Args, " "))}
		s.cmd.Path = "/bin/sh"
	}
	s.starts++
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "sshd listens", func() bool { return strings.Count(s.log.String(), "Server listening") == s.starts })
}

// stop ends the server; its connections live on until the client ends them.
func (s *sshd) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd.Process = nil
	}
}

// logins returns how many logins the server has let in.
func (s *sshd) logins() int { return strings.Count(s.log.String(), "Accepted publickey") }

// login returns how to log in, with the host key of ed25519 pinned.
func (s *sshd) login() dstack.SSHLogin {
	return dstack.SSHLogin{Address: s.address, User: currentUser(s.t), PrivateKey: s.key,
		HostKey: string(ssh.MarshalAuthorizedKey(s.hostKey("ed25519")))}
}

// client returns a client of the server with times for tests, which the test closes.
func (s *sshd) client() *Client {
	return newTestClient(s.t, Options{Login: s.login()})
}

// newTestClient returns a client with times for tests. It is closed after the test.
func newTestClient(t testing.TB, o Options) *Client {
	if o.Limits == nil {
		o.Limits = newTestLimiter()
	}
	c := New(o)
	c.times = testTimes()
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// testTimes are for a busy machine: what succeeds has long limits, what is watched for has short intervals.
func testTimes() times {
	return times{connect: 10 * time.Second, handshake: 20 * time.Second, warmUp: 3 * time.Second, busyInterval: 30 * time.Millisecond,
		idleInterval: 100 * time.Millisecond, answer: 500 * time.Millisecond, overdue: 50 * time.Millisecond, quick: 5 * time.Second, idle: 300 * time.Millisecond,
		exit: 300 * time.Millisecond, kill: 3 * time.Second}
}

func newTestLimiter() *LoginLimiter {
	l := NewLoginLimiter()
	l.pauses = pauses{jitter: time.Millisecond, unreachable: 10 * time.Millisecond, minDropped: 10 * time.Millisecond,
		maxDropped: 30 * time.Millisecond, lockedOut: 300 * time.Millisecond, refused: 300 * time.Millisecond, maxRefused: time.Second}
	return l
}

func currentUser(t testing.TB) string {
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// newKey returns a private key, and the line of authorized_keys that accepts it.
func newKey(t testing.TB) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	sshPublic, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPublic)))
}

// freeAddress returns an address of this machine where nothing listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

// logFile is what a process prints. It is a file, so that nothing waits for the processes that share it.
type logFile struct {
	t    testing.TB
	file *os.File
}

func newLogFile(t testing.TB) *logFile {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return &logFile{t, file}
}

func (l *logFile) String() string {
	text, err := os.ReadFile(l.file.Name())
	if err != nil {
		l.t.Error(err)
	}
	return string(text)
}
