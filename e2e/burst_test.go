package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	requestCount   = 500
	bodyBytes      = 1_000_000
	maxGrowthBytes = 64 << 20 // of the server, for all requests
)

// requestOutcome is the response to one request, or its error.
type requestOutcome struct {
	response
	err error
}

// sendAtOnce sends n requests with the same body at the same time and returns their
// outcomes.
func (h *harness) sendAtOnce(n int, address string, body []byte) []requestOutcome {
	all := make([]requestOutcome, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			<-start
			all[i].response, all[i].err = h.postBody(address, bytes.NewReader(body))
		})
	}
	close(start)
	wg.Wait()
	return all
}

func (h *harness) postBody(address string, body io.Reader) (response, error) {
	req, err := http.NewRequestWithContext(h.t.Context(), "POST", address, body)
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return response{res.StatusCode, string(text), res.Header}, err
}

// expectGrowthBelow runs a function and checks how much the server's memory grows at
// most during it.
func (h *harness) expectGrowthBelow(what string, maxBytes int64, run func()) {
	h.t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(h.cmd.Process.Pid))
	if err := os.WriteFile(filepath.Join(proc, "clear_refs"), []byte("5"), 0); err != nil { // resets the peak
		h.t.Fatal(err)
	}
	before := readStatusKiB(h.t, proc, "VmRSS")
	run()
	peak, after := readStatusKiB(h.t, proc, "VmHWM"), readStatusKiB(h.t, proc, "VmRSS")
	h.t.Logf("%s: the server used %d KiB before, %d at most and %d after: it grew by %.1f MiB", what, before, peak, after, float64(peak-before)/1024)
	if grown := (peak - before) << 10; grown >= maxBytes {
		h.t.Errorf("%s: the server grew by %d bytes, want less than %d", what, grown, maxBytes)
	}
}

func readStatusKiB(t *testing.T, proc, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", proc, name)
	return 0
}

// TestManyRequestsWakeService sends 500 requests of a megabyte to a sleeping service
// at the same time. All get a response, and the server's memory hardly grows.
func TestManyRequestsWakeService(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applySleeping(h.newFolder(h.workloadConfig("crowded", "replicas: 0..1", fastScaling("rps", 1000), "- LISTEN_AFTER=2000")))
	body := bytes.Repeat([]byte("x"), bodyBytes)
	start := time.Now()
	h.expectGrowthBelow(fmt.Sprintf("%d requests of %d bytes", requestCount, bodyBytes), maxGrowthBytes, func() {
		bad := 0
		for _, r := range h.sendAtOnce(requestCount, h.serviceURL("crowded", "/size"), body) {
			if r.err == nil && r.status == 200 && r.body == strconv.Itoa(bodyBytes) {
				continue
			}
			if bad++; bad <= 5 {
				t.Errorf("status %d, %.200s, %v", r.status, r.body, r.err)
			}
		}
		if bad > 0 {
			t.Errorf("%d of %d requests have no good response", bad, requestCount)
		}
	})
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("all requests have a response after %s: the service was not asleep", took)
	}
	if v := h.fetchRun("crowded"); len(v.Replicas) != 1 || v.Replicas[0].Restarts != 0 {
		t.Errorf("the replica did not start exactly once: %s", formatReplicas(v))
	}
}

// TestManyModelRequestsWakeService sends many requests to a sleeping model. The
// gateway has to read a request to know its model, so it cannot hold all of them: it
// refuses those over the limit with a Retry-After, in the form that OpenAI's clients
// understand.
func TestManyModelRequestsWakeService(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applySleeping(h.newFolder(h.workloadConfig("models", "replicas: 0..1", fastScaling("rps", 1000),
		"model: {type: chat, name: crowd, format: openai}", "- LISTEN_AFTER=2000")))
	address := fmt.Sprintf("http://gateway.localhost:%d/v1/chat/completions", h.port)
	body := fmt.Appendf(nil, `{"model":"crowd","messages":[{"role":"user","content":%q}]}`, strings.Repeat("x", bodyBytes))
	answered, refused := 0, 0
	h.expectGrowthBelow(fmt.Sprintf("%d model requests of %d bytes", requestCount, len(body)), maxGrowthBytes, func() {
		for _, r := range h.sendAtOnce(requestCount, address, body) {
			switch {
			case r.err != nil:
				t.Errorf("no response: %v", r.err)
			case r.status == 200 && strings.Contains(r.body, "chat.completion"):
				answered++
			default:
				refused++
				expectRetryLater(t, r.response)
			}
		}
	})
	t.Logf("%d requests succeeded, %d were refused", answered, refused)
	if answered < 8 || refused == 0 {
		t.Errorf("%d requests succeeded and %d were refused, want some of both", answered, refused)
	}
	streamed := h.expectResponse("POST", address, h.token, `{"model":"crowd","stream":true,"messages":[{"role":"user","content":"hi"}]}`, 200)
	if !strings.HasSuffix(strings.TrimSpace(streamed.body), "[DONE]") {
		t.Errorf("the stream after that is incomplete: %.300s", streamed.body)
	}
}

// expectRetryLater checks that a response is a refusal in OpenAI's form with a
// Retry-After.
func expectRetryLater(t *testing.T, a response) {
	t.Helper()
	var e struct {
		Error struct{ Message, Type, Code string }
	}
	err := json.Unmarshal([]byte(a.body), &e)
	seconds, wait := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != 503 || err != nil || e.Error.Message == "" || e.Error.Type == "" || e.Error.Code == "" || wait != nil || seconds < 1 {
		t.Errorf("status %d, Retry-After %q, %.300s; want 503 in OpenAI's form", a.status, a.header.Get("Retry-After"), a.body)
	}
}

// TestStreamWaitsForSleepingModel checks that a streaming request for a sleeping
// model gets a stream at once, with comments that keep it alive until the model
// answers.
func TestStreamWaitsForSleepingModel(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applySleeping(h.newFolder(h.workloadConfig("wakes", "replicas: 0..1", fastScaling("rps", 1000),
		"model: {type: chat, name: wakes, format: openai}", "- LISTEN_AFTER=7000")))
	address := fmt.Sprintf("http://gateway.localhost:%d/v1/chat/completions", h.port)
	a := h.expectResponse("POST", address, h.token, `{"model":"wakes","stream":true,"messages":[{"role":"user","content":"hi"}]}`, 200)
	if kind := a.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		t.Errorf("the Content-Type is %q", kind)
	}
	first, _, _ := strings.Cut(a.body, "\n")
	if !strings.HasPrefix(first, ":") || !strings.HasSuffix(strings.TrimSpace(a.body), "[DONE]") || strings.Contains(a.body, "error") {
		t.Errorf("a stream that waited seven seconds begins with %q and ends with %q", first, a.body[max(0, len(a.body)-100):])
	}
}
