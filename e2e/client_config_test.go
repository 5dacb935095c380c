package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// newServerBeside returns a harness of another server of the same user: the same home,
// another folder. Its server has not been started.
func (h *harness) newServerBeside() *harness {
	h.t.Helper()
	other := &harness{t: h.t, engine: h.engine, home: h.home, serverDir: filepath.Join(h.t.TempDir(), "server"), port: findFreePort(h.t),
		token: "unused", cleanUpTimeout: time.Minute}
	h.t.Cleanup(other.stopServerIfRunning)
	return other
}

func (h *harness) stopServerIfRunning() {
	if h.isRunning() {
		h.stopServer()
	}
}

// startPlainServer starts the server as a user does, without --default, and waits until it
// has printed its start message.
func (h *harness) startPlainServer(args ...string) {
	h.t.Helper()
	seen := len(h.log.String())
	h.serverArgs = append([]string{"--port", strconv.Itoa(h.port)}, args...)
	h.startServer()
	h.waitUntil(5*time.Second, "the server has printed its start message", func() error {
		if text := h.log.String()[seen:]; !strings.Contains(text, "local machine") {
			return os.ErrNotExist
		}
		return nil
	})
}

// TestClientConfig_SurvivesOtherServers starts servers on other ports and in other folders
// from one home, as a new user does.
func TestClientConfig_SurvivesOtherServers(t *testing.T) {
	runParallel(t)
	h := newStoppedHarness(t, "process")
	h.startPlainServer()
	h.runCLI("ps").expectExit(0)

	// The same installation on another port.
	h.stopServer()
	h.runCLI("ps").expectError(1, "cannot reach", "dstack server --port "+strconv.Itoa(h.port))
	h.port = findFreePort(t)
	h.startPlainServer()
	h.runCLI("ps").expectExit(0)
	h.runCLI("config").expectExit(0).expectText(h.serverURL()).expectNoText("main-2")

	// A second server beside it, with a home without its own entry.
	beside := h.newServerBeside()
	beside.startPlainServer()
	beside.waitForText("dstack config --project main-2 --default")
	h.runCLI("config").expectExit(0).expectText("main-2 (project main)", beside.serverURL(), h.serverURL())
	h.runCLI("ps").expectExit(0)
	h.runCLI("ps", "--project", "main-2").expectExit(0)
	first := strings.TrimSpace(h.runCLI("server", "token").expectExit(0).out)
	if second := strings.TrimSpace(beside.runCLI("server", "token").expectExit(0).out); first != h.token || second == first || second == "" {
		t.Errorf("the tokens are %q and %q", first, second)
	}
	h.runCLI("config", "--project", "main-2", "--default").expectExit(0)
	beside.stopServer()
	h.runCLI("ps").expectError(1, beside.serverURL(), "--port "+strconv.Itoa(beside.port))
	h.runCLI("config", "--project", "main", "--default").expectExit(0)

	// A folder that is removed and comes back, on the same port.
	h.stopServer()
	fresh := h.newServerBeside()
	fresh.port = h.port
	fresh.startPlainServer()
	h.runCLI("ps").expectExit(0)
	h.runCLI("config").expectExit(0).expectText("main-3")
	fresh.stopServer()
	h.startPlainServer()
	h.runCLI("ps").expectExit(0)
	if again := strings.TrimSpace(h.runCLI("server", "token").expectExit(0).out); again != first {
		t.Errorf("the token of the first server is %q, and was %q", again, first)
	}
}

// waitForText waits until the server has printed a text.
func (h *harness) waitForText(text string) {
	h.t.Helper()
	h.waitUntil(5*time.Second, "the server prints "+text, func() error {
		if !strings.Contains(h.log.String(), text) {
			return os.ErrNotExist
		}
		return nil
	})
}

// TestServerToken loses the admin's token and gets back in.
func TestServerToken(t *testing.T) {
	runParallel(t)
	h := newStoppedHarness(t, "process")
	h.runCLI("server", "token").expectError(1, "there is no server's data in "+h.serverDir)
	h.startPlainServer()
	for _, name := range []string{"config.yml", "servers.yml"} {
		if err := os.Remove(filepath.Join(h.home, ".dstack", name)); err != nil {
			t.Fatal(err)
		}
	}
	h.stopServer()
	h.startPlainServer()
	h.waitForText("dstack server token")
	h.runCLI("ps").expectError(2, "no server is configured")
	h.runCLI("server", "token").expectError(1, "dstack server token --rotate")
	lost := h.token
	h.token = strings.TrimSpace(h.runCLI("server", "token", "--rotate").expectExit(0).expectText("old one has ended", "config.yml").out)
	h.runCLI("ps").expectExit(0)
	if a := h.expectResponse("POST", h.serverURL()+"/api/users/get_my_user", lost, "", 403); !strings.Contains(a.body, "Invalid token") {
		t.Errorf("the lost token: %s", a.body)
	}
	if got := strings.TrimSpace(h.runCLI("server", "token").expectExit(0).out); got != h.token || got == lost {
		t.Errorf("the token is %q, want %q", got, h.token)
	}
	if found := h.findFilesWith(h.token); len(found) > 0 {
		t.Errorf("the token is in %v", found)
	}
}

// TestTokenFile starts servers with tokens of the operator.
func TestTokenFile(t *testing.T) {
	runParallel(t)
	h := newStoppedHarness(t, "process")
	port := strconv.Itoa(h.port)
	h.runCLI("server", "--port", port, "--token", "short").expectError(2, "--token has 5 characters", "at least 32")
	h.extraEnv = []string{"DSTACK_SERVER_ADMIN_TOKEN=short"}
	h.runCLI("server", "--port", port).expectError(2, "DSTACK_SERVER_ADMIN_TOKEN has 5 characters")
	h.extraEnv = nil
	h.runCLI("server", "--port", port, "--token-file", "nowhere").expectError(2, "cannot read nowhere")
	h.runCLI("server", "--port", port, "--token-file", "x", "--token", "y").expectError(2, "do not go together")
	file := filepath.Join(h.home, "token")
	const chosen = "chosen-by-hand-0123456789-0123456789"
	h.writeFile(file, chosen+"\n")
	h.startPlainServer("--token-file", file)
	h.waitForText("the one that you set")
	if h.token != chosen {
		t.Errorf("the token is %q", h.token)
	}
	if text := h.log.String(); strings.Contains(text, chosen) || !strings.Contains(text, "chmod 600 "+file) {
		t.Errorf("the server prints its token, or does not warn:\n%s", text)
	}
	h.runCLI("ps").expectExit(0)
}
