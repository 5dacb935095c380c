package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/backend"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
)

// testServer is a server with a database on disk. Tests call it over HTTP.
type testServer struct {
	t         testing.TB
	dir       string
	store     *store.Store
	logs      *logs.Store
	broadcast *loop.Broadcast
	server    *Server
	url       string
	admin     string // the admin's token
	backend   *fakeBackend
	wakes     atomic.Int32
	hostWakes atomic.Int32
	log       *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeBackend is a backend without machines. Its offers and its error can be
// set.
type fakeBackend struct {
	offers []dstack.Offer
	fail   error
	engine engine.Engine // nil: none
}

func (f *fakeBackend) Offers(context.Context, dstack.Requirements) ([]dstack.Offer, error) {
	return f.offers, f.fail
}
func (f *fakeBackend) Create(context.Context, backend.CreateRequest) error { return nil }
func (f *fakeBackend) Delete(context.Context, dstack.InstanceID) error     { return nil }
func (f *fakeBackend) Machines(context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	return nil, nil
}
func (f *fakeBackend) Engine(context.Context, dstack.InstanceID) (engine.Engine, error) {
	if f.engine != nil {
		return f.engine, nil
	}
	return nil, errors.New("the test has no engine")
}

func newTestServer(t testing.TB, change ...func(*Options)) *testServer {
	t.Helper()
	h := &testServer{t: t, dir: t.TempDir(), broadcast: &loop.Broadcast{}, admin: "admin-token-0123456789-0123456789", backend: &fakeBackend{offers: []dstack.Offer{testOffer()}}, log: &lockedBuffer{}}
	var err error
	h.store, err = store.Open(t.Context(), storetest.NewSQLite(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := Boot(t.Context(), BootOptions{Store: h.store, Dir: h.dir, Token: h.admin}); err != nil {
		t.Fatal(err)
	}
	h.logs = logs.New(filepath.Join(h.dir, "projects"), 1<<20)
	backends := backend.NewSet()
	backends.Add("main", "local-docker", h.backend)
	o := Options{Store: h.store, Logs: h.logs, Backends: backends, Dir: h.dir, Broadcast: h.broadcast, Wake: func() { h.wakes.Add(1) },
		WakeHosts: func() { h.hostWakes.Add(1) },
		Log:       slog.New(slog.NewTextHandler(h.log, nil))}
	o.BackendTypes = map[string]BackendType{"local": {Choices: map[string]any{"engines": []string{"docker"}}}}
	for _, c := range change {
		c(&o)
	}
	h.server = New(o)
	listening := httptest.NewServer(h.server.Handler())
	h.url = listening.URL
	t.Cleanup(listening.Close)
	return h
}

// apiResponse is a response. text is its body without surrounding spaces.
type apiResponse struct {
	status int
	text   string
	header http.Header
}

func (a apiResponse) errorKind() dstack.Kind {
	var body api.ErrorBody
	_ = json.Unmarshal([]byte(a.text), &body) // no error body, no kind
	return body.Error.Kind
}

// send sends a request and reads the whole response.
func (h *testServer) send(r *http.Request) apiResponse {
	h.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return apiResponse{response.StatusCode, strings.TrimSpace(string(text)), response.Header}
}

// callAs sends a request with a token, if it is not empty. A body that is not a
// string is encoded as JSON.
func (h *testServer) callAs(token, path string, body any) apiResponse {
	h.t.Helper()
	text, isText := body.(string)
	if !isText {
		raw, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		text = string(raw)
	}
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+strings.ReplaceAll(path, "{project_name}", "main"), strings.NewReader(text))
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return h.send(r)
}

// mustCall sends a request as the admin and decodes the response into out,
// which may be nil.
func (h *testServer) mustCall(path string, body, out any) {
	h.t.Helper()
	a := h.callAs(h.admin, path, body)
	if a.status != http.StatusOK {
		h.t.Fatalf("%s answered %d %s", path, a.status, a.text)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(a.text), out); err != nil {
			h.t.Fatalf("%s answered %s: %v", path, a.text, err)
		}
	}
}

// expectError sends a request as the admin and expects an error whose body
// contains part.
func (h *testServer) expectError(path string, body any, status int, kind dstack.Kind, part string) {
	h.t.Helper()
	a := h.callAs(h.admin, path, body)
	if a.status != status || a.errorKind() != kind || !strings.Contains(a.text, part) {
		h.t.Errorf("%s answered %d %s\nwant %d %s with %s", path, a.status, a.text, status, kind, part)
	}
}

// createUser creates a user and returns its token.
func (h *testServer) createUser(name string, role dstack.Role) string {
	h.t.Helper()
	h.mustCall("/api/users/create", api.PutUser{Username: name, GlobalRole: role}, nil)
	var made api.UserWithCreds
	h.mustCall("/api/users/refresh_token", api.Username{Username: name}, &made)
	return made.Creds.Token
}

// initRepo registers the repo of testSpec.
func (h *testServer) initRepo() {
	h.t.Helper()
	h.mustCall(api.ProjectPrefix+"/repos/init", api.InitRepo{RepoID: "web-12345678", RepoInfo: dstack.JSON(`{"repo_type":"local","repo_dir":"/web"}`)}, nil)
}

const plainService = "type: service\nport: 8000\ncommands: [a]\n"

func (h *testServer) newRunSpec(name, yaml string) dstack.RunSpec {
	rs := testSpec(h.t, yaml)
	if name != "" {
		rs.RunName = &name
	}
	return rs
}

// submitRun submits plainService and returns the run.
func (h *testServer) submitRun(name string) api.Run {
	h.t.Helper()
	var run api.Run
	h.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec(name, plainService)}, &run)
	return run
}

// stepRun saves a step of a run, as the run pass does.
func (h *testServer) stepRun(id dstack.RunID, step lifecycle.RunStep) {
	h.t.Helper()
	l := h.claimLease(store.Runs, string(id))
	seen, err := h.store.RunFacts(h.t.Context(), id)
	if err == nil {
		err = h.store.SaveRunStep(h.t.Context(), l, seen, step, time.Now())
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.broadcast.Notify()
}

// stepReplica saves a step of a replica, as the replica pass does.
func (h *testServer) stepReplica(id dstack.ReplicaID, change func(dstack.Replica) lifecycle.ReplicaStep) {
	h.t.Helper()
	l := h.claimLease(store.Replicas, string(id))
	seen, err := h.store.ReplicaFacts(h.t.Context(), id)
	if err == nil {
		step := change(seen.Replica)
		step.Due = time.Now() // so that the test can save the next step
		err = h.store.SaveReplicaStep(h.t.Context(), l, seen, step, time.Now())
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.broadcast.Notify()
}

// claimLease claims the lease of a row that is due.
func (h *testServer) claimLease(kind store.Kind, id string) store.Lease {
	h.t.Helper()
	leases, err := h.store.Claim(h.t.Context(), kind, "test", "", time.Now().Add(time.Hour), time.Millisecond, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range leases {
		if l.ID == id {
			return l
		}
	}
	h.t.Fatalf("%s %s is not due; due are %v", kind, id, leases)
	return store.Lease{}
}

// startReplica activates a run and brings its replica 0 to the status starting.
func (h *testServer) startReplica(id dstack.RunID) dstack.Replica {
	h.t.Helper()
	h.stepRun(id, lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0}}})
	r := h.findReplica(id)
	h.stepReplica(r.ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, Placement: &dstack.Placement{Offer: testOffer()}, NewAttempt: true}
	})
	return h.findReplica(id)
}

// findReplica returns the last replica of a run.
func (h *testServer) findReplica(id dstack.RunID) dstack.Replica {
	h.t.Helper()
	found, err := h.store.RunDetails(h.t.Context(), id)
	if err != nil || len(found) != 1 || len(found[0].Replicas) == 0 {
		h.t.Fatalf("no replica: %+v, %v", found, err)
	}
	return found[0].Replicas[len(found[0].Replicas)-1]
}
