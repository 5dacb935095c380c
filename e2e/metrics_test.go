package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// marker is a word that occurs only in the tests' prompts.
const marker = "zyzzyva-7351"

// newMarkerRequest returns a request with the marker in its prompt. Fields of more
// are added to it or replace its own.
func newMarkerRequest(t *testing.T, model string, more map[string]any) string {
	all := map[string]any{"model": model, "max_tokens": 16, "temperature": 0, "messages": newMessages("Spell " + marker)}
	for name, value := range more {
		all[name] = value
	}
	return encodeJSON(t, all)
}

func newMessages(text string) []map[string]string {
	return []map[string]string{{"role": "user", "content": text}}
}

var streamWithUsage = map[string]any{"stream": true, "stream_options": map[string]bool{"include_usage": true}}

// testMetrics checks that requests are counted by model and run, for Prometheus and
// for `dstack ps -v`.
func (m *modelHarness) testMetrics(t *testing.T) {
	h := m.withT(t)
	path := m.gatewayURL() + "/chat/completions"
	for run, model := range map[string]string{"llama": openaiModel, "tgi3": hubModel} {
		labels := fmt.Sprintf(`model=%q,project="main",run=%q`, model, run)
		m.readEvents(t, path, newMarkerRequest(t, model, streamWithUsage))
		h.expectResponse("POST", path, h.token, newMarkerRequest(t, model, nil), 200, `"completion_tokens":16`)
		h.expectResponse("POST", path, h.token, newMarkerRequest(t, model, map[string]any{"temperature": "hot"}), 400)
		m.expectMetrics(t, `dstack_model_requests_total{code="200",`+labels+`} 2`, `dstack_model_requests_total{code="400",`+labels+`} 1`,
			`dstack_model_tokens_total{direction="in",`+labels+`} 82`, `dstack_model_tokens_total{direction="out",`+labels+`} 32`,
			`dstack_model_first_token_seconds_count{`+labels+`} 1`, `dstack_model_request_seconds_count{`+labels+`} 3`)
	}
	// The gateway reports to the server once a second.
	err := retryFor(5*time.Second, func() error {
		out := h.runCLI("ps", "-v").expectExit(0).out
		for _, part := range []string{"3 requests", "82 in, 32 out", "first token after"} {
			if strings.Count(out, part) < 2 {
				return fmt.Errorf("%q is not there for both runs:\n%s", part, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("dstack ps -v: %v", err)
	}
}

// testLlamaTokens checks that tokens are counted that llama.cpp does not report in a
// usage object, or leaves out of it because they were cached. The prompt has 41
// tokens, and testMetrics has sent it twice.
func (m *modelHarness) testLlamaTokens(t *testing.T) {
	h := m.withT(t)
	labels := fmt.Sprintf(`model=%q,project="main",run="llama"`, openaiModel)
	m.readEvents(t, m.gatewayURL()+"/chat/completions", newMarkerRequest(t, openaiModel, map[string]any{"stream": true}))
	m.expectMetrics(t, `dstack_model_tokens_total{direction="in",`+labels+`} 123`,
		`dstack_model_tokens_total{direction="out",`+labels+`} 48`)
	h.expectResponse("POST", m.gatewayURL()+"/messages", h.token, newMarkerRequest(t, openaiModel, nil), 200, `"cache_read_input_tokens":40`)
	m.expectMetrics(t, `dstack_model_tokens_total{direction="in",`+labels+`} 164`,
		`dstack_model_tokens_total{direction="out",`+labels+`} 64`)
}

// testLlamaWarnings checks that callers are told what llama.cpp blames on itself, or
// ignores.
func (m *modelHarness) testLlamaWarnings(t *testing.T) {
	h := m.withT(t)
	image := []map[string]any{{"role": "user", "content": []map[string]any{
		{"type": "image_url", "image_url": map[string]string{"url": "data:image/png;base64,iVBORw0KGgo="}}}}}
	tools := []map[string]any{{"type": "function", "function": map[string]any{"name": "f", "parameters": map[string]any{"type": "object"}}}}
	for _, c := range []struct {
		more   map[string]any
		status int
		want   string
	}{
		{nil, 200, ""},
		{map[string]any{"messages": image}, 500, "this model takes no images"},
		{map[string]any{"tools": tools, "tool_choice": "required"}, 200,
			"this model's chat template has no tools, so it does not see those of the request, and tool_choice cannot require a call"},
	} {
		got := h.expectResponse("POST", m.gatewayURL()+"/chat/completions", h.token, newMarkerRequest(t, openaiModel, c.more), c.status)
		if warning := got.header.Get("Dstack-Warning"); warning != c.want {
			t.Errorf("%v: warned of %q, want %q", c.more, warning, c.want)
		}
	}
}

// testLogPrivacy checks that neither prompts nor completions are in the server's
// log, not even at debug level or after errors.
func (m *modelHarness) testLogPrivacy(t *testing.T) {
	h := m.withT(t)
	path := m.gatewayURL() + "/chat/completions"
	for model, tooLong := range map[string]int{openaiModel: 400, hubModel: 422, ownModel: 422} {
		answer := strings.Join(decodeDeltas(t, m.readEvents(t, path, newMarkerRequest(t, model, streamWithUsage))), "")
		h.expectResponse("POST", path, h.token, newMarkerRequest(t, model, nil), 200, strings.Split(encodeJSON(t, answer), `"`)[1])
		h.expectResponse("POST", path, h.token, newMarkerRequest(t, model, map[string]any{"temperature": marker}), 400)
		long := newMessages(strings.Repeat(marker+" ", 1000))
		h.expectResponse("POST", path, h.token, newMarkerRequest(t, model, map[string]any{"messages": long}), tooLong)
		h.expectResponse("POST", path, h.token, newMarkerRequest(t, model, map[string]any{"messages": long, "stream": true}), tooLong)
		h.expectResponse("POST", path, "wrong", newMarkerRequest(t, model, nil), 401)
		log := m.log.String()
		for _, secret := range []string{marker, answer} {
			if len(secret) < 8 || strings.Contains(log, secret) {
				t.Errorf("%s: %q is in the server's log, or is too short for this test", model, secret)
			}
		}
		if !strings.Contains(log, "level=DEBUG msg=request") {
			t.Errorf("the log has no requests:\n%s", log)
		}
	}
}

// expectMetrics checks lines of /metrics. It polls, because a request is counted
// after its response has been sent.
func (m *modelHarness) expectMetrics(t *testing.T, lines ...string) {
	t.Helper()
	h := m.withT(t)
	err := retryFor(5*time.Second, func() error {
		a, err := h.getURL(fmt.Sprintf("http://127.0.0.1:%d/metrics", m.metricsPort))
		if err != nil {
			return err
		}
		for _, line := range lines {
			if !strings.Contains(a.body, line+"\n") {
				return fmt.Errorf("status %d, no line %s:\n%s", a.status, line, filterMetrics(a.body, "dstack_model"))
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("/metrics: %v", err)
	}
}

// filterMetrics returns the lines of metrics with a prefix, except the buckets of
// histograms.
func filterMetrics(text, with string) string {
	var all strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, with) && !strings.Contains(line, "_bucket") {
			all.WriteString(line)
		}
	}
	return all.String()
}
