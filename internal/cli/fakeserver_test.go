package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// fakeServer answers requests as a test sets it up, and records them.
type fakeServer struct {
	*httptest.Server
	mu           sync.Mutex
	preview      api.Preview
	views        []api.RunView // the views of the run, one per request
	viewRequests int
	list         []api.RunView
	logs         [][]api.LogEntry  // the entries of each stream
	events       [][]api.EventView // the events of each request
	history      []api.RevisionView
	explain      api.Explanation
	offers       api.OfferList
	secrets      fakeSecrets
	keys         fakeKeys
	fleets       fakeFleets

	// Faults.
	refusals      map[string]refusal // last element of the path → answer
	failingViews  int                // number of view requests without an answer
	failingEvents int                // number of event requests without an answer
	brokenStreams int                // number of streams that break in a line
	failingUpload bool               // uploads break

	// The recorded requests.
	requests      []string
	applied       []api.ApplyRequest
	uploads       map[string][]byte
	repos         []api.InitRepo
	stopped       []api.StopRuns
	eventRequests []api.EventsRequest
	rollbacks     []api.RollbackRequest
	deleted       []string
	logRequests   []api.FollowLogs
	logStreams    int
	offerRequests []api.OffersRequest
}

type refusal struct {
	status int
	body   any
}

func newFakeServer(t *testing.T) *fakeServer {
	f := &fakeServer{refusals: map[string]refusal{}, uploads: map[string][]byte{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serveHTTP))
	t.Cleanup(f.Close)
	return f
}

// hasRequest reports whether a request for a path with this suffix has arrived.
func (f *fakeServer) hasRequest(suffix string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.requests, func(path string) bool { return strings.HasSuffix(path, suffix) })
}

func (f *fakeServer) serveHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.URL.Path)
	refused, no := f.refusals[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
	f.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer dst_good":
		writeAnswer(w, 403, api.ErrorBody{Detail: map[string]any{"msg": "Invalid token"},
			Error: api.ErrorView{Kind: dstack.Unauthorized, Message: "this token is not known", Hint: "give it again: dstack config"}})
	case no:
		writeAnswer(w, refused.status, refused.body)
	case strings.HasSuffix(r.URL.Path, "/logs/follow"):
		f.streamLogs(w, r)
	case strings.HasSuffix(r.URL.Path, "/repos/upload_code"):
		f.acceptUpload(w, r)
	case strings.HasPrefix(r.URL.Path, "/api/files/"):
		f.answerFile(w, r)
	default:
		f.answerCall(w, r)
	}
}

func writeAnswer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if text, ok := body.(string); ok {
		io.WriteString(w, text)
		return
	}
	json.NewEncoder(w).Encode(body)
}

func (f *fakeServer) answerCall(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/api/projects/"):
		writeAnswer(w, 200, api.Project{ProjectName: strings.ToLower(strings.Split(path, "/")[3])})
	case strings.Contains(path, "/keys/"):
		f.keys.answer(w, r)
	case strings.HasSuffix(path, "/repos/init"):
		f.repos = append(f.repos, decodeBody[api.InitRepo](r))
		writeAnswer(w, 200, nil)
	case strings.HasSuffix(path, "/runs/preview"):
		got := decodeBody[api.RunSpecRequest](r)
		preview := f.preview
		preview.Plan.RunSpec, preview.Plan.User = got.RunSpec, "admin"
		writeAnswer(w, 200, preview)
	case strings.HasSuffix(path, "/offers/list"):
		f.offerRequests = append(f.offerRequests, decodeBody[api.OffersRequest](r))
		writeAnswer(w, 200, f.offers)
	case strings.HasSuffix(path, "/runs/apply"):
		ask := decodeBody[api.ApplyRequest](r)
		view := f.views[0]
		if name := ask.RunSpec.RunName; name != nil {
			if refused, no := f.refusals["apply "+*name]; no {
				writeAnswer(w, refused.status, refused.body)
				return
			}
			view.Name = *name
		}
		f.applied = append(f.applied, ask)
		writeAnswer(w, 200, view)
	case strings.HasSuffix(path, "/runs/view"):
		f.answerView(w, r)
	case path == "/api/runs/views":
		f.answerList(w, r)
	case strings.HasSuffix(path, "/runs/stop"):
		f.stopped = append(f.stopped, decodeBody[api.StopRuns](r))
		writeAnswer(w, 200, nil)
	case strings.HasSuffix(path, "/runs/delete"):
		f.deleted = append(f.deleted, decodeBody[api.DeleteRuns](r).RunsNames...)
		writeAnswer(w, 200, nil)
	case strings.HasSuffix(path, "/runs/events"):
		ask := decodeBody[api.EventsRequest](r)
		if ask.After > 0 && f.failingEvents > 0 {
			f.failingEvents--
			panic(http.ErrAbortHandler)
		}
		f.eventRequests = append(f.eventRequests, ask)
		if n := len(f.eventRequests); n <= len(f.events) {
			writeAnswer(w, 200, f.events[n-1])
			return
		}
		f.mu.Unlock()
		<-r.Context().Done()
		f.mu.Lock()
	case strings.HasSuffix(path, "/runs/history"):
		writeAnswer(w, 200, f.history)
	case strings.HasSuffix(path, "/runs/rollback"):
		f.rollbacks = append(f.rollbacks, decodeBody[api.RollbackRequest](r))
		writeAnswer(w, 200, f.views[0])
	case strings.HasSuffix(path, "/runs/explain"):
		writeAnswer(w, 200, f.explain)
	case strings.Contains(path, "/fleets/"):
		f.fleets.answer(w, r)
	case strings.Contains(path, "/secrets/"):
		f.secrets.answer(w, r)
	default:
		writeAnswer(w, 404, `{"detail":"Not Found"}`)
	}
}

func (f *fakeServer) answerView(w http.ResponseWriter, r *http.Request) {
	ask := decodeBody[api.RunViewRequest](r)
	if f.failingViews > 0 {
		f.failingViews--
		panic(http.ErrAbortHandler)
	}
	for len(f.views) > 0 && f.views[0].Name == ask.RunName {
		at := min(f.viewRequests, len(f.views)-1)
		f.viewRequests++
		if ask.After == "" || f.views[at].Version != ask.After {
			writeAnswer(w, 200, f.views[at])
			return
		}
		if at == len(f.views)-1 { // the run does not change any more
			f.mu.Unlock()
			<-r.Context().Done()
			f.mu.Lock()
			return
		}
	}
	for _, v := range f.list {
		if v.Name == ask.RunName {
			writeAnswer(w, 200, v)
			return
		}
	}
	writeAnswer(w, 400, `{"detail":[{"msg":"Run not found","code":"resource_not_exists"}]}`)
}

func (f *fakeServer) answerList(w http.ResponseWriter, r *http.Request) {
	ask := decodeBody[api.ListRuns](r)
	list := []api.RunView{}
	for _, v := range f.list {
		if !ask.OnlyActive || !v.Status.IsFinished() {
			list = append(list, v)
		}
		if ask.PrevRunID != nil && string(v.ID) == *ask.PrevRunID {
			list = list[:0] // the page before ended here
		}
	}
	limit := 100
	if ask.Limit != nil {
		limit = *ask.Limit
	}
	writeAnswer(w, 200, list[:min(limit, len(list))])
}

func (f *fakeServer) streamLogs(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	ask := decodeBody[api.FollowLogs](r)
	f.logRequests = append(f.logRequests, ask)
	var entries []api.LogEntry
	if f.logStreams < len(f.logs) {
		entries = f.logs[f.logStreams]
	}
	f.logStreams++
	cut := f.brokenStreams > 0
	f.brokenStreams--
	f.mu.Unlock()
	out := json.NewEncoder(w)
	for _, e := range entries {
		out.Encode(e)
	}
	w.(http.Flusher).Flush()
	if cut {
		io.WriteString(w, `{"timestamp": "20`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (f *fakeServer) acceptUpload(w http.ResponseWriter, r *http.Request) {
	if f.failingUpload {
		io.CopyN(io.Discard, r.Body, 10)
		panic(http.ErrAbortHandler)
	}
	file, head, err := r.FormFile("file")
	if err != nil {
		writeAnswer(w, 400, `{"detail":[{"msg":"no file","code":"error"}]}`)
		return
	}
	content, _ := io.ReadAll(file)
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != head.Filename {
		writeAnswer(w, 400, `{"detail":[{"msg":"the name is not the hash","code":"error"}]}`)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploads[head.Filename] = content
	writeAnswer(w, 200, nil)
}

func decodeBody[T any](r *http.Request) T {
	var v T
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		panic(err)
	}
	return v
}

// testUser runs commands in a folder, with a home and an environment.
type testUser struct {
	t    *testing.T
	dir  string
	home string
	env  map[string]string
	in   io.Reader
	ctx  context.Context
	hub  func(ctx context.Context, model string, tokens []string) (dstack.ChatTemplate, error)
}

func newTestUser(t *testing.T, f *fakeServer) *testUser {
	u := &testUser{t: t, dir: t.TempDir(), home: t.TempDir(), env: map[string]string{}, in: strings.NewReader(""), ctx: t.Context()}
	if f != nil {
		u.env["DSTACK_URL"], u.env["DSTACK_TOKEN"] = f.URL, "dst_good"
	}
	return u
}

// writeFile writes a file into the current folder.
func (u *testUser) writeFile(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

type commandResult struct {
	code     int
	out, err string
}

// run runs one command line.
func (u *testUser) run(args ...string) commandResult {
	u.t.Helper()
	var out, err bytes.Buffer
	root := New(Options{Version: "1.2.3", In: u.in, Out: &out, Err: &err, Dir: u.dir, Home: u.home, Templates: u.hub,
		Env: func(name string) (string, bool) { v, ok := u.env[name]; return v, ok }})
	root.SetArgs(append([]string{}, args...))
	code := Execute(u.ctx, root)
	return commandResult{code, out.String(), err.String()}
}

// check verifies the exit status, and texts in stdout and in stderr.
func (o commandResult) check(t *testing.T, code int, out, err []string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit status %d, want %d", o.code, code)
	}
	for _, text := range out {
		if !strings.Contains(o.out, text) {
			t.Errorf("%q is missing in stdout", text)
		}
	}
	for _, text := range err {
		if !strings.Contains(o.err, text) {
			t.Errorf("%q is missing in stderr", text)
		}
	}
	if t.Failed() {
		t.Logf("out:\n%s\nerr:\n%s", o.out, o.err)
	}
}

const serviceFile = `type: service
name: web
port: 8000
commands:
  - python3 -m http.server ${{ run.args }}
env:
  - GREETING
  - MODE=plain
`

func testPlacement() api.Placement {
	return api.Placement{Free: "1 of 2 GPUs free", Offer: api.Offer{Backend: "local", Region: "local",
		Instance: api.InstanceType{Name: "box", Resources: api.Resources{CPUs: 16, MemoryMiB: 64 << 10,
			GPUs: []api.GPU{{Name: "L4", MemoryMiB: 24 << 10}}}}}}
}

// runViews completes the views of a run, each with its own version.
func runViews(steps ...api.RunView) []api.RunView {
	began := time.Now().Add(-30 * time.Second)
	for i := range steps {
		v := &steps[i]
		v.ID, v.Name, v.Project, v.SubmittedAt = "11111111-1111-4111-8111-111111111111", "web", "main", began
		v.Version = string(rune('a' + i))
		v.Revision = max(v.Revision, 1)
		v.DesiredReplicas = max(v.DesiredReplicas, 1)
		v.URL, v.PathURL, v.Auth = "http://web.localhost:3000/", "http://127.0.0.1:3000/proxy/services/main/web/", true
		if v.Status == api.StatusReady {
			at := began.Add(20 * time.Second)
			v.ReadyAt, v.Ready = &at, v.DesiredReplicas
		}
	}
	return steps
}

func startingView(progress string) api.RunView {
	return api.RunView{Status: api.StatusStarting, Replicas: []api.ReplicaView{{Status: dstack.ReplicaStarting, Progress: progress, Backend: "local", Instance: "box"}}}
}

var readyView = api.RunView{Status: api.StatusReady, Replicas: []api.ReplicaView{{Status: dstack.ReplicaReady}}}
var stoppedView = api.RunView{Status: api.StatusStopped, Ending: dstack.EndStopped}

func logEntry(seconds int, text string) api.LogEntry {
	return api.LogEntry{Timestamp: time.Unix(1700000000+int64(seconds), 0).UTC(), Attempt: "a", Stream: "stdout", Message: []byte(text)}
}
