package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"dstack/internal/gateway"
)

// gatherMetrics returns what Prometheus would read, one line for each value.
func gatherMetrics(t *testing.T, g *gateway.Gateway) string {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(g.AppendMetrics(nil)))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.Histogram; h != nil {
				value = float64(h.GetSampleCount())
			}
			fmt.Fprintf(&b, "%s{%s} %v\n", name, strings.Join(labels, ","), value)
		}
	}
	return b.String()
}

func TestMetrics_OfModels(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.Contains(string(body), `"stream"`):
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			for _, event := range []string{`{"choices":[{"delta":{"content":"secret"}}]}`, `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}`, "[DONE]"} {
				fmt.Fprintf(w, "data: %s\n\n", event)
				w.(http.Flusher).Flush()
			}
		case strings.Contains(string(body), `"fail"`):
			http.Error(w, "no", http.StatusTeapot)
		default:
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"choices":[{"text":"secret"}],"usage":{"prompt_tokens":2,"completion_tokens":1}}`)
		}
	})
	m := modelRoute("m", "org/m", up)
	r := startGateway(t, gateway.Limits{}, m, serviceRoute("web", up))
	ask := func(body string) {
		t.Helper()
		r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(body), withToken(member)...))
	}
	ask(`{"model":"org/m","stream":true}`)
	ask(`{"model":"org/m"}`)
	ask(`{"model":"org/m","fail":true}`)
	ask(`{"model":"other"}`) // no run has it
	waitUntil(t, "the metrics", func() bool { return r.metrics(m.Run).TokensIn == 12 })
	n := r.metrics(m.Run)
	if n.Requests != 3 || n.TokensOut != 6 || n.Streams != 1 || n.FirstToken <= 0 || n.FirstToken > 5*time.Second {
		t.Errorf("the metrics are %+v", n)
	}
	said := gatherMetrics(t, r.gateway)
	for _, want := range []string{
		"dstack_model_requests_total{code=200,model=org/m,project=main,run=m} 2", "dstack_model_requests_total{code=418,model=org/m,project=main,run=m} 1",
		"dstack_model_tokens_total{direction=in,model=org/m,project=main,run=m} 12", "dstack_model_tokens_total{direction=out,model=org/m,project=main,run=m} 6",
		"dstack_model_first_token_seconds{model=org/m,project=main,run=m} 1", "dstack_model_request_seconds{model=org/m,project=main,run=m} 3",
		"dstack_requests_total{project=main,run=m} 3", "dstack_requests_in_flight{project=main,run=m} 0", "dstack_replicas_ready{project=main,run=web} 1",
	} {
		if !strings.Contains(said, want+"\n") {
			t.Errorf("%s is not among\n%s", want, said)
		}
	}
	if strings.Contains(said, "secret") || strings.Contains(said, "other") {
		t.Errorf("the metrics have too much:\n%s", said)
	}
	r.plane.setRoutes(serviceRoute("web", up)) // the model's run has ended
	waitUntil(t, "it is forgotten", func() bool { return !strings.Contains(gatherMetrics(t, r.gateway), "org/m") })
	waitUntil(t, "it has no metrics", func() bool { report, _ := r.plane.lastReport(); _, known := report.Runs[m.Run]; return !known })
}

// A run that serves another model has no metrics of the model before.
func TestMetrics_OfARenamedModel(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"usage":{"prompt_tokens":2,"completion_tokens":1}}`)
	})
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/old", up))
	ask := func(name string) bool {
		return r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(`{"model":"`+name+`"}`), withToken(member)...)).StatusCode == 200
	}
	ask("org/old")
	r.plane.setRoutes(modelRoute("m", "org/new", up))
	waitUntil(t, "the new name", func() bool { return ask("org/new") })
	waitUntil(t, "it is counted", func() bool { return strings.Contains(gatherMetrics(t, r.gateway), "model=org/new") })
	if said := gatherMetrics(t, r.gateway); strings.Contains(said, "org/old") {
		t.Errorf("the old name is still there:\n%s", said)
	}
}

// Both paths count each request for a run once, by its status; times are those of requests given to a replica.
func TestMetrics_OfRequests(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/teapot" {
			http.Error(w, "no", http.StatusTeapot)
			return
		}
		io.WriteString(w, "hello")
	})
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up), serviceRoute("retried", targetAt(closedPort(t), 1), up))
	token := withToken(member)
	for range 3 {
		r.get("http://web.localhost/", token...)
	}
	r.get("http://web.localhost/", append(token, "Expect", "100-continue")...) // the slow path
	r.get("http://web.localhost/teapot", token...)
	r.get("http://web.localhost/", withToken("wrong")...)
	r.get("http://nothing.localhost/", token...)
	for range 2 { // one of them is given to the replica that refuses connections
		r.get("http://retried.localhost/", token...)
	}
	for _, want := range []string{
		"dstack_responses_total{code=200,project=main,run=web} 4", "dstack_responses_total{code=418,project=main,run=web} 1",
		"dstack_responses_total{code=401,project=main,run=web} 1", "dstack_request_seconds{class=2xx,project=main,run=web} 4",
		"dstack_request_first_byte_seconds{class=2xx,project=main,run=web} 4", "dstack_request_seconds{class=4xx,project=main,run=web} 1",
		"dstack_requests_total{project=main,run=web} 5", "dstack_requests_in_flight{project=main,run=web} 0",
		"dstack_responses_total{code=200,project=main,run=retried} 2", "dstack_requests_retried_total{project=main,run=retried} 1",
	} {
		waitUntil(t, want, func() bool { return strings.Contains(gatherMetrics(t, r.gateway), want+"\n") })
	}
	if said := gatherMetrics(t, r.gateway); strings.Contains(said, "nothing") {
		t.Errorf("a name that no run has is counted:\n%s", said)
	}
}
