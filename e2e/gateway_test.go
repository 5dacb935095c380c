package e2e

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// newGatewayHarness starts a server whose published ports are free ones. It returns the port for plain HTTP.
func newGatewayHarness(t *testing.T) (h *harness, httpPort int) {
	t.Helper()
	httpPort = findFreePort(t)
	h = newHarness(t, "process", fmt.Sprint("DSTACK_GATEWAY_HTTPS_PORT=", findFreePort(t)), fmt.Sprint("DSTACK_GATEWAY_HTTP_PORT=", httpPort), "DSTACK_GATEWAY_HOST=127.0.0.1")
	return h, httpPort
}

// TestGateway_FromFileToAddress types what a user does with a gateway of the server itself: its plan, the address of a service,
// a change of the domain while a stream is open, a second gateway, and the deletion.
func TestGateway_FromFileToAddress(t *testing.T) {
	runParallel(t)
	h, port := newGatewayHarness(t)
	dir := h.newFolderWith("gateway.dstack.yml", "type: gateway\nname: front-door\nbackend: local\ndomain: '*.one.localhost'\ncertificate: null\n")
	h.runCLIIn(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0).expectText(fmt.Sprintf("services http://<run>.one.localhost:%d", port), "front-door is running")
	h.runCLIIn(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0).expectText("nothing changed")
	view := h.applyAndWait(h.newFolder(h.workloadConfig("notes")))
	at := func(domain, path string) string { return fmt.Sprintf("http://notes.%s:%d%s", domain, port, path) }
	if view.URL != at("one.localhost", "/") || view.Publication.Missing != "" {
		t.Errorf("the service is at %s, %+v", view.URL, view.Publication)
	}
	h.expectStatus(view.URL, 200)

	stream := h.openResponse(t.Context(), at("one.localhost", "/events?n=20&ms=100"))
	defer stream.Body.Close()
	began := time.Now()
	h.runCLI("gateway", "update", "front-door", "--domain", "two.localhost").expectExit(0).expectText("services are now below two.localhost")
	h.waitUntil(10*time.Second, "the service at the new domain", func() error {
		if got := h.findRun("notes").URL; got != at("two.localhost", "/") {
			return fmt.Errorf("it is at %s", got)
		}
		return nil
	})
	h.expectStatus(at("two.localhost", "/"), 200)
	h.expectStatus(at("one.localhost", "/"), 200) // for another hour
	events := 0
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			events++
		}
	}
	if events != 20 {
		t.Errorf("%d of 20 events arrived over the change of the domain, in %s", events, time.Since(began))
	}

	h.runCLI("gateway", "create", "other", "--domain", "two.localhost").expectExit(1).expectText("the domain two.localhost belongs to the gateway front-door")
	h.runCLI("gateway", "create", "other", "--domain", "three.localhost", "--certificate", "none").expectExit(0)
	named := h.newFolder(h.workloadConfig("named") + "gateway: other\n")
	other := h.applyAndWait(named)
	if want := fmt.Sprintf("http://named.three.localhost:%d/", port); other.URL != want {
		t.Errorf("a service that names its gateway is at %s, not %s", other.URL, want)
	}
	h.expectStatus(other.URL, 200)
	h.expectStatus(at("three.localhost", "/"), 200) // a service that names none is at all gateways
	h.expectStatus(fmt.Sprintf("http://named.two.localhost:%d/", port), 404)
	h.runCLI("gateway", "delete", "other", "-y").expectExit(1).expectText("it is named by named")
	var left []api.GatewayView
	h.runCLI("gateway", "delete", "front-door", "-y").expectExit(0).expectText("no default gateway now")
	if h.runCLI("gateway", "list", "-o", "json").expectExit(0).decode(&left); len(left) != 1 || left[0].Name != "other" || len(left[0].Processes) != 1 {
		t.Errorf("left is %+v", left)
	}
	if got := h.findRun("notes").URL; got != h.serviceURL("notes", "/") {
		t.Errorf("without a default gateway, the service is at %s", got)
	}
}

// TestGateway_PublishedClients types the gateway commands of both published clients.
func TestGateway_PublishedClients(t *testing.T) {
	runParallel(t)
	needPublishedClient(t)
	needNewestClient(t)
	h, _ := newGatewayHarness(t)
	old, newest := newPublishedClient(h), newNewestClient(h)
	file := func(name, backend, region string) string {
		return h.newFolderWith("gateway.dstack.yml", fmt.Sprintf("type: gateway\nname: %s\nbackend: %s\nregion: %s\ndomain: %s.localhost\ncertificate: null\n", name, backend, region, name))
	}
	dir := file("old", "local", "here")
	old.run(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0).expectText("old.localhost", "submitted")
	old.run(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0).expectText("Gateway configuration has not changed")
	old.run(dir, "gateway", "update", "old", "--domain", "*.older.localhost", "--set-default").expectExit(0).expectText("older.localhost", "✓")
	old.run(dir, "gateway", "create", "--backend", "aws", "--region", "eu-west-1", "--domain", "x.example").expectExit(1).expectText("gateways of the backend aws", "write backend: local")

	dir = file("new", "remote", "local")
	newest.run(dir, "apply", "-f", "gateway.dstack.yml", "-y", "-d").expectExit(0).expectText("Gateway new does not exist yet", "Gateway configuration submitted")
	newest.run(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0).expectText("No configuration changes detected")
	newest.run(dir, "gateway", "update", "new", "--set-default").expectExit(0).expectText("new.localhost", "✓")
	newest.run(dir, "gateway", "get", "new", "--json").expectExit(0).expectText(`"wildcard_domain": "new.localhost"`, `"default": true`)
	newest.run(dir, "gateway", "list", "--json").expectExit(0).expectText(`"name":"old"`, `"name":"new"`)
	newest.run(dir, "gateway", "delete", "new", "-y").expectExit(0).expectText("Gateway deleted")
	newest.run(dir, "gateway", "delete", "new", "-y").expectExit(1).expectText("Resource not found")
	old.run(dir, "gateway", "list", "-v").expectExit(0).expectText("older.localhost", "running")
	old.run(dir, "gateway", "delete", "old", "-y").expectExit(0).expectText("Gateway deleted")
}
