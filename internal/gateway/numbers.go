package gateway

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// firstsKept is of how many answers the time to the first token is known.
const firstsKept = 64

// metrics are what requests to models took, by run since the gateway knows
// it. Prompts and answers are in none of them.
type metrics struct {
	requests *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	first    *prometheus.HistogramVec
	took     *prometheus.HistogramVec

	mu   sync.Mutex
	runs map[dstack.RunID]*runNumbers
}

type runNumbers struct {
	labels  []string // project, run and model
	answers uint64
	tokens  openai.Tokens
	firsts  []time.Duration // the last of them, in a ring
	next    int
}

// seconds are the bounds of what is timed: from a cached prompt to a long
// answer.
var seconds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900}

func newMetrics() *metrics {
	of := []string{"project", "run", "model"}
	with := func(label string) []string { return append(slices.Clone(of), label) }
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dstack_model_requests_total",
			Help: "Requests to a model, by the status of the answer."}, with("code")),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dstack_model_tokens_total",
			Help: "Tokens that answers said they took (in) and gave (out)."}, with("direction")),
		first: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dstack_model_first_token_seconds",
			Help: "From a request to the first piece of a streamed answer.", Buckets: seconds}, of),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dstack_model_request_seconds",
			Help: "From a request to the end of its answer.", Buckets: seconds}, of),
		runs: map[dstack.RunID]*runNumbers{},
	}
}

// vectors is all that is counted.
func (n *metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{n.requests, n.tokens, n.first, n.took}
}

// timing is what one request to a model took.
type timing struct {
	firstAt time.Time // when a stream's first piece came; zero: it is no stream
	tokens  openai.TokenScanner
	told    openai.Tokens // what we counted ourselves
}

// count adds a request that has ended.
func (n *metrics) count(r *route.Route, status int, began time.Time, t *timing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one := n.of(r)
	one.answers++
	n.requests.WithLabelValues(append(one.labels, strconv.Itoa(status))...).Inc()
	n.took.WithLabelValues(one.labels...).Observe(time.Since(began).Seconds())
	if !t.firstAt.IsZero() {
		first := t.firstAt.Sub(began)
		n.first.WithLabelValues(one.labels...).Observe(first.Seconds())
		if len(one.firsts) < firstsKept {
			one.firsts = append(one.firsts, first)
		} else {
			one.firsts[one.next%firstsKept] = first
		}
		one.next++
	}
	u := t.tokens.Tokens()
	u.In, u.Out = u.In+t.told.In, u.Out+t.told.Out
	one.tokens.In += u.In
	one.tokens.Out += u.Out
	n.tokens.WithLabelValues(append(one.labels, "in")...).Add(float64(u.In))
	n.tokens.WithLabelValues(append(one.labels, "out")...).Add(float64(u.Out))
}

func (n *metrics) of(r *route.Route) *runNumbers {
	one := n.runs[r.Run]
	if one != nil && one.labels[2] != r.Model {
		n.forget(r.Run, one)
		one = nil
	}
	if one == nil {
		one = &runNumbers{labels: []string{r.Project, r.Name, r.Model}}
		n.runs[r.Run] = one
	}
	return one
}

// applyTable forgets the runs that a table does not name any more, or not with
// their model.
func (n *metrics) applyTable(x *route.Index) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := map[dstack.RunID]string{}
	x.Runs(func(r *route.Route) { known[r.Run] = r.Model })
	for id, one := range n.runs {
		if known[id] == one.labels[2] {
			continue
		}
		n.forget(id, one)
	}
}

func (n *metrics) forget(id dstack.RunID, one *runNumbers) {
	delete(n.runs, id)
	labels := prometheus.Labels{"project": one.labels[0], "run": one.labels[1], "model": one.labels[2]}
	n.requests.DeletePartialMatch(labels)
	n.tokens.DeletePartialMatch(labels)
	n.first.DeletePartialMatch(labels)
	n.took.DeletePartialMatch(labels)
}

// fill adds what is known of each run.
func (n *metrics) fill(all map[dstack.RunID]api.RunMetrics) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, one := range n.runs {
		sum, known := all[id]
		if !known {
			continue
		}
		sum.TokensIn, sum.TokensOut = one.tokens.In, one.tokens.Out
		if len(one.firsts) > 0 {
			sorted := slices.Sorted(slices.Values(one.firsts))
			median := sorted[len(sorted)/2].Seconds()
			sum.FirstToken = &median
		}
		all[id] = sum
	}
}

// Metrics returns what each run in the table does and did.
func (g *Gateway) Metrics() map[dstack.RunID]api.RunMetrics {
	all := map[dstack.RunID]api.RunMetrics{}
	v := g.loads.view.Load()
	if v == nil {
		return all
	}
	loads := g.Load()
	v.Runs(func(r *route.Route) {
		load := loads[r.Run]
		all[r.Run] = api.RunMetrics{Requests: load.Accepted, InFlight: load.InFlight, Held: load.Held}
	})
	g.numbers.fill(all)
	return all
}

// metered is a replica's answer that is timed and looked at as it passes.
type metered struct {
	io.ReadCloser
	t      *timing
	stream bool
}

// meter puts a meter on the answer of a model's replica. Answers that are
// neither JSON nor a stream tell nothing.
func (x *exchange) meter(res *http.Response, kind string) {
	if kind == "application/json" || x.streams {
		res.Body = &metered{ReadCloser: res.Body, t: &x.timing, stream: x.streams}
	}
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	if n > 0 && m.stream && m.t.firstAt.IsZero() {
		m.t.firstAt = time.Now()
	}
	_, _ = m.t.tokens.Write(p[:n]) // it never fails
	return n, err
}
