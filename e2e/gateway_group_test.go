package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dstack/internal/api"
)

// gatewayGroup is the gateways of one project: the server itself, and processes that joined.
type gatewayGroup struct {
	*harness
	domain string
	ports  []int // of the server, and of the processes
	cmds   []*exec.Cmd
	logs   []*safeBuffer
}

// startGatewayGroup creates a gateway without certificates, and starts processes that serve it.
func (h *harness) startGatewayGroup(processes int) *gatewayGroup {
	h.t.Helper()
	g := &gatewayGroup{harness: h, domain: "apps.example.test", ports: []int{h.port}, cmds: []*exec.Cmd{h.cmd}, logs: []*safeBuffer{&h.log}}
	path := filepath.Join(h.home, "gateway.dstack.yml")
	h.writeFile(path, "type: gateway\nname: front\nbackend: external\ndomain: "+g.domain+"\ncertificate: null\n")
	h.runCLI("apply", "-f", path, "-y", "-d").expectExit(0)
	for i := range processes {
		var token api.GatewayToken
		h.runCLI("gateway", "token", "front", "-o", "json").expectExit(0).decode(&token)
		port, log := findFreePort(h.t), &safeBuffer{}
		cmd := h.newCommand(h.home, "gateway", "serve", "--server", h.serverURL(), "--token", token.Token, "--dir", filepath.Join(h.home, fmt.Sprint("gateway", i)),
			"--name", fmt.Sprint("edge-", i), "--gateway-host", "127.0.0.1", "--http-port", strconv.Itoa(port), "--https-port", strconv.Itoa(findFreePort(h.t)))
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			h.t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		h.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-done
			if h.t.Failed() {
				h.t.Logf("the log of gateway %d:\n%s", i, log.String())
			}
		})
		g.ports, g.cmds, g.logs = append(g.ports, port), append(g.cmds, cmd), append(g.logs, log)
	}
	return g
}

// address returns the URL of a run at one of the gateways.
func (g *gatewayGroup) address(gateway int, run, path string) string {
	domain := g.domain
	if gateway == 0 {
		domain = "localhost"
	}
	return fmt.Sprintf("http://%s.%s:%d%s", run, domain, g.ports[gateway], path)
}

// ask sends a request to one of the gateways; status 0: there was no response.
func (g *gatewayGroup) ask(gateway int, run, path, token string) response {
	res, err := g.sendRequest("GET", g.address(gateway, run, path), token, "")
	if err != nil {
		return response{body: err.Error()}
	}
	return res
}

// createKey creates a key for callers.
func (g *gatewayGroup) createKey(args ...string) string {
	g.t.Helper()
	var created api.CreatedKey
	g.runCLI(append([]string{"key", "create", "-o", "json"}, args...)...).expectExit(0).decode(&created)
	return created.Key
}

// waitUntilServed waits until each gateway serves a run.
func (g *gatewayGroup) waitUntilServed(run, token string) {
	g.t.Helper()
	for i := range g.ports {
		g.waitUntil(15*time.Second, fmt.Sprint("gateway ", i, " serves ", run), func() error {
			if a := g.ask(i, run, "/who", token); a.status != 200 {
				return fmt.Errorf("status %d: %s", a.status, a.body)
			}
			return nil
		})
	}
}

// TestKeysAndLimitsOfSeveralGateways checks on three gateways that a revoked key ends within a second, that a limit holds for
// all of them together, that requests which wait at any of them wake a service once, and that the death of one costs only what
// was in flight on it.
func TestKeysAndLimitsOfSeveralGateways(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(h.workloadConfig("web", "rate_limits: [{prefix: /size, rps: 10, burst: 5, key: {type: header, header: X-Caller}}]")))
	h.runCLIIn(h.newFolder(h.workloadConfig("sleepy", "replicas: 0..1", "scaling: {metric: rps, target: 10}")),
		"apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
	g := h.startGatewayGroup(2)
	key := g.createKey("caller", "--service", "web")
	g.waitUntilServed("web", key)
	t.Run("scope", func(t *testing.T) { g.checkScope(t, key) })
	t.Run("revocation", func(t *testing.T) { g.checkRevocation(t, key) })
	t.Run("wake", func(t *testing.T) { g.checkWake(t) })
	t.Run("limit", func(t *testing.T) { g.checkLimit(t) })
	t.Run("death", func(t *testing.T) { g.checkDeath(t) })
}

func (g *gatewayGroup) checkScope(t *testing.T, key string) {
	for i := range g.ports {
		if a := g.ask(i, "sleepy", "/", key); a.status != http.StatusForbidden {
			t.Errorf("gateway %d: another service answered %d", i, a.status)
		}
	}
	a, err := g.sendRequest("POST", g.serverURL()+"/api/runs/list", key, "{}")
	if err != nil || a.status != http.StatusForbidden {
		t.Errorf("the API answered %d %s, %v", a.status, a.body, err)
	}
}

func (g *gatewayGroup) checkRevocation(t *testing.T, key string) {
	streams := make([]*eventStream, len(g.ports))
	for i := range g.ports {
		s := &eventStream{started: make(chan struct{}), done: make(chan struct{})}
		streams[i] = s
		go func() {
			defer close(s.done)
			other := &harness{t: t, token: key}
			s.err = other.readStream(t.Context(), g.address(i, "web", "/sse?n=1000&ms=20"), s, sync.OnceFunc(func() { close(s.started) }))
		}()
		select {
		case <-s.started:
		case <-time.After(5 * time.Second):
			t.Fatalf("gateway %d: the stream does not begin", i)
		}
	}
	begin := time.Now()
	if a, err := g.sendRequest("POST", g.serverURL()+"/api/project/main/keys/revoke", g.token, `{"names": ["caller"]}`); err != nil || a.status != 200 {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	for i := range g.ports {
		for a := g.ask(i, "web", "/who", key); a.status != http.StatusUnauthorized; a = g.ask(i, "web", "/who", key) {
			if time.Since(begin) > time.Second {
				t.Fatalf("gateway %d answers %d %s after %s", i, a.status, a.body, time.Since(begin))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	t.Logf("refused by all after %s", time.Since(begin))
	for i, s := range streams {
		select {
		case <-s.done:
			if s.complete {
				t.Errorf("gateway %d: the stream went on to its end", i)
			}
		case <-time.After(time.Second):
			t.Errorf("gateway %d: the stream of the revoked key goes on", i)
		}
	}
	g.waitUntil(5*time.Second, "the list has the counts of all gateways", func() error {
		var keys []api.CallerKey
		g.runCLI("key", "list", "--all", "-o", "json").expectExit(0).decode(&keys)
		if len(keys) != 1 || keys[0].Status != api.KeyRevoked || keys[0].Requests < 6 || keys[0].Refused < 3 {
			return fmt.Errorf("it has %+v", keys)
		}
		return nil
	})
	var events []api.EventView
	g.runCLI("key", "events", "-o", "json").expectExit(0).decode(&events)
	if len(events) != 2 || events[1].Message != "key caller was revoked: services web" || events[1].User != "admin" {
		t.Errorf("the events are %+v", events)
	}
}

func (g *gatewayGroup) checkWake(t *testing.T) {
	pids := make(chan int, 6)
	for i := range 6 {
		go func() {
			var info workloadInfo
			a := g.ask(i%3, "sleepy", "/", g.token)
			if err := json.Unmarshal([]byte(a.body), &info); a.status != 200 || err != nil {
				t.Errorf("gateway %d: %d %s", i%3, a.status, a.body)
			}
			pids <- info.PID
		}()
	}
	first := <-pids
	for range 5 {
		if next := <-pids; next != first {
			t.Errorf("processes %d and %d answered", first, next)
		}
	}
}

func (g *gatewayGroup) checkLimit(t *testing.T) {
	count := func(seconds time.Duration, gateways []int) (passed int64) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), seconds)
		defer cancel()
		for _, i := range gateways {
			wg.Go(func() {
				for ctx.Err() == nil {
					req, err := http.NewRequestWithContext(ctx, "GET", g.address(i, "web", "/size"), nil)
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Authorization", "Bearer "+g.token)
					req.Header.Set("X-Caller", "one")
					res, err := client.Do(req)
					if err == nil {
						_ = res.Body.Close()
						if res.StatusCode == 200 {
							atomic.AddInt64(&passed, 1)
						}
					}
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		return passed
	}
	together, alone := count(1500*time.Millisecond, []int{0, 1, 2}), count(2*time.Second, []int{2})
	t.Logf("%d requests passed at three gateways, then %d at one", together, alone)
	if together < 14 || together > 38 { // each alone would let 21 pass
		t.Errorf("%d requests passed at three gateways in 1.5 seconds, want 21: 10 a second and a burst of 5", together)
	}
	if alone < 5 || alone > 26 {
		t.Errorf("%d requests passed at one gateway in the next two seconds, want 20 at most", alone)
	}
}

// checkDeath kills a gateway under traffic.
func (g *gatewayGroup) checkDeath(t *testing.T) {
	lost := make(chan response, 1)
	go func() { lost <- g.ask(1, "web", "/slow?ms=3000", g.token) }()
	stays := &eventStream{started: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(stays.done)
		stays.err = g.readStream(t.Context(), g.address(2, "web", "/sse?n=40&ms=20"), stays, sync.OnceFunc(func() { close(stays.started) }))
	}()
	select {
	case <-stays.started:
	case <-stays.done:
		t.Fatal(stays.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, i := range []int{0, 2} {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if a := g.ask(i, "web", "/who", g.token); a.status != 200 {
					t.Errorf("gateway %d, request %d: %d %s", i, n, a.status, a.body)
				}
			}
		})
	}
	if err := g.cmds[1].Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	if a := <-lost; a.status != 0 {
		t.Errorf("what was in flight on the killed gateway got %d", a.status)
	}
	<-stays.done
	if cancel(); stays.err != nil || !stays.complete {
		t.Errorf("the stream at another gateway: %v, %d events", stays.err, stays.lastEvent)
	}
	wg.Wait()
}
