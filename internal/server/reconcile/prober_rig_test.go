package reconcile

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// probeRig is probes in a bubble of its own time, around replicas that are
// reached without a network.
type probeRig struct {
	*prober
	t        *testing.T
	mu       sync.Mutex
	changes  int
	replicas map[string]*probedReplica // by address
	stop     func()
}

// probedReplica answers 200, or does what its knobs say.
type probedReplica struct {
	status map[string]int // by path, instead of 200
	refuse bool
	hang   bool          // takes connections and questions, and answers none
	slow   time.Duration // before each answer
	short  error         // what this server lacks
	drop   bool          // its host is gone: not even a refusal
	dials  int           // to a host that is gone, at this moment
	asked  []receivedProbe
}

type receivedProbe struct {
	at   time.Time
	path string
}

func testProbes(t *testing.T, test func(r *probeRig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &probeRig{t: t, replicas: map[string]*probedReplica{}}
		r.prober = newProber(func(context.Context, dstack.InstanceID) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.statusOf("a") // would hang if wake were called under the lock
			r.changes++
		}, nil)
		r.transport = newProbeTransport(r.dial)
		r.start()
		test(r)
		r.stop()
	})
}

// start runs the task; stop ends it and waits for it.
func (r *probeRig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx) }()
	synctest.Wait()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			r.t.Errorf("run returned %v", err)
		}
		synctest.Wait()
	})
}

func (r *probeRig) dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.replica(address)
	switch {
	case one.drop:
		one.dials++
		r.mu.Unlock()
		<-ctx.Done()
		r.mu.Lock()
		one.dials--
		return nil, ctx.Err()
	case one.short != nil:
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", one.short)}
	case one.refuse:
		one.asked = append(one.asked, receivedProbe{time.Now(), ""})
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	ours, theirs := net.Pipe()
	go (&http.Server{Handler: r.handler(address)}).Serve(&oneConn{conn: theirs})
	return ours, nil
}

// oneConn is a listener that hands out one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func (r *probeRig) handler(address string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		one := r.replica(address)
		one.asked = append(one.asked, receivedProbe{time.Now(), q.URL.Path})
		status, hang, slow := one.status[q.URL.Path], one.hang, one.slow
		r.mu.Unlock()
		if hang {
			<-q.Context().Done()
			return
		}
		if loop.Sleep(q.Context(), slow) == nil && status != 0 {
			w.WriteHeader(status)
		}
	}
}

func (r *probeRig) replica(address string) *probedReplica {
	if r.replicas[address] == nil {
		r.replicas[address] = &probedReplica{status: map[string]int{}}
	}
	return r.replicas[address]
}

// configure turns knobs of a replica.
func (r *probeRig) configure(address string, knobs func(*probedReplica)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	knobs(r.replica(address))
}

// advance lets time go by, and everything that is due then happen.
func (r *probeRig) advance(d time.Duration) {
	r.t.Helper()
	time.Sleep(d)
	synctest.Wait()
}

// takeRequests is when a path was asked, since the bubble began, and forgets it.
func (r *probeRig) takeRequests(address, path string) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at []time.Time
	for _, q := range r.replica(address).asked {
		if q.path == path {
			at = append(at, q.at)
		}
	}
	r.replica(address).asked = nil
	return at
}

// takeChanges is how often wake was called since it was last asked.
func (r *probeRig) takeChanges() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.changes
	r.changes = 0
	return n
}

func (r *probeRig) expectStatus(id dstack.AttemptID, want *dstack.ProbeStatus) {
	r.t.Helper()
	got := r.statusOf(id)
	if (got == nil) != (want == nil) || got != nil && *got != *want {
		r.t.Errorf("attempt %s: %+v, want %+v", id, got, want)
	}
}

func passingStatus() *dstack.ProbeStatus { return &dstack.ProbeStatus{Ready: true} }

func failingStatus(fails int, why string) *dstack.ProbeStatus {
	return &dstack.ProbeStatus{ConsecutiveFailures: fails, Message: why}
}

// newProbe is a probe of GET /health every 10 s, within 5 s, changed by knobs.
func newProbe(knobs ...func(*spec.Probe)) spec.Probe {
	q := spec.Probe{Type: "http", URL: "/health", Method: "get", Headers: []spec.Header{}, Timeout: 5, Interval: 10, ReadyAfter: 1}
	for _, knob := range knobs {
		knob(&q)
	}
	return q
}

func atPath(p string) func(*spec.Probe)      { return func(q *spec.Probe) { q.URL = p } }
func readyAfter(n int) func(*spec.Probe)     { return func(q *spec.Probe) { q.ReadyAfter = n } }
func untilReady() func(*spec.Probe)          { return func(q *spec.Probe) { q.UntilReady = true } }
func every(s spec.Seconds) func(*spec.Probe) { return func(q *spec.Probe) { q.Interval = s } }

// newTarget is one at an address of its own name.
func newTarget(id dstack.AttemptID, probes ...spec.Probe) target {
	return target{Attempt: id, Endpoint: dstack.Endpoint{Address: string(id) + ":80"}, Probes: probes}
}

func wasReady(one target) target {
	one.WasReady = true
	return one
}
