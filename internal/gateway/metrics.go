package gateway

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// maxFirstTokens is how many of the latest times to the first token are kept.
const maxFirstTokens = 64

// metrics count what requests to models take, by run since the gateway knows
// it. Prompts and answers are not part of them.
type metrics struct {
	requests   *prometheus.CounterVec
	tokens     *prometheus.CounterVec
	firstToken *prometheus.HistogramVec
	duration   *prometheus.HistogramVec

	mu   sync.Mutex
	runs map[dstack.RunID]*runMetrics
}

type runMetrics struct {
	labels      []string // project, run and model
	tokens      openai.Tokens
	firstTokens []time.Duration // a ring of the latest
	next        int             // in the ring
}

// buckets are the bounds of histograms, in seconds: from a cached prompt to a
// long answer.
var buckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900}

func newMetrics() *metrics {
	labels := []string{"project", "run", "model"}
	withLabel := func(label string) []string { return append(slices.Clone(labels), label) }
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dstack_model_requests_total",
			Help: "Requests to a model, by the status of the answer."}, withLabel("code")),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dstack_model_tokens_total",
			Help: "Tokens that answers said they took (in) and gave (out)."}, withLabel("direction")),
		firstToken: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dstack_model_first_token_seconds",
			Help: "From a request to the first piece of a streamed answer.", Buckets: buckets}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dstack_model_request_seconds",
			Help: "From a request to the end of its answer.", Buckets: buckets}, labels),
		runs: map[dstack.RunID]*runMetrics{},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.tokens, m.firstToken, m.duration}
}

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
	m.requests.WithLabelValues(append(run.labels, strconv.Itoa(status))...).Inc()
	m.duration.WithLabelValues(run.labels...).Observe(time.Since(startedAt).Seconds())
	if !t.firstAt.IsZero() {
		first := t.firstAt.Sub(startedAt)
		m.firstToken.WithLabelValues(run.labels...).Observe(first.Seconds())
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
	m.tokens.WithLabelValues(append(run.labels, "in")...).Add(float64(tokens.In))
	m.tokens.WithLabelValues(append(run.labels, "out")...).Add(float64(tokens.Out))
}

// metricsOf returns the metrics of a run, which begin anew with another model.
func (m *metrics) metricsOf(r *route.Route) *runMetrics {
	run := m.runs[r.Run]
	if run != nil && run.labels[2] != r.Model {
		m.forgetRun(r.Run, run)
		run = nil
	}
	if run == nil {
		run = &runMetrics{labels: []string{r.Project, r.Name, r.Model}}
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
	for id, run := range m.runs {
		if models[id] != run.labels[2] {
			m.forgetRun(id, run)
		}
	}
}

func (m *metrics) forgetRun(id dstack.RunID, run *runMetrics) {
	delete(m.runs, id)
	labels := prometheus.Labels{"project": run.labels[0], "run": run.labels[1], "model": run.labels[2]}
	m.requests.DeletePartialMatch(labels)
	m.tokens.DeletePartialMatch(labels)
	m.firstToken.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
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
