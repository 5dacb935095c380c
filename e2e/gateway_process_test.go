package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
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

// gatewayHost is a machine that serves a gateway: a process with a folder and ports of its own.
type gatewayHost struct {
	h                   *harness
	dir                 string
	httpPort, httpsPort int
	cmd                 *exec.Cmd
	done                chan struct{}
	log                 safeBuffer
}

func (h *harness) newGatewayHost(name string) *gatewayHost {
	h.t.Helper()
	g := &gatewayHost{h: h, dir: filepath.Join(h.home, name), httpPort: findFreePort(h.t), httpsPort: findFreePort(h.t)}
	h.t.Cleanup(func() {
		g.end(syscall.SIGKILL)
		if h.t.Failed() {
			h.t.Logf("the log of %s:\n%s", name, g.log.String())
		}
	})
	return g
}

// start starts the process with further arguments.
func (g *gatewayHost) start(args ...string) {
	g.h.t.Helper()
	g.cmd = g.h.newCommand(g.h.home, append([]string{"gateway", "serve", "--dir", g.dir, "--name", filepath.Base(g.dir), "--gateway-host", "127.0.0.1",
		"--http-port", strconv.Itoa(g.httpPort), "--https-port", strconv.Itoa(g.httpsPort)}, args...)...)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		g.h.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), g.cmd
	g.done = done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// end ends the process with a signal, and waits for that.
func (g *gatewayHost) end(sig syscall.Signal) {
	if g.done == nil {
		return
	}
	_ = g.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-g.done:
	case <-time.After(20 * time.Second):
		g.h.t.Errorf("the gateway process did not end within 20s of signal %v", sig)
	}
}

// get sends a request for a name below the gateway's domain, over https, on a connection of its own.
func (g *gatewayHost) get(host, path, token string) (status int, body string, err error) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(g.httpsPort))
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}}}
	request, err := http.NewRequest(http.MethodGet, "https://"+host+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// waitForStatus waits until a request gets a status.
func (g *gatewayHost) waitForStatus(host, token string, want int) {
	g.h.t.Helper()
	g.h.waitUntil(20*time.Second, fmt.Sprintf("%s answers %d for %s", g.dir, want, host), func() error {
		status, body, err := g.get(host, "/who", token)
		if err == nil && status != want {
			err = fmt.Errorf("status %d: %s", status, body)
		}
		return err
	})
}

// expectStatus sends a request, which must succeed at once.
func (g *gatewayHost) expectStatus(host, token string, want int) {
	g.h.t.Helper()
	if status, body, err := g.get(host, "/who", token); err != nil || status != want {
		g.h.t.Errorf("%s for %s: status %d, want %d: %s %v", g.dir, host, status, want, body, err)
	}
}

func (h *harness) newGatewayToken(gateway string) string {
	h.t.Helper()
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(h.runCLI("gateway", "token", gateway, "-o", "json").expectExit(0).out), &token); err != nil {
		h.t.Fatal(err)
	}
	return token.Token
}

// Two processes serve a gateway. The server is killed, one process is killed and started again, and everything that they
// know goes on. Later they hear of what changed meanwhile.
func TestGatewayProcess_ServesWithoutTheServer(t *testing.T) {
	h := newParallelHarness(t, "process")
	gateway := h.newFolderWith("gateway.dstack.yml", "type: gateway\nname: edge\nbackend: external\ndomain: edge.example.com\ncertificate: {type: internal}\n")
	h.runCLIIn(gateway, "apply", "-f", "gateway.dstack.yml", "-y", "-d").expectExit(0)
	h.applyAndWait(h.newFolder(h.workloadConfig("answers")))
	a, b := h.newGatewayHost("a"), h.newGatewayHost("b")
	token := h.newGatewayToken("edge")
	a.start("--server", h.serverURL(), "--token", token)
	b.start("--server", h.serverURL(), "--token", h.newGatewayToken("edge"))
	const host = "answers.edge.example.com"
	a.waitForStatus(host, h.token, http.StatusOK)
	b.waitForStatus(host, h.token, http.StatusOK)
	a.expectStatus(host, "", http.StatusUnauthorized)

	second := h.newGatewayHost("second")
	second.start("--server", h.serverURL(), "--token", token)
	second.waitForEnd(1, "this token was used already")

	h.killServer()
	a.end(syscall.SIGKILL)
	b.expectStatus(host, h.token, http.StatusOK)
	a.start()
	a.waitForStatus(host, h.token, http.StatusOK)
	a.expectStatus(host, "dst_wrong", http.StatusUnauthorized)
	a.expectStatus("nothing.edge.example.com", h.token, http.StatusNotFound)

	h.startServer()
	old := h.token
	h.runCLI("server", "token", "--rotate").expectExit(0)
	h.token = h.readToken()
	for _, g := range []*gatewayHost{a, b} {
		g.waitForStatus(host, old, http.StatusUnauthorized)
		g.waitForStatus(host, h.token, http.StatusOK)
	}
	h.waitUntil(10*time.Second, "the counts of both processes and of the killed one are told", func() error {
		if m := h.fetchRun("answers").Metrics; m == nil || m.Requests < 4 {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
	h.runCLI("gateway", "delete", "edge", "-y").expectExit(0)
	a.waitForEnd(1, "was removed from the gateway edge, or the gateway was deleted")
	b.waitForEnd(1, "dstack gateway token")
}

// waitForEnd waits until the process has ended by itself.
func (g *gatewayHost) waitForEnd(exit int, message string) {
	g.h.t.Helper()
	select {
	case <-g.done:
	case <-time.After(20 * time.Second):
		g.h.t.Fatalf("%s did not end:\n%s", g.dir, g.log.String())
	}
	if got := g.cmd.ProcessState.ExitCode(); got != exit || !strings.Contains(g.log.String(), message) {
		g.h.t.Errorf("%s ended with %d, want %d and %q:\n%s", g.dir, got, exit, message, g.log.String())
	}
}
