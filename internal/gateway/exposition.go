package gateway

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// AppendMetrics appends the metrics of the gateway in the text format of Prometheus: what every run does at this moment, what its
// requests came to, what calls of models took, and how keys for callers were used. It looks at each number once, so that a
// thousand runs cost milliseconds.
func (g *Gateway) AppendMetrics(to []byte) []byte {
	e := exposition{text: to}
	if v := g.loads.view.Load(); v != nil {
		e.appendRuns(g.loads.scrape(v, g.queue.queueSizes()))
	}
	e.begin("dstack_fast_path_requests_total", counter, "Requests that the fast path served, of all runs.")
	e.text = append(strconv.AppendUint(append(e.text, "dstack_fast_path_requests_total "...), g.fastServed.Load(), 10), '\n')
	g.metrics.appendTo(&e)
	g.keys.appendTo(&e)
	return e.text
}

// exposition is a text for Prometheus.
type exposition struct{ text []byte }

// The kinds of metrics.
const (
	counter         = "counter"
	gauge           = "gauge"
	histogramMetric = "histogram"
)

// begin begins the lines of one metric.
func (e *exposition) begin(name, kind, help string) {
	e.text = append(append(append(append(append(e.text, "# HELP "...), name...), ' '), help...), '\n')
	e.text = append(append(append(append(append(e.text, "# TYPE "...), name...), ' '), kind...), '\n')
}

// add appends a line. Labels are without braces.
func (e *exposition) add(name string, labels []byte, value uint64) {
	e.text = append(append(append(append(e.text, name...), '{'), labels...), "} "...)
	e.text = append(strconv.AppendUint(e.text, value, 10), '\n')
}

// appendLabel appends a label to those before it.
func appendLabel(labels []byte, name, value string) []byte {
	if len(labels) > 0 {
		labels = append(labels, ',')
	}
	labels = append(append(labels, name...), `="`...)
	for _, c := range []byte(strings.ToValidUTF8(value, "\uFFFD")) {
		switch c {
		case '\\', '"':
			labels = append(labels, '\\', c)
		case '\n':
			labels = append(labels, `\n`...)
		default:
			labels = append(labels, c)
		}
	}
	return append(labels, '"')
}

// scrapedRun has the numbers of one run for Prometheus.
type scrapedRun struct {
	labels                []byte // project and run
	accepted, limited     uint64
	inFlight, held, ready int
	counts                *runCounts
}

// scrape returns the numbers of the runs in a view, by project and run.
func (l *loadTracker) scrape(v *view, held map[dstack.RunID]int) []scrapedRun {
	var routes []*route.Route
	v.Runs(func(r *route.Route) { routes = append(routes, r) })
	slices.SortFunc(routes, func(a, b *route.Route) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	runs := make([]scrapedRun, len(routes))
	for i, r := range routes {
		labels := appendLabel(appendLabel(nil, "project", r.Project), "run", r.Name)
		runs[i] = scrapedRun{labels: labels, ready: len(r.Ready), held: held[r.Run]}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range routes {
		if load := l.runs[r.Run]; load != nil {
			runs[i].accepted, runs[i].limited, runs[i].inFlight, runs[i].counts = load.accepted, load.limited, load.inFlight, load.counts
		}
	}
	return runs
}

// appendRuns appends the metrics of all runs.
func (e *exposition) appendRuns(runs []scrapedRun) {
	each := func(name, kind, help string, value func(r *scrapedRun) uint64) {
		e.begin(name, kind, help)
		for i := range runs {
			e.add(name, runs[i].labels, value(&runs[i]))
		}
	}
	each("dstack_requests_in_flight", gauge, "Requests that a replica is answering.",
		func(r *scrapedRun) uint64 { return uint64(max(0, r.inFlight)) })
	each("dstack_requests_held", gauge, "Requests that wait for a replica.",
		func(r *scrapedRun) uint64 { return uint64(max(0, r.held)) })
	each("dstack_replicas_ready", gauge, "Replicas that take requests.", func(r *scrapedRun) uint64 { return uint64(r.ready) })
	each("dstack_requests_total", counter, "Requests given to a replica.", func(r *scrapedRun) uint64 { return r.accepted })
	each("dstack_requests_limited_total", counter, "Requests refused because their caller sent too many.",
		func(r *scrapedRun) uint64 { return r.limited })
	each("dstack_requests_retried_total", counter, "Times that a request was sent again, to another replica or over another connection.",
		func(r *scrapedRun) uint64 {
			if r.counts == nil {
				return 0
			}
			return r.counts.retried.Load()
		})
	e.appendResponses(runs)
	e.appendTimes(runs, "dstack_request_first_byte_seconds", "From a request to the first byte of its response's body, of requests given to a replica.",
		func(c *classCounts) *histogram { return &c.firstByte })
	e.appendTimes(runs, "dstack_request_seconds", "From a request to the end of its response, of requests given to a replica.",
		func(c *classCounts) *histogram { return &c.end })
}

// eachClass calls f with the counts of each class of statuses that a run has had.
func eachClass(runs []scrapedRun, f func(r *scrapedRun, class int, c *classCounts)) {
	for i := range runs {
		if runs[i].counts == nil {
			continue
		}
		for class := range runs[i].counts.classes {
			if c := runs[i].counts.classes[class].Load(); c != nil {
				f(&runs[i], class, c)
			}
		}
	}
}

func (e *exposition) appendResponses(runs []scrapedRun) {
	const name = "dstack_responses_total"
	e.begin(name, counter, "Requests by the status that their client got; 499: it left before.")
	var labels []byte
	eachClass(runs, func(r *scrapedRun, class int, c *classCounts) {
		for rest := range c.statuses {
			if n := c.statuses[rest].Load(); n > 0 {
				labels = append(strconv.AppendInt(append(labels[:0], `code="`...), int64(100*class+rest), 10), `",`...)
				labels = append(labels, r.labels...)
				e.add(name, labels, n)
			}
		}
	})
}

// appendTimes appends a histogram of each run and class of statuses.
func (e *exposition) appendTimes(runs []scrapedRun, name, help string, of func(c *classCounts) *histogram) {
	e.begin(name, histogramMetric, help)
	var labels []byte
	eachClass(runs, func(r *scrapedRun, class int, c *classCounts) {
		if of(c).isEmpty() {
			return
		}
		labels = append(append(labels[:0], `class="`...), byte('0'+class))
		labels = append(append(labels, `xx",`...), r.labels...)
		e.text = of(c).appendTo(e.text, name, labels, requestEnds)
	})
}

// appendTo appends the metrics of models.
func (m *metrics) appendTo(e *exposition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	runs := slices.SortedFunc(maps.Values(m.runs), func(a, b *runMetrics) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.run, b.run))
	})
	e.begin("dstack_model_requests_total", counter, "Requests to a model, by the status of the answer.")
	for _, run := range runs {
		for _, status := range slices.Sorted(maps.Keys(run.statuses)) {
			e.add("dstack_model_requests_total", run.appendLabels(appendLabel(nil, "code", strconv.Itoa(status))), run.statuses[status])
		}
	}
	e.begin("dstack_model_tokens_total", counter, "Tokens that answers said they took (in) and gave (out).")
	for _, run := range runs {
		e.add("dstack_model_tokens_total", run.appendLabels(appendLabel(nil, "direction", "in")), uint64(max(0, run.tokens.In)))
		e.add("dstack_model_tokens_total", run.appendLabels(appendLabel(nil, "direction", "out")), uint64(max(0, run.tokens.Out)))
	}
	times := func(name, help string, of func(run *runMetrics) *histogram) {
		e.begin(name, histogramMetric, help)
		for _, run := range runs {
			if !of(run).isEmpty() {
				e.text = of(run).appendTo(e.text, name, run.appendLabels(nil), modelEnds)
			}
		}
	}
	times("dstack_model_first_token_seconds", "From a request to the first piece of a streamed answer.",
		func(run *runMetrics) *histogram { return &run.firstToken })
	times("dstack_model_request_seconds", "From a request to the end of its answer.", func(run *runMetrics) *histogram { return &run.duration })
}

func (r *runMetrics) appendLabels(labels []byte) []byte {
	return appendLabel(appendLabel(appendLabel(labels, "model", r.model), "project", r.project), "run", r.run)
}

// appendTo appends how keys for callers were used.
func (t *keyTracker) appendTo(e *exposition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := slices.SortedFunc(maps.Values(t.keys), func(a, b *trackedKey) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.name, b.name))
	})
	each := func(name, help string, value func(k *trackedKey) uint64) {
		e.begin(name, counter, help)
		var sum uint64
		for i, k := range keys {
			sum += value(k)
			if i+1 < len(keys) && keys[i+1].project == k.project && keys[i+1].name == k.name { // a key that has ended, and its successor
				continue
			}
			e.add(name, appendLabel(appendLabel(nil, "key", k.name), "project", k.project), sum)
			sum = 0
		}
	}
	each("dstack_key_requests_total", "Requests that a key for callers allowed.", func(k *trackedKey) uint64 { return k.counts.Requests })
	each("dstack_key_requests_refused_total", "Requests with a key for callers that were too many, or not for what the key opens.",
		func(k *trackedKey) uint64 { return k.counts.Refused })
}
