package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	cryptossh "golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// TestMain makes the test program its own stand-in for `docker system dial-stdio`.
func TestMain(m *testing.M) {
	if socket := os.Getenv("DSTACK_TEST_BRIDGE"); socket != "" {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			fmt.Fprintln(os.Stderr, "Cannot connect to the Docker daemon at unix://"+socket+". Is the docker daemon running?")
			os.Exit(1)
		}
		go func() {
			_, _ = io.Copy(conn, os.Stdin)
			_ = conn.(*net.UnixConn).CloseWrite()
		}()
		_, _ = io.Copy(os.Stdout, conn)
		os.Exit(0)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // the tests mostly wait
		panic(err)
	}
	os.Exit(m.Run())
}

// fakeHost is an SSH server whose commands run on this machine with stand-ins for docker,
// sudo and nvidia-smi, and a stand-in for a Docker Engine.
type fakeHost struct {
	t        *testing.T
	dir      string // has the stand-ins and the socket of the engine
	hostKey  cryptossh.Signer
	address  string
	allowed  atomic.Pointer[string] // the key that may log in, as in authorized_keys
	refuses  atomic.Bool            // forwards no sockets
	greets   atomic.Bool            // its login shell prints a text before the output of commands
	logins   atomic.Int32
	engineID atomic.Pointer[string]
	api      atomic.Pointer[string]

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	engine   *http.Server
	work     sync.WaitGroup
}

// newKey returns a private key and the line of authorized_keys for it.
func newKey(t *testing.T) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := cryptossh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	line, err := cryptossh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), string(cryptossh.MarshalAuthorizedKey(line))
}

// newFakeHost starts a host that lets the returned login in.
func newFakeHost(t *testing.T) (*fakeHost, dstack.SSHLogin) {
	t.Helper()
	private, public := newKey(t)
	dir, err := os.MkdirTemp("", "host") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHost{t: t, dir: dir, conns: map[net.Conn]bool{}}
	h.allowed.Store(&public)
	h.setEngine("ENGINE-"+filepath.Base(dir), "1.47")
	h.changeHostKey()
	h.stub("docker", `DSTACK_TEST_BRIDGE=`+h.socket()+` exec `+os.Args[0])
	h.stub("sudo", `echo "sudo: a password is required" >&2; exit 1`)
	h.startEngine()
	h.start()
	t.Cleanup(func() {
		h.stop()
		h.stopEngine()
		h.work.Wait()
		_ = os.RemoveAll(dir)
	})
	return h, dstack.SSHLogin{Address: h.address, User: "ann", PrivateKey: private}
}

func (h *fakeHost) socket() string { return filepath.Join(h.dir, "docker.sock") }

func (h *fakeHost) setEngine(id, api string) {
	h.engineID.Store(&id)
	h.api.Store(&api)
}

// stub makes a program of the host.
func (h *fakeHost) stub(name, script string) {
	if err := os.WriteFile(filepath.Join(h.dir, name+".new"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(h.dir, name+".new"), filepath.Join(h.dir, name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) changeHostKey() {
	private, _ := newKey(h.t)
	signer, err := cryptossh.ParsePrivateKey([]byte(private))
	if err != nil {
		h.t.Fatal(err)
	}
	h.hostKey = signer
}

// start starts the SSH server, at the address that it had before.
func (h *fakeHost) start() {
	address := h.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		h.t.Fatal(err)
	}
	h.address = l.Addr().String()
	h.mu.Lock()
	h.listener = l
	h.mu.Unlock()
	h.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.work.Go(func() { h.serve(conn) })
		}
	})
}

// stop ends the SSH server and its connections.
func (h *fakeHost) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.listener.Close()
	for conn := range h.conns {
		_ = conn.Close()
	}
	h.conns = map[net.Conn]bool{}
}

func (h *fakeHost) serve(conn net.Conn) {
	h.mu.Lock()
	h.conns[conn] = true
	h.mu.Unlock()
	defer conn.Close()
	config := &cryptossh.ServerConfig{PublicKeyCallback: func(meta cryptossh.ConnMetadata, key cryptossh.PublicKey) (*cryptossh.Permissions, error) {
		if meta.User() != "ann" || string(cryptossh.MarshalAuthorizedKey(key)) != *h.allowed.Load() {
			return nil, errors.New("not allowed")
		}
		return nil, nil
	}}
	config.AddHostKey(h.hostKey)
	server, channels, requests, err := cryptossh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	h.logins.Add(1)
	go func() {
		var forwards []net.Listener
		for r := range requests {
			l := h.listen(server, r)
			if l != nil {
				forwards = append(forwards, l)
			}
			if r.WantReply {
				_ = r.Reply(l != nil, nil)
			}
		}
		for _, l := range forwards {
			_ = l.Close()
		}
	}()
	for c := range channels {
		go h.serveChannel(c)
	}
}

// listen listens on a port for a client that asks for it; nil: it does not.
func (h *fakeHost) listen(server *cryptossh.ServerConn, r *cryptossh.Request) net.Listener {
	var target struct {
		Host string
		Port uint32
	}
	if r.Type != "tcpip-forward" || cryptossh.Unmarshal(r.Payload, &target) != nil {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(target.Host, fmt.Sprint(target.Port)))
	if err != nil {
		return nil
	}
	h.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			channel, requests, err := server.OpenChannel("forwarded-tcpip", cryptossh.Marshal(struct {
				Host       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}{target.Host, target.Port, "127.0.0.1", 1}))
			if err != nil {
				_ = conn.Close()
				continue
			}
			go cryptossh.DiscardRequests(requests)
			go func() { _, _ = io.Copy(channel, conn); _ = channel.CloseWrite() }()
			go func() { _, _ = io.Copy(conn, channel); _ = conn.Close() }()
		}
	})
	return l
}

func (h *fakeHost) serveChannel(c cryptossh.NewChannel) {
	switch c.ChannelType() {
	case "session":
		if channel, requests, err := c.Accept(); err == nil {
			h.serveSession(channel, requests)
		}
	case "direct-streamlocal@openssh.com":
		var target struct {
			Path     string
			Reserved string
			Port     uint32
		}
		_ = cryptossh.Unmarshal(c.ExtraData(), &target)
		h.forward(c, "unix", target.Path)
	case "direct-tcpip":
		var target struct {
			Host       string
			Port       uint32
			OriginHost string
			OriginPort uint32
		}
		_ = cryptossh.Unmarshal(c.ExtraData(), &target)
		h.forward(c, "tcp", net.JoinHostPort(target.Host, fmt.Sprint(target.Port)))
	default:
		_ = c.Reject(cryptossh.UnknownChannelType, "unknown")
	}
}

func (h *fakeHost) forward(c cryptossh.NewChannel, network, address string) {
	conn, err := net.Dial(network, address)
	if err != nil || network == "unix" && h.refuses.Load() {
		_ = c.Reject(cryptossh.ConnectionFailed, "open failed")
		return
	}
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	go cryptossh.DiscardRequests(requests)
	go func() {
		_, _ = io.Copy(conn, channel)
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	_, _ = io.Copy(channel, conn)
	_ = channel.Close()
	_ = conn.Close()
}

func (h *fakeHost) serveSession(channel cryptossh.Channel, requests <-chan *cryptossh.Request) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		var text struct{ Command string }
		_ = cryptossh.Unmarshal(r.Payload, &text)
		go func() {
			command := exec.CommandContext(ctx, "/bin/sh", "-c", text.Command)
			command.Env = []string{"PATH=" + h.dir + ":/usr/bin:/bin", "HOME=" + h.dir, "FAKE_SOCKET=" + h.socket()}
			stdin, _ := command.StdinPipe()
			command.Stdout, command.Stderr = channel, channel.Stderr()
			go func() {
				_, _ = io.Copy(stdin, channel)
				_ = stdin.Close()
			}()
			if h.greets.Load() {
				_, _ = io.WriteString(channel, "Welcome to this host!\n")
			}
			_ = command.Run()
			status := struct{ Code uint32 }{uint32(max(command.ProcessState.ExitCode(), 0))}
			_, _ = channel.SendRequest("exit-status", false, cryptossh.Marshal(status))
			_ = channel.Close()
		}()
	}
}

// startEngine starts the stand-in for a Docker Engine. It has no containers.
func (h *fakeHost) startEngine() {
	_ = os.Remove(h.socket())
	l, err := net.Listen("unix", h.socket())
	if err != nil {
		h.t.Fatal(err)
	}
	answer := func(w http.ResponseWriter, value any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	}
	engine := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", *h.api.Load())
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			_, _ = io.WriteString(w, "OK")
		case strings.HasSuffix(r.URL.Path, "/info"):
			answer(w, map[string]any{
				"ID": *h.engineID.Load(), "ServerVersion": "27.3.1", "OSType": "linux", "NCPU": 64, "MemTotal": int64(1) << 40,
				"DockerRootDir": h.dir, "Architecture": "x86_64", "OperatingSystem": "fake",
			})
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			answer(w, []any{})
		default:
			http.NotFound(w, r)
		}
	})}
	h.mu.Lock()
	h.engine = engine
	h.mu.Unlock()
	h.work.Go(func() { _ = engine.Serve(l) })
}

func (h *fakeHost) stopEngine() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.engine.Close()
	_ = os.Remove(h.socket())
}
