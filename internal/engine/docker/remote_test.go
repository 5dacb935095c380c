package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/moby/moby/client"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/enginetest"
	"dstack/internal/sshclient"
)

// sshHost is a host of e2e/fleet/fleet.sh.
type sshHost struct {
	num    int
	folder string
	ssh    *sshclient.Client
	dialer *dial.Dialer
}

// openHost logs in to a host. It skips the test without the hosts.
func openHost(t *testing.T, num int) *sshHost {
	t.Helper()
	folder := os.Getenv("DSTACK_TEST_FLEET")
	if folder == "" {
		reason := os.Getenv("DSTACK_TEST_WITHOUT_FLEET")
		if reason == "" {
			reason = "run the tests with `make test`, which brings it"
		}
		t.Skip("needs fleet: " + reason)
	}
	network, err := os.ReadFile(filepath.Join(folder, "network"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(folder, "id"))
	if err != nil {
		t.Fatal(err)
	}
	h := &sshHost{num: num, folder: folder, dialer: &dial.Dialer{}}
	if out, err := h.control("up").CombinedOutput(); err != nil { // it may run already
		t.Fatalf("up: %v: %s", err, out)
	}
	h.ssh = sshclient.New(sshclient.Options{Login: dstack.SSHLogin{
		Address: fmt.Sprintf("%s.%d:22", strings.TrimSpace(string(network)), 10+num), User: "root", PrivateKey: string(key),
	}})
	t.Cleanup(func() { _ = h.ssh.Close() })
	h.dialer.AddHost("host", func(ctx context.Context, address string) (net.Conn, error) { return h.ssh.DialNow(ctx, address) })
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs docker: busybox is not installed")
	}
	api, err := client.New(client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) { return h.dialSocket(ctx) }))
	if err == nil {
		err = makeImage(api, busybox)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *sshHost) dialSocket(ctx context.Context) (net.Conn, error) {
	return h.ssh.Dial(ctx, "unix", "/var/run/docker.sock")
}

func (h *sshHost) dialStdio(ctx context.Context) (net.Conn, error) {
	return h.ssh.Pipe(ctx, "docker system dial-stdio")
}

func (h *sshHost) dialStreams(ctx context.Context) (net.Conn, error) {
	return h.ssh.Bulk().Dial(ctx, "unix", "/var/run/docker.sock")
}

// dockerCommand returns a command of the docker program on the host.
func (h *sshHost) dockerCommand(args ...string) *exec.Cmd {
	return h.control("run", append([]string{"docker"}, args...)...)
}

// control returns a command of fleet.sh for the host.
func (h *sshHost) control(what string, args ...string) *exec.Cmd {
	cmd := exec.Command("../../../e2e/fleet/fleet.sh", append([]string{what, strconv.Itoa(h.num)}, args...)...)
	cmd.Env = append(os.Environ(), "FLEET_DIR="+h.folder)
	return cmd
}

func (h *sshHost) unplug(t *testing.T, isOut bool) {
	t.Helper()
	what := map[bool]string{true: "unplug", false: "plug"}[isOut]
	if out, err := h.control(what).CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", what, out)
	}
}

// The engine of a host is the same as that of this machine.
func TestEngine_OnHost(t *testing.T) {
	t.Parallel()
	h := openHost(t, 1)
	enginetest.Run(t, newFixture(docker.Options{
		Remote: &docker.Remote{HostID: "host", Dial: h.dialSocket, DialStreams: h.dialStreams}, Dialer: h.dialer,
	}, h.dockerCommand))
}

// Where sshd forwards no sockets, each connection is a process on the host. More attempts than it has sessions run there.
func TestEngine_OnHostByCommand(t *testing.T) {
	t.Parallel()
	h := openHost(t, 1)
	e := openEngine(t, docker.Options{
		Installation: dstack.Installation("test-" + uuid.NewString()),
		Remote:       &docker.Remote{HostID: "host", Dial: h.dialStdio, MaxConns: 3}, Dialer: h.dialer,
	})
	t.Cleanup(func() { _ = e.Close() })
	const count = 12
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lines := make(chan string, count)
	for range count {
		spec := newSpec(image, "echo hello; exec httpd -f -p 8000")
		if err := e.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Remove(context.Background(), spec.Attempt) })
		go func() {
			for line, err := range e.Logs(ctx, spec.Attempt, time.Time{}) {
				if err != nil {
					lines <- err.Error()
					return
				}
				lines <- string(line.Text)
			}
		}()
	}
	for range count {
		if got := <-lines; got != "hello" {
			t.Errorf("the log has %q", got)
		}
	}
}

// A host may answer without end. That costs a bounded amount of memory, and other hosts nothing.
func TestPingRemote_EndlessAnswer(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.47")
		if !strings.HasSuffix(r.URL.Path, "/info") {
			return
		}
		_, _ = w.Write([]byte(`{"Name":"`))
		for chunk := []byte(strings.Repeat("x", 1<<20)); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			sent.Add(int64(len(chunk)))
		}
	}))
	defer server.Close()
	_, err := docker.PingRemote(t.Context(), docker.Remote{Dial: func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", server.Listener.Addr().String())
	}})
	if mib := sent.Load() >> 20; dstack.KindOf(err) != dstack.Unavailable || mib < 60 || mib > 100 {
		t.Errorf("%v after %d MiB", err, mib)
	}
}

// The cable of a host that no other test uses is pulled while an attempt writes: calls fail soon with Unavailable, and after the cable is back, its log
// continues without loss or repetition.
func TestEngine_HostUnplugged(t *testing.T) {
	t.Parallel()
	h := openHost(t, 4)
	h.ssh.SetBusy(true)
	e := openEngine(t, docker.Options{
		Installation: dstack.Installation("test-" + uuid.NewString()),
		Remote:       &docker.Remote{HostID: "host", Dial: h.dialSocket, DialStreams: h.dialStreams}, Dialer: h.dialer,
	})
	t.Cleanup(func() { _ = e.Close() })
	t.Cleanup(func() { h.unplug(t, false) })
	spec := newSpec(image, "i=0; while [ $i -lt 150 ]; do echo $i; i=$((i+1)); sleep 0.1; done")
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Remove(context.Background(), spec.Attempt) })
	enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })

	var got []string
	var last time.Time
	copyLog := func() (err error) {
		for line, err := range e.Logs(t.Context(), spec.Attempt, last) {
			if err != nil {
				return err
			}
			got, last = append(got, string(line.Text)), line.At
			if len(got) == 10 {
				h.unplug(t, true)
			}
		}
		return nil
	}
	began := time.Now()
	err := copyLog()
	if e, ok := errors.AsType[*dstack.Error](err); !ok || e.Kind != dstack.Unavailable || time.Since(began) > 15*time.Second {
		t.Errorf("after %v without the host, reading its log fails with %v", time.Since(began), err)
	}
	began = time.Now()
	_, err = e.ListReports(t.Context())
	if dstack.KindOf(err) != dstack.Unavailable || time.Since(began) > 11*time.Second {
		t.Errorf("after %v, the reports of a host without a cable are %v", time.Since(began), err)
	}
	h.unplug(t, false)
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err = copyLog(); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Errorf("with the cable back: %v", err)
	}
	for i, line := range got {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if len(got) != 150 {
		t.Errorf("%d lines of 150", len(got))
	}
}

// The stub answers as Docker 18.09 does: no engine as old as that can be had for this test.
func TestPingRemote_TooOld(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.39")
		if r.URL.Path != "/_ping" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer server.Close()
	_, err := docker.PingRemote(t.Context(), docker.Remote{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}})
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok || e.Kind != dstack.Unsupported || !strings.Contains(e.Message, "1.39") || e.Hint == "" {
		t.Errorf("an engine with API 1.39: %v", err)
	}
}

// What the connection's error says reaches the user, and never refuses an attempt for good.
func TestPingRemote_NotReached(t *testing.T) {
	_, err := docker.PingRemote(t.Context(), docker.Remote{Dial: func(context.Context) (net.Conn, error) {
		return nil, &dstack.Error{Kind: dstack.Unauthorized, Message: "host-1 refused the key", Hint: "add the key there"}
	}})
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok || e.Kind != dstack.Unavailable || e.Message != "host-1 refused the key" || e.Hint != "add the key there" {
		t.Errorf("a refused key: %+v", err)
	}
	const said = "dial unix /var/run/docker.sock: connect: permission denied" // which Docker's client would not pass on
	_, err = docker.PingRemote(t.Context(), docker.Remote{Dial: func(context.Context) (net.Conn, error) {
		return failingConn{&dstack.Error{Kind: dstack.Unavailable, Message: said}}, nil
	}})
	if e, ok := errors.AsType[*dstack.Error](err); !ok || e.Message != said {
		t.Errorf("a command that failed: %+v", err)
	}
}

// failingConn is the connection to a command that failed.
type failingConn struct{ err error }

func (c failingConn) Read([]byte) (int, error)         { return 0, c.err }
func (c failingConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c failingConn) Close() error                     { return nil }
func (c failingConn) LocalAddr() net.Addr              { return nil }
func (c failingConn) RemoteAddr() net.Addr             { return nil }
func (c failingConn) SetDeadline(time.Time) error      { return nil }
func (c failingConn) SetReadDeadline(time.Time) error  { return nil }
func (c failingConn) SetWriteDeadline(time.Time) error { return nil }
