package e2e

import (
	"fmt"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

// TestModelLoading serves a model with a server that opens its port before the model
// is loaded, and answers 503 until then. The service has no probes. Nevertheless
// `apply --wait ready` ends only once the model is there, and no request fails while
// the service changes.
func TestModelLoading(t *testing.T) {
	t.Parallel()
	t.Run("workload", func(t *testing.T) {
		h := newParallelHarness(t, "process")
		h.checkModelLoading(h.newFolder(""), fmt.Sprintf(loadingConfig, "exec ./workload $PORT", "LOAD=1500"),
			"its model is not loaded yet: GET /health answered 503")
	})
	t.Run("llama.cpp", func(t *testing.T) {
		runParallel(t)
		python := needPiece(t, "python", "DSTACK_TEST_PYTHON")
		h := newHarness(t, "process")
		h.checkModelLoading(h.copyFolder("../examples/smollm2"), fmt.Sprintf(loadingConfig, "exec $PYTHON serve.py", "PYTHON="+python))
	})
}

const loadingConfig = `type: service
name: loads
commands:
- %s
port: auto
env:
- HOST=127.0.0.1
- %s
- VERSION=0
model: loads
`

// checkModelLoading applies a configuration in a folder, changes it under traffic, and
// checks that no client sees that the model is loading. apply shows the words.
func (h *harness) checkModelLoading(dir, config string, words ...string) {
	h.t.Helper()
	h.writeFile(dir+"/service.dstack.yml", config)
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m").
		expectExit(0).expectText("GET /health").expectText(words...)
	body := strings.NewReader(`{"model": "loads", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}`)
	if s := h.measureRequest("POST", h.serverURL()+"/v1/chat/completions", body); s.err != nil {
		h.t.Fatalf("the first request after --wait ready: %v", s.err)
	}
	requests := h.startTraffic(20, h.serviceURL("loads", "/v1/models"))
	h.applyChange(dir, setVersion(config, 0, 1))
	requests.expectNoFailure("requests during the change")
	h.expectEvent("loads", dstack.EventReplica, "ready", "draining", "replaced by revision 2")
}
