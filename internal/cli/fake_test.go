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
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// fake is a server that says what a test tells it to.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	preview api.Preview
	views   []api.RunView // what the run becomes, one look after the other
	looked  int
	list    []api.RunView
	logs    [][]api.LogEntry  // what each opened stream brings
	events  [][]api.EventView // what each poll brings
	history []api.RevisionView
	explain api.Explanation

	// Faults.
	refuse    map[string]refusal // path's end → answer
	cutView   int                // so many looks end without an answer
	cutEvents int                // so many polls for more events do
	cutLogs   int                // so many streams end in the middle of a line
	cutCode   bool               // uploads end half way

	// What came.
	asked    []string
	applied  []api.ApplyRequest
	uploads  map[string][]byte
	repos    []api.InitRepo
	stopped  []api.StopRuns
	polls    []api.EventsRequest
	backs    []api.RollbackRequest
	deleted  []string
	follows  []api.FollowLogs
	streamed int
}

type refusal struct {
	status int
	body   any
}

func newFake(t *testing.T) *fake {
	f := &fake{refuse: map[string]refusal{}, uploads: map[string][]byte{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.URL.Path)
	refused, no := f.refuse[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
	f.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer dst_good":
		answer(w, 403, api.ErrorBody{Detail: map[string]any{"msg": "Invalid token"},
			Error: api.ErrorView{Kind: dstack.Unauthorized, Message: "this token is not known", Hint: "give it again: dstack config"}})
	case no:
		answer(w, refused.status, refused.body)
	case strings.HasSuffix(r.URL.Path, "/logs/follow"):
		f.follow(w, r)
	case strings.HasSuffix(r.URL.Path, "/repos/upload_code"):
		f.upload(w, r)
	default:
		f.call(w, r)
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if text, ok := body.(string); ok {
		io.WriteString(w, text)
		return
	}
	json.NewEncoder(w).Encode(body)
}

func (f *fake) call(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/api/projects/"):
		answer(w, 200, api.Project{ProjectName: strings.ToLower(strings.Split(path, "/")[3])})
	case strings.HasSuffix(path, "/repos/init"):
		f.repos = append(f.repos, body[api.InitRepo](r))
		answer(w, 200, nil)
	case strings.HasSuffix(path, "/runs/preview"):
		got := body[api.RunSpecRequest](r)
		preview := f.preview
		preview.Plan.RunSpec, preview.Plan.User = got.RunSpec, "admin"
		answer(w, 200, preview)
	case strings.HasSuffix(path, "/runs/apply"):
		f.applied = append(f.applied, body[api.ApplyRequest](r))
		answer(w, 200, f.views[0])
	case strings.HasSuffix(path, "/runs/view"):
		f.view(w, r)
	case path == "/api/runs/views":
		f.answerList(w, r)
	case strings.HasSuffix(path, "/runs/stop"):
		f.stopped = append(f.stopped, body[api.StopRuns](r))
		answer(w, 200, nil)
	case strings.HasSuffix(path, "/runs/delete"):
		f.deleted = append(f.deleted, body[api.DeleteRuns](r).RunsNames...)
		answer(w, 200, nil)
	case strings.HasSuffix(path, "/runs/events"):
		ask := body[api.EventsRequest](r)
		if ask.After > 0 && f.cutEvents > 0 {
			f.cutEvents--
			panic(http.ErrAbortHandler)
		}
		f.polls = append(f.polls, ask)
		if n := len(f.polls); n <= len(f.events) {
			answer(w, 200, f.events[n-1])
			return
		}
		f.mu.Unlock()
		<-r.Context().Done()
		f.mu.Lock()
	case strings.HasSuffix(path, "/runs/history"):
		answer(w, 200, f.history)
	case strings.HasSuffix(path, "/runs/rollback"):
		f.backs = append(f.backs, body[api.RollbackRequest](r))
		answer(w, 200, f.views[0])
	case strings.HasSuffix(path, "/runs/explain"):
		answer(w, 200, f.explain)
	default:
		answer(w, 404, `{"detail":"Not Found"}`)
	}
}

func (f *fake) view(w http.ResponseWriter, r *http.Request) {
	ask := body[api.RunViewRequest](r)
	if f.cutView > 0 {
		f.cutView--
		panic(http.ErrAbortHandler)
	}
	for len(f.views) > 0 && f.views[0].Name == ask.RunName {
		at := min(f.looked, len(f.views)-1)
		f.looked++
		if ask.After == "" || f.views[at].Version != ask.After {
			answer(w, 200, f.views[at])
			return
		}
		if at == len(f.views)-1 { // nothing more happens
			f.mu.Unlock()
			<-r.Context().Done()
			f.mu.Lock()
			return
		}
	}
	for _, v := range f.list {
		if v.Name == ask.RunName {
			answer(w, 200, v)
			return
		}
	}
	answer(w, 400, `{"detail":[{"msg":"Run not found","code":"resource_not_exists"}]}`)
}

func (f *fake) answerList(w http.ResponseWriter, r *http.Request) {
	ask := body[api.ListRuns](r)
	list := []api.RunView{}
	for _, v := range f.list {
		if !ask.OnlyActive || !v.Status.IsFinished() {
			list = append(list, v)
		}
	}
	answer(w, 200, list)
}

func (f *fake) follow(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	ask := body[api.FollowLogs](r)
	f.follows = append(f.follows, ask)
	var entries []api.LogEntry
	if f.streamed < len(f.logs) {
		entries = f.logs[f.streamed]
	}
	f.streamed++
	cut := f.cutLogs > 0
	f.cutLogs--
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

func (f *fake) upload(w http.ResponseWriter, r *http.Request) {
	if f.cutCode {
		io.CopyN(io.Discard, r.Body, 10)
		panic(http.ErrAbortHandler)
	}
	file, head, err := r.FormFile("file")
	if err != nil {
		answer(w, 400, `{"detail":[{"msg":"no file","code":"error"}]}`)
		return
	}
	content, _ := io.ReadAll(file)
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != head.Filename {
		answer(w, 400, `{"detail":[{"msg":"the name is not the hash","code":"error"}]}`)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploads[head.Filename] = content
	answer(w, 200, nil)
}

func body[T any](r *http.Request) T {
	var v T
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		panic(err)
	}
	return v
}

// user is somebody at a command line: a folder, a home, an environment.
type user struct {
	t    *testing.T
	dir  string
	home string
	env  map[string]string
	in   io.Reader
	ctx  context.Context
	hub  func(ctx context.Context, model string, tokens []string) (dstack.ChatTemplate, error)
}

func newUser(t *testing.T, f *fake) *user {
	u := &user{t: t, dir: t.TempDir(), home: t.TempDir(), env: map[string]string{}, in: strings.NewReader(""), ctx: t.Context()}
	if f != nil {
		u.env["DSTACK_URL"], u.env["DSTACK_TOKEN"] = f.URL, "dst_good"
	}
	return u
}

// write puts a file into the user's folder.
func (u *user) write(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

type outcome struct {
	code     int
	out, err string
}

// types runs one command line.
func (u *user) types(args ...string) outcome {
	u.t.Helper()
	var out, err bytes.Buffer
	root := New(Options{Version: "1.2.3", In: u.in, Out: &out, Err: &err, Dir: u.dir, Home: u.home, Templates: u.hub,
		Env: func(name string) (string, bool) { v, ok := u.env[name]; return v, ok }})
	root.SetArgs(append([]string{}, args...))
	code := Execute(u.ctx, root)
	return outcome{code, out.String(), err.String()}
}

// want checks the exit status and what was said where.
func (o outcome) want(t *testing.T, code int, out, err []string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit status %d, want %d", o.code, code)
	}
	for _, text := range out {
		if !strings.Contains(o.out, text) {
			t.Errorf("%q is missing in the results", text)
		}
	}
	for _, text := range err {
		if !strings.Contains(o.err, text) {
			t.Errorf("%q was not said", text)
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

func place() api.Placement {
	return api.Placement{Free: "1 of 2 GPUs free", Offer: api.Offer{Backend: "local", Region: "local",
		Instance: api.InstanceType{Name: "box", Resources: api.Resources{CPUs: 16, MemoryMiB: 64 << 10,
			GPUs: []api.GPU{{Name: "L4", MemoryMiB: 24 << 10}}}}}}
}

// life is a run that becomes ready: its views, each with its own version.
func life(steps ...api.RunView) []api.RunView {
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

func starting(progress string) api.RunView {
	return api.RunView{Status: api.StatusStarting, Replicas: []api.ReplicaView{{Status: dstack.ReplicaStarting, Progress: progress, Backend: "local", Instance: "box"}}}
}

var ready = api.RunView{Status: api.StatusReady, Replicas: []api.ReplicaView{{Status: dstack.ReplicaReady}}}
var stopped = api.RunView{Status: api.StatusStopped, Ending: dstack.EndStopped}

func line(seconds int, text string) api.LogEntry {
	return api.LogEntry{Timestamp: time.Unix(1700000000+int64(seconds), 0).UTC(), Attempt: "a", Stream: "stdout", Message: []byte(text)}
}
