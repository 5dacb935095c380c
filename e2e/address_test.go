package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// modelLines make the workload a model for runChatClient.
const modelLines = "model: {type: chat, name: smollm2, format: openai}"

// TestAddresses_WorkAsPrinted types everything that `apply` prints, as readers at
// several addresses of the server: with curl, and with OpenAI's clients.
func TestAddresses_WorkAsPrinted(t *testing.T) {
	runParallel(t)
	python, node := needPiece(t, "python", "DSTACK_TEST_PYTHON"), needPiece(t, "node", "DSTACK_TEST_NODE")
	h := newHarness(t, "process", "DSTACK_SERVER_HOST=0.0.0.0")
	dir := h.newFolder(h.workloadConfig("web", modelLines, "auth: false"))
	h.applyAndWait(dir)
	script := filepath.Join(node, "chat.mjs") // beside its node_modules
	h.copyFile("clients/chat.mjs", script)
	for _, host := range []string{"127.0.0.1", "localhost", "127.0.0.2", otherAddress()} {
		t.Run(host, func(t *testing.T) {
			reader := &reader{harness: h.withT(t), server: fmt.Sprintf("http://%s:%d", host, h.port)}
			printed := reader.apply(dir)
			if want := reader.server + "/v1"; printed.models != want {
				t.Errorf("the base URL is %s, want %s", printed.models, want)
			}
			services := []string{reader.server + "/proxy/services/main/web/"}
			if isLoopback := host == "localhost" || strings.HasPrefix(host, "127."); isLoopback {
				services = append([]string{fmt.Sprintf("http://web.localhost:%d/", h.port)}, services...)
			}
			reader.checkServices(printed, services)
			reader.typeCall(printed)
			runChatClient(t, python, "clients/chat.py", printed.models, h.token)
			runChatClient(t, "node", script, printed.models, h.token)
		})
	}
}

// TestAddresses_PublicURL does the same through a proxy with TLS, at the URL of
// DSTACK_SERVER_URL.
func TestAddresses_PublicURL(t *testing.T) {
	runParallel(t)
	python := needPiece(t, "python", "DSTACK_TEST_PYTHON")
	front := startTLSFront(t, "dstack.example.com", "*.dstack.example.com")
	h := newStoppedHarness(t, "process", append(front.env(), "DSTACK_SERVER_URL=https://dstack.example.com")...)
	front.server.Store(h.serverURL())
	h.startServer()
	dir := h.newFolder(h.workloadConfig("web", modelLines))
	h.applyAndWait(dir) // at the URL that the server saved for the command line
	reader := &reader{harness: h, server: "https://dstack.example.com"}
	printed := reader.apply(dir)
	if want := "https://dstack.example.com/v1"; printed.models != want {
		t.Errorf("the base URL is %s, want %s", printed.models, want)
	}
	reader.checkServices(printed, []string{"https://web.dstack.example.com/", "https://dstack.example.com/proxy/services/main/web/"})
	reader.typeCall(printed)
	runChatClient(t, python, "clients/chat.py", printed.models, h.token, front.env()...)
	runChatClient(t, python, "clients/chat.py", "https://gateway.dstack.example.com/v1", h.token, front.env()...)
}

// reader is a user who reaches the server at a URL.
type reader struct {
	*harness
	server string
}

// printedAddresses is what `apply` prints about a run with a model.
type printedAddresses struct {
	services []string
	models   string // the base URL
	call     string // the command
}

// run runs a command of the reader.
func (r *reader) run(dir, name string, args ...string) (stdout, stderr string) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(r.buildEnv(), "DSTACK_URL="+r.server, "DSTACK_TOKEN="+r.token)
	var out, errOut safeBuffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return out.String(), errOut.String()
}

// apply applies the configuration, and reads the addresses that are printed.
func (r *reader) apply(dir string) printedAddresses {
	r.t.Helper()
	out, errOut := r.run(dir, dstackBinary, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m")
	var p printedAddresses
	for line := range strings.Lines(out) {
		switch words := strings.Fields(line); {
		case len(words) == 2 && (words[0] == "service" || words[0] == "or"):
			p.services = append(p.services, words[1])
		case len(words) == 4 && words[0] == "model":
			p.models = words[3]
		}
	}
	if i := strings.Index(errOut, "curl "); i >= 0 {
		p.call = errOut[i:]
	}
	if p.models == "" || p.call == "" {
		r.t.Fatalf("apply printed:\n%s%s", out, errOut)
	}
	views, _ := r.run(dir, dstackBinary, "ps", "-v")
	for _, address := range []string{p.services[0], p.models} {
		if !strings.Contains(views, address) {
			r.t.Errorf("ps -v does not print %s:\n%s", address, views)
		}
	}
	return p
}

// checkServices checks the addresses of the service, and calls it at each.
func (r *reader) checkServices(p printedAddresses, want []string) {
	r.t.Helper()
	if strings.Join(p.services, " ") != strings.Join(want, " ") {
		r.t.Errorf("the service is at %s, want %s", p.services, want)
	}
	for _, address := range p.services {
		out, _ := r.run(r.home, "curl", "-sS", "--fail-with-body", "-H", "Authorization: Bearer "+r.token, address)
		if !strings.Contains(out, `"path":"/"`) {
			r.t.Errorf("%s: %s", address, out)
		}
	}
}

// typeCall runs the command that calls the model, in a shell.
func (r *reader) typeCall(p printedAddresses) {
	r.t.Helper()
	for _, call := range []string{p.call, strings.Replace(p.call, "/chat/completions", "/chat/completions/", 1)} {
		if out, _ := r.run(r.home, "sh", "-c", call); !strings.Contains(out, "chat.completion") {
			r.t.Errorf("%s\n%s", call, out)
		}
	}
}

// otherAddress returns an address of this machine that is not loopback, or a
// loopback address without one.
func otherAddress() string {
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			return network.IP.String()
		}
	}
	return "127.0.0.3"
}
