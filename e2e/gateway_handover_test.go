package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTakeOver_GatewayProcess replaces a gateway process again and again, under streams and new connections over TLS. Nothing
// is refused or cut, the last replacement happens while no server answers, and the process that was replaced ends.
func TestTakeOver_GatewayProcess(t *testing.T) {
	streamCount, events, rounds := 20, 30, 3
	if isLongRun() {
		streamCount, events, rounds = 500, 300, 10
	}
	h := newParallelHarness(t, "process")
	certificate, root := newCertificate(t, []string{"*.apps.test"})
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h.writeFile(filepath.Join(dir, "cert.pem"), string(root))
	h.writeFile(filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	h.writeFile(filepath.Join(dir, "gateway.dstack.yml"), fmt.Sprintf(
		"type: gateway\nname: front\nbackend: external\ndomain: apps.test\ncertificate:\n  type: files\n  cert: %s/cert.pem\n  key: %s/key.pem\n", dir, dir))
	h.runCLI("apply", "-f", filepath.Join(dir, "gateway.dstack.yml"), "-y").expectExit(0)
	h.applyAndWait(h.newFolder(h.workloadConfig("answers", "gateway: front")))

	g := &gatewayProcess{h: h, dir: filepath.Join(dir, "state"), https: findFreePort(t), http: findFreePort(t)}
	g.supervisor = listenAsSupervisor(t)
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(h.runCLI("gateway", "token", "front", "-o", "json").expectExit(0).out), &token); err != nil {
		t.Fatal(err)
	}
	g.start("--server", h.serverURL(), "--token", token.Token)
	t.Cleanup(g.kill)
	g.supervisor.waitFor("READY=1\nSTATUS=serving")
	g.client = newGatewayClient(t, root, g.https)
	h.waitUntil(10*time.Second, "the gateway answers", func() error { return g.send() })

	streams := make(chan error, streamCount)
	for range streamCount {
		go func() { streams <- g.readEvents(events) }()
	}
	stop, requests := make(chan struct{}), make(chan error, 1)
	go func() { requests <- g.sendUntil(stop) }()
	var ended []<-chan struct{}
	for i := range rounds {
		if i == rounds-1 {
			h.stopServer()
		}
		ended = append(ended, g.done)
		g.start("--take-over")
		g.supervisor.waitFor(fmt.Sprintf("READY=1\nMAINPID=%d", g.cmd.Process.Pid))
		g.supervisor.waitFor("READY=1\nSTATUS=serving")
	}
	for range streamCount {
		if err := <-streams; err != nil {
			t.Errorf("a stream: %v", err)
		}
	}
	close(stop)
	if err := <-requests; err != nil {
		t.Errorf("a request over the replacements: %v", err)
	}
	for i, done := range ended {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("replaced process %d goes on", i)
		}
	}
	t.Logf("%d requests over %d replacements", g.requests, rounds)
	if t.Failed() {
		t.Logf("the log of the gateway processes:\n%s", g.log.String())
	}
}

// gatewayProcess is a process of `dstack gateway serve`, and then the one that has replaced it.
type gatewayProcess struct {
	h           *harness
	dir         string
	https, http int
	supervisor  *testSupervisor
	client      *http.Client
	cmd         *exec.Cmd
	done        chan struct{}
	log         safeBuffer
	requests    int
}

func (g *gatewayProcess) start(args ...string) {
	g.h.t.Helper()
	args = append([]string{"gateway", "serve", "--dir", g.dir, "--gateway-host", "127.0.0.1", "--https-port", strconv.Itoa(g.https),
		"--http-port", strconv.Itoa(g.http), "-l", "INFO"}, args...)
	cmd, done := exec.Command(dstackBinary, args...), make(chan struct{})
	cmd.Env = append(g.h.buildEnv(), "NOTIFY_SOCKET="+g.supervisor.path)
	cmd.Stdout, cmd.Stderr = &g.log, &g.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		g.h.t.Fatal(err)
	}
	g.cmd, g.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

func (g *gatewayProcess) kill() {
	_ = g.cmd.Process.Kill()
	<-g.done
}

// newGatewayClient returns a client that connects to a port of this machine anew for each request, and trusts one authority.
func newGatewayClient(t *testing.T, root []byte, port int) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		t.Fatal("no certificate")
	}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		},
	}}
}

// open sends a request to the service at its name.
func (g *gatewayProcess) open(path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(g.h.t.Context(), "GET", fmt.Sprintf("https://answers.apps.test:%d%s", g.https, path), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.h.token)
	res, err := g.client.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		res.Body.Close()
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	return res, err
}

func (g *gatewayProcess) send() error {
	res, err := g.open("/who")
	if err == nil {
		res.Body.Close()
	}
	return err
}

// sendUntil sends requests until stop, and returns the first failure.
func (g *gatewayProcess) sendUntil(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(5 * time.Millisecond):
		}
		g.requests++
		if err := g.send(); err != nil {
			return fmt.Errorf("request %d: %w", g.requests, err)
		}
	}
}

// readEvents reads a stream of n events, 100 ms apart.
func (g *gatewayProcess) readEvents(n int) error {
	res, err := g.open(fmt.Sprintf("/sse?n=%d&ms=100", n))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if got := strings.Count(string(text), "id: "); got != n || !strings.Contains(string(text), "event: end") {
		return fmt.Errorf("%d of %d events", got, n)
	}
	return nil
}
