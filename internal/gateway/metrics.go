package gateway

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// maxFirstTokens is how many of the latest times to the first token are kept.
const maxFirstTokens = 64

// metrics count what requests to models take, by run since the gateway knows
// it. Prompts and answers are not part of them.
type metrics struct {
	mu   sync.Mutex
	runs map[dstack.RunID]*runMetrics
}

type runMetrics struct {
	project, run, model  string
	statuses             map[int]uint64 // requests by the status of the answer
	firstToken, duration histogram
	tokens               openai.Tokens
	firstTokens          []time.Duration // a ring of the latest
	next                 int             // in the ring
}

func newMetrics() *metrics { return &metrics{runs: map[dstack.RunID]*runMetrics{}} }

// timing is what one request to a model takes.
type timing struct {
	firstAt time.Time           // when the first piece of a stream arrived; zero: it is no stream
	tokens  openai.TokenScanner // of the response as it passes
	counted openai.Tokens       // of a response that the gateway makes
}

// recordRequest adds a request that has ended.
func (m *metrics) recordRequest(r *route.Route, status int, startedAt time.Time, t *timing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	run := m.metricsOf(r)
	run.statuses[status]++
	run.duration.observe(modelBounds, time.Since(startedAt))
	if !t.firstAt.IsZero() {
		first := t.firstAt.Sub(startedAt)
		run.firstToken.observe(modelBounds, first)
		if len(run.firstTokens) < maxFirstTokens {
			run.firstTokens = append(run.firstTokens, first)
		} else {
			run.firstTokens[run.next%maxFirstTokens] = first
		}
		run.next++
	}
	tokens := t.tokens.Tokens()
	tokens.In, tokens.Out = tokens.In+t.counted.In, tokens.Out+t.counted.Out
	run.tokens.In += tokens.In
	run.tokens.Out += tokens.Out
}

// metricsOf returns the metrics of a run, which begin anew with another model.
func (m *metrics) metricsOf(r *route.Route) *runMetrics {
	run := m.runs[r.Run]
	if run == nil || run.model != r.Model {
		run = &runMetrics{project: r.Project, run: r.Name, model: r.Model, statuses: map[int]uint64{}}
		m.runs[r.Run] = run
	}
	return run
}

// applyTable forgets the runs that a table does not have any more, or not with
// their model.
func (m *metrics) applyTable(x *route.Index) {
	m.mu.Lock()
	defer m.mu.Unlock()
	models := map[dstack.RunID]string{}
	x.Runs(func(r *route.Route) { models[r.Run] = r.Model })
	maps.DeleteFunc(m.runs, func(id dstack.RunID, run *runMetrics) bool { return models[id] != run.model })
}

// addTo adds tokens and times to the runs of a report.
func (m *metrics) addTo(report *dstack.LoadReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, run := range m.runs {
		load, known := report.Runs[id]
		if !known {
			continue
		}
		load.Metrics.TokensIn, load.Metrics.TokensOut = run.tokens.In, run.tokens.Out
		if n := len(run.firstTokens); n > 0 {
			load.Metrics.FirstToken = slices.Sorted(slices.Values(run.firstTokens))[n/2]
			load.Metrics.Streams = n
		}
		report.Runs[id] = load
	}
}

// meteredBody is the body of a replica's response, from which the timing and the
// tokens are taken as it passes.
type meteredBody struct {
	io.ReadCloser
	timing   *timing
	isStream bool
}

// meterResponse counts what a model's replica responds. A response that is neither JSON
// nor a stream has no tokens.
func (m *modelCall) meterResponse(res *http.Response, contentType string, isEventStream bool) {
	if contentType == "application/json" || isEventStream {
		res.Body = &meteredBody{ReadCloser: res.Body, timing: &m.timing, isStream: isEventStream}
	}
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && b.isStream && b.timing.firstAt.IsZero() {
		b.timing.firstAt = time.Now()
	}
	_, _ = b.timing.tokens.Write(p[:n]) // it never fails
	return n, err
}
