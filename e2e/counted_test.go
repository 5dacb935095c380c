package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// counted: what requests took is counted by model and run, for Prometheus and
// for `dstack ps -v`. What they said is nowhere.
func (m *models) counted(t *testing.T) {
	h := m.in(t)
	const marker = "zyzzyva-7351"
	for run, model := range map[string]string{"llama": openaiModel, "tgi3": hubModel} {
		labels := fmt.Sprintf(`model=%q,project="main",run=%q`, model, run)
		body := func(more map[string]any) string {
			all := map[string]any{"model": model, "max_tokens": 8, "temperature": 0, "messages": []map[string]string{{"role": "user", "content": "Spell " + marker}}}
			for name, value := range more {
				all[name] = value
			}
			return jsonOf(t, all)
		}
		path := m.gateway() + "/chat/completions"
		counted := map[string]any{"stream": true, "stream_options": map[string]bool{"include_usage": true}}
		said := strings.Join(deltas(t, m.events(t, path, body(counted))), "")
		h.expect("POST", path, h.token, body(map[string]any{"temperature": marker}), 400)
		var usage struct {
			Usage struct{ Prompt, Completion int }
		}
		_ = usage
		m.exports(t, `dstack_model_requests_total{code="200",`+labels+`} 1`, `dstack_model_requests_total{code="400",`+labels+`} 1`,
			`dstack_model_tokens_total{direction="out",`+labels+`} 8`, `dstack_model_first_token_seconds_count{`+labels+`} 1`,
			`dstack_model_request_seconds_count{`+labels+`} 2`)
		log := m.log.String()
		for _, secret := range []string{marker, said} {
			if len(secret) < 8 || strings.Contains(log, secret) {
				t.Errorf("%q is in the server's log, or too short to tell", secret)
			}
		}
		if !strings.Contains(log, "level=DEBUG") {
			t.Errorf("the log says nothing of this level:\n%s", log)
		}
	}
	h.cli("ps", "-v").exits(0).says("8 out", "first token after", "requests")
}

// exports checks lines of /metrics.
func (m *models) exports(t *testing.T, lines ...string) {
	t.Helper()
	a, err := m.in(t).get(fmt.Sprintf("http://127.0.0.1:%d/metrics", m.meters))
	if err != nil || a.status != 200 {
		t.Fatalf("/metrics: %v, status %d", err, a.status)
	}
	for _, line := range lines {
		if !strings.Contains(a.body, line+"\n") {
			t.Errorf("/metrics has no line %s:\n%s", line, linesOf(a.body, "dstack_model"))
		}
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
