package gittest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// NewKey returns a private key in OpenSSH's format, and its public key.
func NewKey(t testing.TB) (private string, public ssh.PublicKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), signer.PublicKey()
}

// SSHServer serves the repositories below Root over SSH, to the user git with one key.
type SSHServer struct {
	Root    string
	Address string

	mu      sync.Mutex
	config  *ssh.ServerConfig
	allowed ssh.PublicKey
	tasks   sync.WaitGroup
}

// StartSSH starts a server for the owner of a key. It ends with the test.
func StartSSH(t testing.TB, root string, allowed ssh.PublicKey) *SSHServer {
	t.Helper()
	s := &SSHServer{Root: root, allowed: allowed}
	s.ChangeHostKey(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Address = listener.Addr().String()
	s.tasks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.tasks.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		s.tasks.Wait()
	})
	return s
}

// ChangeHostKey gives the server a new host key.
func (s *SSHServer) ChangeHostKey(t testing.TB) {
	t.Helper()
	private, _ := NewKey(t)
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if conn.User() != "git" || !bytes.Equal(key.Marshal(), s.allowed.Marshal()) {
			return nil, errors.New("this key may not read")
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = config
}

func (s *SSHServer) serve(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	config := s.config
	s.mu.Unlock()
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer server.Close()
	s.tasks.Go(func() { ssh.DiscardRequests(requests) })
	for channel := range channels {
		if channel.ChannelType() != "session" {
			_ = channel.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		session, requests, err := channel.Accept()
		if err != nil {
			return
		}
		s.tasks.Go(func() { s.serveSession(session, requests) })
	}
}

func (s *SSHServer) serveSession(session ssh.Channel, requests <-chan *ssh.Request) {
	defer session.Close()
	var env []string
	for request := range requests {
		switch request.Type {
		case "env":
			var variable struct{ Name, Value string }
			_ = ssh.Unmarshal(request.Payload, &variable)
			if variable.Name == "GIT_PROTOCOL" {
				env = append(env, "GIT_PROTOCOL="+variable.Value)
			}
			_ = request.Reply(true, nil)
		case "exec":
			var command struct{ Text string }
			_ = ssh.Unmarshal(request.Payload, &command)
			_ = request.Reply(true, nil)
			status := s.upload(session, command.Text, env)
			_, _ = session.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			return
		default:
			_ = request.Reply(false, nil)
		}
	}
}

// upload runs git-upload-pack '/path', and nothing else.
func (s *SSHServer) upload(session ssh.Channel, command string, env []string) uint32 {
	path, ok := strings.CutPrefix(command, "git-upload-pack '")
	if path = strings.TrimSuffix(path, "'"); !ok || strings.ContainsAny(path, `'\`) {
		_, _ = io.WriteString(session.Stderr(), "only git-upload-pack is allowed\n")
		return 1
	}
	cmd := exec.Command("git", "-c", "safe.directory=*", "upload-pack", filepath.Join(s.Root, filepath.Clean("/"+path)))
	cmd.Env = Environ(env...)
	cmd.Stdout, cmd.Stderr = session, session.Stderr()
	in, err := cmd.StdinPipe() // with Stdin, Wait would wait for the client's end
	if err != nil || cmd.Start() != nil {
		return 1
	}
	s.tasks.Go(func() {
		_, _ = io.Copy(in, session)
		_ = in.Close()
	})
	if cmd.Wait() != nil {
		return 1
	}
	return 0
}
