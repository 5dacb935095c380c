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

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// probeRig is a prober with simulated time (testing/synctest), and replicas that
// it reaches without a network.
type probeRig struct {
	*prober
	t        *testing.T
	mu       sync.Mutex
	changes  int                       // calls of onChange
	replicas map[string]*probedReplica // by address
	stop     func()
}

// probedReplica answers 200, unless a field says otherwise.
type probedReplica struct {
	status   map[string]int // by path, instead of 200
	refuse   bool           // refuses connections
	hang     bool           // accepts requests and never answers
	delay    time.Duration  // before each answer
	shortage error          // dialling fails with this error of the prober's own system
	drop     bool           // its host is gone: dialling never ends
	dials    int            // to a host that is gone, at this moment
	received []receivedProbe
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
			r.statusOf("a") // hangs if onChange is called under the lock
			r.changes++
		}, nil)
		r.transport = newProbeTransport(r.dial)
		r.start()
		test(r)
		r.stop()
	})
}

// start runs the prober; stop ends it and waits for its end.
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
	replica := r.replica(address)
	switch {
	case replica.drop:
		replica.dials++
		r.mu.Unlock()
		<-ctx.Done()
		r.mu.Lock()
		replica.dials--
		return nil, ctx.Err()
	case replica.shortage != nil:
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", replica.shortage)}
	case replica.refuse:
		replica.received = append(replica.received, receivedProbe{time.Now(), ""})
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	client, server := net.Pipe()
	go (&http.Server{Handler: r.handler(address)}).Serve(&oneConn{conn: server})
	return client, nil
}

// oneConn is a listener that accepts one connection.
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
		replica := r.replica(address)
		replica.received = append(replica.received, receivedProbe{time.Now(), q.URL.Path})
		status, hang, delay := replica.status[q.URL.Path], replica.hang, replica.delay
		r.mu.Unlock()
		if hang {
			<-q.Context().Done()
			return
		}
		if loop.Sleep(q.Context(), delay) == nil && status != 0 {
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

// configure changes a replica.
func (r *probeRig) configure(address string, change func(*probedReplica)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.replica(address))
}

// advance waits for a duration, and for everything that is due by then.
func (r *probeRig) advance(d time.Duration) {
	r.t.Helper()
	time.Sleep(d)
	synctest.Wait()
}

// takeRequests returns when a path was requested since the last call, and
// forgets all requests to the address.
func (r *probeRig) takeRequests(address, path string) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at []time.Time
	for _, q := range r.replica(address).received {
		if q.path == path {
			at = append(at, q.at)
		}
	}
	r.replica(address).received = nil
	return at
}

// takeChanges returns how often onChange was called since the last call.
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

// newProbe returns a probe of GET /health every 10 s, within 5 s, with changes.
func newProbe(changes ...func(*spec.Probe)) job.Probe {
	q := spec.Probe{Type: "http", URL: "/health", Method: "get", Headers: []spec.Header{}, Timeout: 5, Interval: 10, ReadyAfter: 1}
	for _, change := range changes {
		change(&q)
	}
	return job.Probe{Probe: q}
}

func atPath(p string) func(*spec.Probe)      { return func(q *spec.Probe) { q.URL = p } }
func readyAfter(n int) func(*spec.Probe)     { return func(q *spec.Probe) { q.ReadyAfter = n } }
func untilReady() func(*spec.Probe)          { return func(q *spec.Probe) { q.UntilReady = true } }
func every(s spec.Seconds) func(*spec.Probe) { return func(q *spec.Probe) { q.Interval = s } }

// newTarget returns a target whose address has the name of the attempt.
func newTarget(id dstack.AttemptID, probes ...job.Probe) target {
	return target{Attempt: id, Endpoint: dstack.Endpoint{Address: string(id) + ":80"}, Probes: probes}
}

func wasReady(t target) target {
	t.WasReady = true
	return t
}
