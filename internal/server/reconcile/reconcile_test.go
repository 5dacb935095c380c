package reconcile_test

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/reconcile"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
	"dstack/internal/spec"
)

// containers is what every fake engine supports.
var containers = dstack.EngineCapabilities{Name: "fake", Containers: true}

// rig is a store and the passes, with one owned machine whose engine is a fake.
type rig struct {
	permit     func() (check func() error) // nil: the server is alone
	t          *testing.T
	store      *store.Store
	engine     *fakeEngine
	set        *backend.Set
	logs       *logs.Store
	broadcast  loop.Broadcast
	project    dstack.Project
	actTimeout time.Duration
	whyNoRent  string // why no machine may be rented
	gateways   reconcile.GatewayOptions
	log        *slog.Logger // nil: discarded
	stop       func()
	passes     *reconcile.Reconciler

	mu    sync.Mutex
	count map[dstack.RunID]dstack.RunLoad // what the gateway reports
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), storetest.NewSQLite(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: s, engine: newFakeEngine(), set: backend.NewSet(), logs: logs.New(filepath.Join(dir, "projects"), 1<<20)}
	t.Cleanup(func() {
		r.kill()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	admin := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: "admin", GlobalRole: dstack.RoleAdmin, TokenHash: "x", CreatedAt: time.Now()}
	r.project = dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: "main", Owner: admin.ID, CreatedAt: time.Now()}
	if err := s.CreateUser(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateProject(t.Context(), r.project); err != nil {
		t.Fatal(err)
	}
	r.set.Add("main", "local", backendtest.NewFake(backendtest.FakeOptions{
		Offers: []dstack.Offer{{
			Backend: "local", Region: "local", Type: "box", OwnedInstance: "this", Key: "local", Host: "here",
			Hardware: dstack.Hardware{CPUs: 2, MemoryMiB: 4096, DiskMiB: 10240}, Engine: containers,
		}},
		NewEngine: func(dstack.InstanceID) engine.Engine { return r.engine },
	}))
	return r
}

// begin starts the passes, as a server does when it starts.
func (r *rig) begin(limits lifecycle.Limits) {
	if limits.StartTimeout == 0 {
		limits.StartTimeout = time.Minute
	}
	if err := r.store.FreeLeases(r.t.Context(), "here"); err != nil {
		r.t.Fatal(err)
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.passes = reconcile.New(reconcile.Options{
		Store: r.store, Backends: r.set, Logs: r.logs, Broadcast: &r.broadcast, Owner: "here/" + uuid.NewString(), Host: "here",
		Limits: limits, ActTimeout: r.actTimeout, Gateways: r.gateways, Log: r.log,
		Permit: r.permit, WhyNoRent: func(context.Context, dstack.ProjectID) (func(float64) (string, string), error) {
			return func(float64) (string, string) { return r.whyNoRent, "" }, nil
		},
	})
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	tasks := append(r.passes.Tasks(), loop.Task{Name: "gateway", Run: r.gateway})
	go func() { done <- loop.Run(ctx, tasks...) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

// gateway reads the route table, and reports the loads that the test has set.
func (r *rig) gateway(ctx context.Context) error {
	for {
		changed := r.broadcast.Changed()
		table, err := r.store.Routes(ctx)
		if err == nil {
			r.mu.Lock()
			counts := dstack.LoadReport{Gateway: "here", Watched: time.Hour, DrainSequence: table.DrainSequence, Runs: maps.Clone(r.count)}
			r.mu.Unlock()
			var woke bool
			if woke, err = r.store.SaveLoadReport(ctx, counts, time.Now()); woke {
				r.passes.Wake()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// counts sets the load that the gateway reports for a run.
func (r *rig) counts(id dstack.RunID, c dstack.RunLoad) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count = map[dstack.RunID]dstack.RunLoad{id: c}
}

// kill stops the passes, as if the server were killed.
func (r *rig) kill() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

func (r *rig) submit(replicas int) dstack.RunID {
	r.t.Helper()
	return r.submitLike(func(s *spec.Service) { s.Replicas = spec.Replicas{Min: replicas, Max: replicas} })
}

// submitLike submits a service. name is its name; none: web.
func (r *rig) submitLike(change func(*spec.Service), name ...string) dstack.RunID {
	r.t.Helper()
	run := dstack.Run{
		ID: dstack.RunID(uuid.NewString()), ProjectID: r.project.ID, Project: "main", User: "admin", Name: append(name, "web")[0],
		Revision: 1, Status: dstack.RunSubmitted, SubmittedAt: time.Now(), Since: time.Now(),
	}
	service, err := spec.ParseService("test", []byte("type: service\nport: 8000\ncommands: [serve]\n"))
	if err != nil {
		r.t.Fatal(err)
	}
	change(service)
	run.Spec = dstack.RunSpec{Configuration: *service, Profile: spec.Profile{Name: "default"}, WorkingDir: ".", RepoData: []byte(`{"repo_type":"virtual"}`)}
	if err := r.store.SubmitRun(r.t.Context(), run); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
	return run.ID
}

func (r *rig) wake() {
	if r.passes != nil {
		r.passes.Wake()
	}
}

// until waits for a condition on a run.
func (r *rig) until(id dstack.RunID, what string, ok func(store.RunDetails) bool) store.RunDetails {
	r.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		changed := r.broadcast.Changed()
		found, err := r.store.RunDetails(r.t.Context(), id)
		if err != nil || len(found) != 1 {
			r.t.Fatal(len(found), err)
		}
		if ok(found[0]) {
			return found[0]
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("never %s: run %s (%s), %d replicas, the first: %+v", what, found[0].Run.Status, found[0].Run.Reason,
				len(found[0].Replicas), found[0].Replicas[:min(5, len(found[0].Replicas))])
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func readyCount(w store.RunDetails) (n int) {
	for _, rep := range w.Replicas {
		if rep.Status == dstack.ReplicaReady {
			n++
		}
	}
	return n
}

func ready(n int) func(store.RunDetails) bool {
	return func(w store.RunDetails) bool { return readyCount(w) == n }
}

func finished(w store.RunDetails) bool { return w.Run.Status.IsFinished() }

func TestPasses_FromSubmitToReadyToStopped(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(2)
	w := r.until(id, "ready", ready(2))

	table, err := r.store.Routes(t.Context())
	if err != nil || len(table.Routes) != 1 || len(table.Routes[0].Ready) != 2 || table.Routes[0].Ready[0].Address != "127.0.0.1:8000" {
		t.Errorf("route table %+v, %v", table, err)
	}
	if w.Run.ReadyAt.IsZero() {
		r.until(id, "noted as ready", func(w store.RunDetails) bool { return !w.Run.ReadyAt.IsZero() })
	}

	if err := r.store.StopRun(t.Context(), id, dstack.StopGraceful, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.wake()
	w = r.until(id, "stopped", finished)
	if w.Run.Status != dstack.RunTerminated || r.engine.count() != 0 {
		t.Errorf("run %s, %d attempts left", w.Run.Status, r.engine.count())
	}
	for _, rep := range w.Replicas {
		key := logs.Key{Project: "main", Run: id, RunName: "web", Attempt: rep.Attempt}
		var text []string
		for line, err := range r.logs.Read(t.Context(), key, time.Time{}, time.Time{}) {
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, string(line.Text))
		}
		if strings.Join(text, "|") != "hello from "+string(rep.Attempt) {
			t.Errorf("kept output %q", text)
		}
	}
}

func TestPasses_ACrashedAttemptIsRestartedAndRecorded(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(1)
	first := r.until(id, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 && !w.Run.ReadyAt.IsZero() }).Replicas[0].Attempt
	r.engine.crash(7)
	w := r.until(id, "ready again", func(w store.RunDetails) bool { return readyCount(w) == 1 && w.Replicas[0].Attempt != first })
	rep := w.Replicas[0]
	if len(rep.PastAttempts) != 1 || rep.PastAttempts[0].ID != first || rep.PastAttempts[0].ExitCode != 7 || rep.PastAttempts[0].LastOutput[0] != "last words" || rep.AttemptNum != 1 {
		t.Errorf("remembered %+v", rep)
	}
}

func TestPasses_ARunThatCannotStartFailsWithTheReason(t *testing.T) {
	r := newRig(t)
	r.engine.refuse = "there is no image x"
	r.begin(lifecycle.Limits{})
	w := r.until(r.submit(1), "failed", finished)
	if w.Run.Status != dstack.RunFailed || w.Run.Reason != "there is no image x" || w.Run.Ending != dstack.EndFailed {
		t.Errorf("run %s: %s", w.Run.Status, w.Run.Reason)
	}
	deadline := time.Now().Add(5 * time.Second)
	for r.engine.count() > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if n := r.engine.count(); n != 0 {
		t.Errorf("%d attempts left behind", n)
	}
}

func TestPasses_ASilentEngineEndsNothing(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(1)
	first := r.until(id, "ready", ready(1)).Replicas[0].Attempt
	r.engine.with(func(e *fakeEngine) { e.silent = true })
	time.Sleep(1500 * time.Millisecond)
	r.engine.with(func(e *fakeEngine) { e.silent = false })
	w := r.until(id, "ready", ready(1))
	if w.Replicas[0].Attempt != first {
		t.Errorf("attempt %s was replaced by %s", first, w.Replicas[0].Attempt)
	}
}

func TestPasses_AnEngineThatHangsCountsAsNotAnswering(t *testing.T) {
	r := newRig(t)
	r.actTimeout = 200 * time.Millisecond
	r.begin(lifecycle.Limits{})
	id := r.submit(1)
	r.until(id, "ready", ready(1))
	r.engine.with(func(e *fakeEngine) { e.hangs = true })
	w := r.until(id, "noted", func(w store.RunDetails) bool { return w.Instances["this"].ConsecutiveFailures > 1 })
	if i := w.Instances["this"]; i.LastError == "" || readyCount(w) != 1 {
		t.Errorf("instance %+v, %d ready", i, readyCount(w))
	}
	r.engine.with(func(e *fakeEngine) { e.hangs = false })
	r.until(id, "heard again", func(w store.RunDetails) bool { return w.Instances["this"].ConsecutiveFailures == 0 })
}

// A server that is killed at any moment and started again runs each replica
// once, and leaves no attempt behind.
func TestPasses_SurviveRepeatedKills(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(3)
	for i := range 12 {
		time.Sleep(time.Duration(i*7) * time.Millisecond)
		r.kill()
		if i%3 == 1 {
			r.engine.crash(1) // while no pass runs
		}
		r.begin(lifecycle.Limits{})
	}
	r.until(id, "ready", ready(3))
	if err := r.store.StopRun(t.Context(), id, dstack.StopAbort, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.kill()
	r.begin(lifecycle.Limits{})
	r.until(id, "stopped", finished)
	r.engine.with(func(e *fakeEngine) {
		if len(e.twice) > 0 || len(e.attempts) > 0 {
			t.Errorf("ran twice: %v; left: %d", e.twice, len(e.attempts))
		}
	})
}

// Attempts that an earlier server started and that no replica has are ended.
func TestPasses_OrphansAreEnded(t *testing.T) {
	r := newRig(t)
	if err := r.engine.Start(t.Context(), dstack.AttemptSpec{Attempt: "orphan", Replica: "gone"}); err != nil {
		t.Fatal(err)
	}
	r.begin(lifecycle.Limits{})
	id := r.submit(1)
	r.until(id, "ready", ready(1))
	deadline := time.Now().Add(5 * time.Second)
	for r.engine.count() > 1 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if n := r.engine.count(); n != 1 {
		t.Errorf("%d attempts, want 1", n)
	}
}

func TestPasses_ANewRevisionReplacesTheOld(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(1)
	w := r.until(id, "ready", ready(1))
	if _, err := r.store.ReviseRun(t.Context(), id, store.Revision{Revision: 1, Spec: w.Run.Spec, User: "admin", NeedsRollout: true, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r.wake()
	w = r.until(id, "ready at revision 2", func(w store.RunDetails) bool {
		for _, rep := range w.Replicas {
			if rep.Status == dstack.ReplicaReady && rep.Revision == 2 {
				return true
			}
		}
		return false
	})
	r.engine.with(func(e *fakeEngine) {
		if len(e.started) != 2 {
			t.Errorf("%d attempts started, want 2", len(e.started))
		}
	})
}
