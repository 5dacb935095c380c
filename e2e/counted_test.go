package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// marker is a word that nobody says but the tests' prompts.
const marker = "zyzzyva-7351"

// aboutMarker is a call about the marker, with more fields or others.
func aboutMarker(t *testing.T, model string, more map[string]any) string {
	all := map[string]any{"model": model, "max_tokens": 16, "temperature": 0, "messages": saying("Spell " + marker)}
	for name, value := range more {
		all[name] = value
	}
	return jsonOf(t, all)
}

func saying(text string) []map[string]string {
	return []map[string]string{{"role": "user", "content": text}}
}

var counting = map[string]any{"stream": true, "stream_options": map[string]bool{"include_usage": true}}

// counted: what requests took is counted by model and run, for Prometheus and
// for `dstack ps -v`.
func (m *models) counted(t *testing.T) {
	h := m.in(t)
	path := m.gateway() + "/chat/completions"
	for run, model := range map[string]string{"llama": openaiModel, "tgi3": hubModel} {
		labels := fmt.Sprintf(`model=%q,project="main",run=%q`, model, run)
		m.events(t, path, aboutMarker(t, model, counting))
		h.expect("POST", path, h.token, aboutMarker(t, model, nil), 200, `"completion_tokens":16`)
		h.expect("POST", path, h.token, aboutMarker(t, model, map[string]any{"temperature": "hot"}), 400)
		m.exports(t, `dstack_model_requests_total{code="200",`+labels+`} 2`, `dstack_model_requests_total{code="400",`+labels+`} 1`,
			`dstack_model_tokens_total{direction="in",`+labels+`} 82`, `dstack_model_tokens_total{direction="out",`+labels+`} 32`,
			`dstack_model_first_token_seconds_count{`+labels+`} 1`, `dstack_model_request_seconds_count{`+labels+`} 3`)
	}
	h.cli("ps", "-v").exits(0).says("3 requests", "82 in, 32 out", "first token after")
}

// unsaid: whatever becomes of a request, neither its prompt nor its answer is
// in the server's log, not even for those who look for faults.
func (m *models) unsaid(t *testing.T) {
	h := m.in(t)
	path := m.gateway() + "/chat/completions"
	for model, tooLong := range map[string]int{openaiModel: 400, hubModel: 422, ownModel: 422} {
		answer := strings.Join(deltas(t, m.events(t, path, aboutMarker(t, model, counting))), "")
		h.expect("POST", path, h.token, aboutMarker(t, model, nil), 200, strings.Split(jsonOf(t, answer), `"`)[1])
		h.expect("POST", path, h.token, aboutMarker(t, model, map[string]any{"temperature": marker}), 400)
		long := saying(strings.Repeat(marker+" ", 1000))
		h.expect("POST", path, h.token, aboutMarker(t, model, map[string]any{"messages": long}), tooLong)
		h.expect("POST", path, h.token, aboutMarker(t, model, map[string]any{"messages": long, "stream": true}), tooLong)
		h.expect("POST", path, "wrong", aboutMarker(t, model, nil), 401)
		log := m.log.String()
		for _, secret := range []string{marker, answer} {
			if len(secret) < 8 || strings.Contains(log, secret) {
				t.Errorf("%s: %q is in the server's log, or too short to tell", model, secret)
			}
		}
		if !strings.Contains(log, "level=DEBUG msg=request") {
			t.Errorf("the log says nothing of requests:\n%s", log)
		}
	}
}

// exports checks lines of /metrics: a request is counted once its answer is
// out, which is when its client may already ask for the next thing.
func (m *models) exports(t *testing.T, lines ...string) {
	t.Helper()
	h := m.in(t)
	err := within(5*time.Second, func() error {
		a, err := h.get(fmt.Sprintf("http://127.0.0.1:%d/metrics", m.meters))
		if err != nil {
			return err
		}
		for _, line := range lines {
			if !strings.Contains(a.body, line+"\n") {
				return fmt.Errorf("status %d, no line %s:\n%s", a.status, line, linesOf(a.body, "dstack_model"))
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("/metrics: %v", err)
	}
}

// linesOf are the lines that begin with something.
func linesOf(text, with string) string {
	var all strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, with) && !strings.Contains(line, "_bucket") {
			all.WriteString(line)
		}
	}
	return all.String()
}
