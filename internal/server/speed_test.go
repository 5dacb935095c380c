package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// speedService is a service of an ordinary size.
const speedService = `
type: service
port: 8000
python: "3.11"
replicas: 3
env: [MODEL=meta-llama/Llama-3.1-8B-Instruct, HF_HOME=/data, WORKERS=4]
commands:
- pip install -q fastapi uvicorn
- uvicorn app:app --host 0.0.0.0 --port 8000 --workers $WORKERS
resources: {cpu: 1, memory: 1GB}
`

// submitServices submits services of three replicas, each with an attempt.
func (h *testServer) submitServices(count int) {
	h.t.Helper()
	h.initRepo()
	for i := range count {
		var run api.Run
		h.mustCall(api.ProjectPrefix+"/runs/submit",
			api.RunSpecRequest{RunSpec: h.newRunSpec(fmt.Sprintf("web-%d", i), speedService)}, &run)
		h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0}, {Num: 1}, {Num: 2}}})
		found, err := h.store.RunDetails(h.t.Context(), run.ID)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, r := range found[0].Replicas {
			h.stepReplica(r.ID, func(dstack.Replica) lifecycle.ReplicaStep {
				return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, Placement: &dstack.Placement{Offer: testOffer()}, NewAttempt: true}
			})
		}
	}
}

// serve calls the handler without a network.
func (h *testServer) serve(path, body string) int {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+h.admin)
	w := httptest.NewRecorder()
	h.server.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		h.t.Fatalf("%s answered %d %s", path, w.Code, w.Body)
	}
	return w.Body.Len()
}

func BenchmarkRuns(b *testing.B) {
	for _, count := range []int{1, 20, 100} {
		h := newTestServer(b)
		h.submitServices(count)
		list := `{"project_name":"main","repo_id":null,"username":null,"only_active":false,"prev_submitted_at":null,"prev_run_id":null,"limit":100,"ascending":false}`
		plan := encodeBody(b, api.RunSpecRequest{RunSpec: h.newRunSpec("web-0", speedService)})
		for _, c := range []struct{ name, path, body string }{
			{"list", "/api/runs/list", list},
			{"views", api.PathViews, list},
			{"plan", "/api/project/main/runs/get_plan", plan},
		} {
			b.Run(fmt.Sprintf("%s-%d", c.name, count), func(b *testing.B) {
				b.ReportAllocs()
				before := usedCPU(b)
				for b.Loop() {
					h.serve(c.path, c.body)
				}
				b.ReportMetric(float64(usedCPU(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func encodeBody(t testing.TB, body any) string {
	t.Helper()
	r := httptest.NewRecorder()
	new(Server).respondJSON(r, http.StatusOK, body)
	return r.Body.String()
}

// A list allocates little for each run: specs that were read before are not decoded again, and what all replicas of a run
// share is computed once.
func TestListRuns_AllocationsPerRun(t *testing.T) {
	const most = 700 // it was 2700 without these
	h := newTestServer(t)
	h.submitServices(11)
	count := func(limit int) float64 {
		body := fmt.Sprintf(`{"project_name":"main","limit":%d}`, limit)
		h.serve("/api/runs/list", body)
		return testing.AllocsPerRun(5, func() { h.serve("/api/runs/list", body) })
	}
	if each := (count(11) - count(1)) / 10; each > most {
		t.Errorf("%.0f allocations for each run, at most %d", each, most)
	}
}

// usedCPU returns the CPU time of the process, which other processes disturb less than elapsed time.
func usedCPU(t testing.TB) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
