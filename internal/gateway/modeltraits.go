package gateway

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
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
	mu    sync.Mutex
	known map[dstack.ReplicaID]*replicaTraits
}

// replicaTraits is what one replica says. read asks it on the first call.
type replicaTraits struct {
	at       time.Time
	read     func() (t openai.Traits, answered bool)
	hasRead  atomic.Bool // read has returned, with:
	traits   openai.Traits
	answered bool
}

func newModelTraits() *modelTraits {
	return &modelTraits{known: map[dstack.ReplicaID]*replicaTraits{}}
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
	replica := p.replica().target.Replica
	m.mu.Lock()
	last := m.known[replica]
	if last == nil {
		last = &replicaTraits{at: time.Now()}
		last.read = sync.OnceValues(func() (openai.Traits, bool) {
			last.traits, last.answered = p.fetchTraits()
			last.hasRead.Store(true)
			return last.traits, last.answered
		})
		m.known[replica] = last
	}
	m.mu.Unlock()
	traits, answered := last.read()
	if !answered && time.Since(last.at) > propsRetry {
		m.mu.Lock()
		if m.known[replica] == last {
			delete(m.known, replica)
		}
		m.mu.Unlock()
	}
	return traits
}

// knownOf returns what is known of a replica already.
func (m *modelTraits) knownOf(id dstack.ReplicaID) (t openai.Traits, isKnown bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.known[id]
	if last == nil || !last.hasRead.Load() || !last.answered && time.Since(last.at) > propsRetry {
		return t, false
	}
	return last.traits, true
}

// fetchTraits reads /props of the request's replica. It goes on if the client
// disconnects, because other requests wait for the answer.
func (p *proxyRequest) fetchTraits() (t openai.Traits, answered bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx()), propsTimeout)
	defer cancel()
	req, err := p.newReplicaRequest(ctx, http.MethodGet, "/props", nil)
	if err != nil {
		return t, false
	}
	res, err := p.gateway.transport.RoundTrip(req)
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
