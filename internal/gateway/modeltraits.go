package gateway

import (
	"context"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/openai"
)

const (
	propsTimeout = 300 * time.Millisecond // the request waits for it, once for each replica
	propsRetry   = 10 * time.Minute       // until a replica that did not answer is asked again
	maxProps     = 2 << 20                // bytes of a replica's /props
)

// modelTraits remembers what replicas say of their models in llama.cpp's /props.
// Servers that have no such path say nothing.
type modelTraits struct {
	gateway *Gateway
	asked   chan askedTraits

	mu    sync.Mutex
	known map[dstack.ReplicaID]*replicaTraits
}

// askedTraits is a request of the fast path, which must not wait itself, for what a replica says.
type askedTraits struct {
	of    *replicaTraits
	ready func() // is called once it is known
}

const (
	traitReaders   = 4   // tasks that ask replicas for the fast path
	maxAskedTraits = 256 // requests that wait for them; others take the slow path
)

// replicaTraits is what one replica says. read asks it on the first call.
type replicaTraits struct {
	at       time.Time
	read     func() (t openai.Traits, answered bool)
	hasRead  atomic.Bool // read has returned, with:
	traits   openai.Traits
	answered bool
}

func newModelTraits(g *Gateway) *modelTraits {
	return &modelTraits{gateway: g, asked: make(chan askedTraits, maxAskedTraits), known: map[dstack.ReplicaID]*replicaTraits{}}
}

// tasks return the tasks that ask replicas for the fast path.
func (m *modelTraits) tasks() (tasks []loop.Task) {
	for i := range traitReaders {
		tasks = append(tasks, loop.Task{Name: "model traits " + strconv.Itoa(i), Run: m.readAsked})
	}
	return tasks
}

func (m *modelTraits) readAsked(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-m.asked:
			m.read(a)
		}
	}
}

// read asks a replica. What the replica says must not end the process, whatever it is.
func (m *modelTraits) read(a askedTraits) {
	defer a.ready()
	defer func() {
		if value := recover(); value != nil {
			m.gateway.log.Error("panic while asking a replica", "panic", value, "stack", string(debug.Stack()))
		}
	}()
	a.of.read()
}

// ask calls ready, soon, when it is known what a replica says of its model. It reports false if too many wait for that.
func (m *modelTraits) ask(target route.Target, ready func()) bool {
	select {
	case m.asked <- askedTraits{m.entryOf(target), ready}:
		return true
	default:
		return false
	}
}

// warn sets a header of the response that says what the model of the request's replica
// cannot do with the request.
func (m *modelTraits) warn(p *proxyRequest) {
	features := p.model.FindFeatures(&p.model.body.scanner)
	if features == (openai.Features{}) {
		return
	}
	if warning := m.traitsOf(p).Warn(features); warning != "" {
		p.response.Header().Set(openai.WarningHeader, warning)
	}
}

// traitsOf returns what the request's replica says of its model. Requests to the same
// replica wait for one answer.
func (m *modelTraits) traitsOf(p *proxyRequest) openai.Traits {
	traits, _ := m.entryOf(p.replica().target).read()
	return traits
}

// entryOf returns what reads the traits of a replica, or has done so. One that got no answer is replaced in time.
func (m *modelTraits) entryOf(target route.Target) *replicaTraits {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.known[target.Replica]
	if last != nil && !last.isOutdated() {
		return last
	}
	last = &replicaTraits{at: time.Now()}
	last.read = sync.OnceValues(func() (openai.Traits, bool) {
		last.traits, last.answered = m.gateway.fetchTraits(target.Endpoint)
		last.hasRead.Store(true)
		return last.traits, last.answered
	})
	m.known[target.Replica] = last
	return last
}

// isOutdated reports whether the replica did not answer long ago.
func (t *replicaTraits) isOutdated() bool {
	return t.hasRead.Load() && !t.answered && time.Since(t.at) > propsRetry
}

// knownOf returns what is known of a replica already.
func (m *modelTraits) knownOf(id dstack.ReplicaID) (t openai.Traits, isKnown bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.known[id]
	if last == nil || !last.hasRead.Load() || last.isOutdated() {
		return t, false
	}
	return last.traits, true
}

// fetchTraits reads /props of a replica. It goes on if the client of a request
// disconnects, because other requests wait for the answer.
func (g *Gateway) fetchTraits(endpoint dstack.Endpoint) (t openai.Traits, answered bool) {
	ctx, cancel := context.WithTimeout(context.Background(), propsTimeout)
	defer cancel()
	req, err := newEndpointRequest(ctx, endpoint, http.MethodGet, "/props", nil)
	if err != nil {
		return t, false
	}
	res, err := g.transport.RoundTrip(req)
	if err != nil {
		return t, false
	}
	defer res.Body.Close()
	body, err := readAtMost(res.Body, maxProps)
	switch {
	case err != nil, res.StatusCode >= http.StatusInternalServerError:
		return t, false
	case res.StatusCode != http.StatusOK:
		return t, true
	}
	return openai.ReadProps(body), true
}

// applyTable forgets the replicas that a table does not have any more.
func (m *modelTraits) applyTable(x *route.Index) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) == 0 {
		return
	}
	live := map[dstack.ReplicaID]*replicaTraits{}
	x.Runs(func(run *route.Route) {
		for _, t := range run.Ready {
			if known := m.known[t.Replica]; known != nil {
				live[t.Replica] = known
			}
		}
	})
	m.known = live
}
