package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/spec"
)

func TestHeld_LimitsOfTheConfiguration(t *testing.T) {
	open := publicRoute("open")
	open.Rules.Hold = spec.Hold{Requests: 1, Timeout: 1}
	r := startGateway(t, gateway.Limits{MaxHeld: 5, HoldTimeout: time.Minute}, open)
	began := time.Now()
	done := make(chan response, 1)
	go func() { done <- r.get("http://open.localhost/") }()
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	if got := r.get("http://open.localhost/"); got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" || !strings.Contains(got.body, "the queue for it is full") {
		t.Errorf("second of one: %d %s", got.StatusCode, got.body)
	}
	if got := <-done; got.StatusCode != 503 || time.Since(began) < time.Second || time.Since(began) > 10*time.Second {
		t.Errorf("after %s: %d %s", time.Since(began), got.StatusCode, got.body)
	}
}

func TestHeld_StoppingRun(t *testing.T) {
	ends, lives := modelRoute("llama31", "org/m"), modelRoute("b", "org/m")
	ends.IsStopping, lives.Since = true, 2
	r := startGateway(t, gateway.Limits{}, ends)
	got := r.sendChat(`{"model":"org/m"}`)
	if got.StatusCode != 503 || got.Header.Get("Retry-After") != "" || got.Header.Get("X-Should-Retry") != "false" || !strings.Contains(got.body, "llama31 is being stopped") {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
	up := startReplica(t, 0, serveHello)
	ends.Ready = []route.Target{up}
	r.plane.setRoutes(ends)
	waitUntil(t, "what is still ready is still used", func() bool { return r.sendChat(`{"model":"org/m"}`).StatusCode == 200 })

	ends.Ready = nil
	r.plane.setRoutes(ends, lives)
	waitUntil(t, "the new table", func() bool { _, ok := r.gateway.Load()["run-b"]; return ok })
	done := make(chan response, 1)
	go func() { done <- r.sendChat(`{"model":"org/m"}`) }()
	waitUntil(t, "it waits for the other run", func() bool { return r.gateway.Load()["run-b"].Held == 1 })
	lives.IsStopping = true
	r.plane.setRoutes(ends, lives)
	if got := <-done; got.StatusCode != 503 || !strings.Contains(got.body, "being stopped") {
		t.Errorf("when that ends, too: %d %s", got.StatusCode, got.body)
	}
}

// A request for a shared model waits for the run that is nearest to a ready
// replica: a starting one, else a sleeping one, never one that gets no replica.
func TestHeld_SharedModel(t *testing.T) {
	never, ends, sleeps, starts := modelRoute("never", "org/m"), modelRoute("ends", "org/m"), modelRoute("sleeps", "org/m"), modelRoute("starts", "org/m")
	never.NeverServes, ends.IsStopping, sleeps.IsSleeping = true, true, true
	for name, c := range map[string]struct {
		waits  string
		routes []route.Route
	}{
		"one sleeps":          {"sleeps", []route.Route{never, ends, sleeps}},
		"one starts":          {"starts", []route.Route{never, ends, sleeps, starts}},
		"one of two that may": {"starts", []route.Route{starts, sleeps}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.routes {
				c.routes[i].Since = int64(i + 1)
			}
			r := startGateway(t, gateway.Limits{HoldTimeout: 50 * time.Millisecond}, c.routes...)
			if got := r.sendChat(`{"model":"org/m"}`); got.StatusCode != 503 || !strings.Contains(got.body, c.waits+" is not ready") {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
			run := dstack.RunID("run-" + c.waits)
			waitUntil(t, "the run that it waits for is reported", func() bool { c, _ := r.plane.lastReport(); return c.Runs[run].Requests == 1 })
		})
	}
}

func TestHeld_RunThatNeverServes(t *testing.T) {
	never := publicRoute("open")
	never.NeverServes, never.State = true, "it has no replicas: its configuration says replicas: 0"
	r := startGateway(t, gateway.Limits{}, never)
	got := r.get("http://open.localhost/")
	if got.StatusCode != 503 || got.Header.Get("Retry-After") != "" || got.Header.Get("X-Should-Retry") != "false" || !strings.Contains(got.body, "open is not ready: it has no replicas: its configuration says replicas: 0") {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
	never.Ready = []route.Target{startReplica(t, 0, serveHello)}
	r.plane.setRoutes(never)
	waitUntil(t, "what is still ready is still used", func() bool { return r.get("http://open.localhost/").StatusCode == 200 })
}

func TestHeld_Bytes(t *testing.T) {
	r := startGateway(t, gateway.Limits{HeldBytes: 1 << 20}, modelRoute("m", "org/m"))
	ask := func(ctx context.Context, size int) <-chan int {
		body := `{"model":"org/m","user":"` + strings.Repeat("x", size) + `"}`
		done := make(chan int, 1)
		go func() {
			res, err := r.client.Do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(body), withToken(member)...).WithContext(ctx))
			if err != nil {
				done <- 0
				return
			}
			res.Body.Close()
			done <- res.StatusCode
		}()
		return done
	}
	held := func(n int) {
		t.Helper()
		waitUntil(t, fmt.Sprint(n, " held"), func() bool { return r.gateway.Load()["run-m"].Held == n })
	}
	ctx, cancel := context.WithCancel(t.Context())
	alone := ask(ctx, 2<<20) // larger than the limit, but alone
	held(1)
	if got := <-ask(t.Context(), 100); got != 503 {
		t.Errorf("beside a large one: %d", got)
	}
	cancel()
	<-alone
	held(0)
	ctx, cancel = context.WithCancel(t.Context())
	var all []<-chan int
	for i := range 3 {
		all = append(all, ask(ctx, 300<<10))
		held(i + 1)
	}
	got := r.sendChat(`{"model":"org/m","user":"` + strings.Repeat("x", 300<<10) + `"}`)
	if got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" || !strings.Contains(got.body, "the waiting requests use all 1MB allowed") {
		t.Errorf("the fourth: %d %s", got.StatusCode, got.body)
	}
	cancel()
	for _, done := range all {
		<-done
	}
	held(0)
}

// Five replicas get the held requests in turn, and respond once all requests are
// there: so the replica of a request shows its position in the queue.
func TestHeld_InOrder(t *testing.T) {
	const n = 500
	var arrived atomic.Int64
	all := make(chan struct{})
	var ready []route.Target
	for i := range 5 {
		ready = append(ready, startReplica(t, i, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if arrived.Add(1) == n {
				close(all)
			}
			<-all
			io.WriteString(w, strconv.Itoa(i))
		}))
	}
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m"))
	got := make([]string, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			if said := r.sendChat(`{"model":"org/m"}`); said.StatusCode == 200 {
				got[i] = said.body
			}
		})
		waitUntil(t, "the next to wait", func() bool { return r.gateway.Load()["run-m"].Held == i+1 })
	}
	r.plane.setRoutes(modelRoute("m", "org/m", ready...))
	clients.Wait()
	for i := range n {
		if got[i] != strconv.Itoa(i%5) {
			t.Fatalf("request %d was answered %q", i, got[i])
		}
	}
	if load := r.gateway.Load()["run-m"]; load.Held != 0 || load.Accepted != n {
		t.Errorf("%+v", load)
	}
}

// inUse returns the bytes of the live heap.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// Requests that wait for a model without a replica take little memory, however
// many arrive at once. The clients are in this process, too: they write from one
// body, without Go's client and its buffers.
func TestHeld_Memory(t *testing.T) {
	clients, most := int64(500), int64(64<<20)
	const fit = 12           // bodies of nearly a MiB in the 12 MiB that may wait
	if gateway.RaceEnabled { // memory cannot be measured
		clients, most = 100, 1<<30
	}
	body := []byte(`{"model":"org/m","user":"` + strings.Repeat("x", 1_000_000) + `"}`)
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m"))
	before := inUse()
	var served, refused, other atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			switch status := r.sendRaw(body); status {
			case 200:
				served.Add(1)
			case 503:
				refused.Add(1)
			default:
				other.Add(1)
			}
		})
	}
	var peak uint64
	var looked time.Time
	waitUntil(t, "all but those that fit are refused", func() bool {
		if time.Since(looked) > 20*time.Millisecond { // collecting all the time would empty the pools
			peak, looked = max(peak, inUse()), time.Now()
		}
		return refused.Load() == clients-fit
	})
	grown := int64(max(peak, inUse())) - int64(before)
	t.Logf("the heap grew by %d MiB at the most", grown>>20)
	if grown > most {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	r.plane.setRoutes(modelRoute("m", "org/m", startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if !bytes.Equal(got, body) {
			w.WriteHeader(400)
		}
	})))
	all.Wait()
	if served.Load() != fit || other.Load() != 0 {
		t.Errorf("%d served, %d refused, %d neither", served.Load(), refused.Load(), other.Load())
	}
}

// Large bodies that arrive slowly do not stop others from being read: small ones
// never wait for them, and one large body may exceed the budget.
func TestHeld_SlowBodies(t *testing.T) {
	r := startGateway(t, gateway.Limits{ReadBytes: 64 << 10}, modelRoute("m", "org/m", startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })))
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: gateway.localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 50000\r\n\r\n%s", member, strings.Repeat(" ", 40000))
	for _, size := range []int{10, 10_000, 100_000, 1_000_000} {
		if got := r.sendChat(`{"model":"org/m","user":"` + strings.Repeat("x", size) + `"}`); got.StatusCode != 200 {
			t.Errorf("%d bytes: %d %s", size, got.StatusCode, got.body)
		}
	}
}

// A body that is forwarded holds nothing of the read budget.
func TestHeld_ForwardedBodiesLeaveTheReadBudget(t *testing.T) {
	arrived, finish := make(chan struct{}, 3), make(chan struct{})
	r := startGateway(t, gateway.Limits{ReadBytes: 64 << 10}, modelRoute("m", "org/m", startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-finish
	})))
	var all sync.WaitGroup
	defer all.Wait()
	defer close(finish)
	for range 3 {
		all.Go(func() {
			if got := r.sendChat(`{"model":"org/m","user":"` + strings.Repeat("x", 1_000_000) + `"}`); got.StatusCode != 200 {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		})
		select {
		case <-arrived:
		case <-time.After(5 * time.Second):
			t.Fatal("the request did not arrive")
		}
	}
}

// sendRaw sends a call and returns the response's status; 0 without a response,
// or for a 503 without Retry-After.
func (r *testGateway) sendRaw(body []byte) int {
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		return 0
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: gateway.localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", member, len(body))
	if _, err := conn.Write(body); err != nil {
		return 0
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if res.StatusCode == 503 && res.Header.Get("Retry-After") == "" {
		return 0
	}
	return res.StatusCode
}
