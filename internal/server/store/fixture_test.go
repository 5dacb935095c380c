package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/stdlib"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
	"dstack/internal/spec"
)

// t0 is the time at which every test begins. The store reads no clock to decide
// what is due.
var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fixture is a fresh database with one user and one project.
type fixture struct {
	t       testing.TB
	url     string
	sealer  *store.Sealer
	s       *store.Store
	user    dstack.User
	project dstack.Project
}

func TestMain(m *testing.M) {
	status := m.Run()
	if err := storetest.DropTemplate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// onBoth runs a test on SQLite, and on PostgreSQL where there is one.
func onBoth(t *testing.T, test func(t *testing.T, h *fixture)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, newFixture(t, storetest.NewSQLite(t)))
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, newFixture(t, storetest.NewPostgres(t)))
	})
}

func newFixture(t testing.TB, where string) *fixture {
	t.Helper()
	sealer, err := store.NewSealer(filepath.Join(t.TempDir(), "encryption.key"))
	if err != nil {
		t.Fatal(err)
	}
	h := &fixture{t: t, url: where, sealer: sealer}
	h.open()
	h.user = dstack.User{ID: dstack.UserID(uuid.NewString()), Name: "admin", GlobalRole: dstack.RoleAdmin, TokenHash: hash("admin"), CreatedAt: t0}
	h.project = dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: "Main", Owner: h.user.ID, CreatedAt: t0}
	h.noError(h.s.CreateUser(t.Context(), h.user))
	h.noError(h.s.CreateProject(t.Context(), h.project))
	t.Cleanup(func() { h.noError(h.s.Close()) })
	return h
}

func hash(token string) string { return strings.Repeat("0", 60) + token }

func (h *fixture) open() {
	h.t.Helper()
	s, err := store.Open(h.t.Context(), h.url, h.sealer)
	h.noError(err)
	h.s = s
}

// restart closes the store and opens it again, as a new process would.
func (h *fixture) restart() {
	h.t.Helper()
	h.noError(h.s.Close())
	h.open()
}

// openRaw opens the database without the store.
func (h *fixture) openRaw() *sql.DB {
	h.t.Helper()
	driver, dsn := "pgx", h.url
	if path, ok := strings.CutPrefix(h.url, "sqlite://"); ok {
		driver, dsn = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, dsn)
	h.noError(err)
	h.t.Cleanup(func() { h.noError(db.Close()) })
	return db
}

var _ = stdlib.GetDefaultDriver // the driver "pgx"

func (h *fixture) noError(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *fixture) wantKind(kind dstack.Kind, err error) {
	h.t.Helper()
	if err == nil || dstack.KindOf(err) != kind {
		h.t.Fatalf("got %v, want an error of kind %s", err, kind)
	}
}

func (h *fixture) ctx() context.Context { return h.t.Context() }

// runSpec parses the configuration of a small service.
func runSpec(name string) dstack.RunSpec {
	spec := dstack.RunSpec{
		RunName: &name, RepoID: "folder-12345678", RepoData: []byte(`{"repo_type":"virtual"}`), WorkingDir: ".",
		ConfigurationPath: "service.dstack.yml", SSHKeyPub: "none",
	}
	text := `{"type": "service", "port": 8000, "commands": ["serve"], "env": {"SECRET": "canary-of-` + name + `"},
		"registry_auth": {"username": "alice", "password": "canary-password"}, "image": "web", "resources": {"cpu": "2.."},
		"model": {"type": "chat", "name": "smol", "format": "openai"}}`
	if err := json.Unmarshal([]byte(text), &spec.Configuration); err != nil {
		panic(err)
	}
	return spec
}

// ranged is runSpec with a range of replicas.
func ranged(name string, least, most int) dstack.RunSpec {
	rs := runSpec(name)
	rs.Configuration.Replicas = spec.Replicas{Min: least, Max: most}
	if least != most {
		window := spec.Seconds(30)
		rs.Configuration.Scaling = &spec.Scaling{Metric: "rps", Target: 10, ScaleUpDelay: 300, ScaleDownDelay: 600, Window: &window}
	}
	return rs
}

// submitted submits a run of a spec.
func (h *fixture) submitted(rs dstack.RunSpec, when time.Time) dstack.Run {
	h.t.Helper()
	run := dstack.Run{ID: dstack.RunID(uuid.NewString()), ProjectID: h.project.ID, User: h.user.Name, Name: *rs.RunName, Spec: rs, SubmittedAt: when}
	h.noError(h.s.SubmitRun(h.ctx(), run))
	return run
}

// submit submits a run that is due at once.
func (h *fixture) submit(name string, when time.Time) dstack.Run {
	h.t.Helper()
	run := dstack.Run{
		ID: dstack.RunID(uuid.NewString()), ProjectID: h.project.ID, User: h.user.Name, Name: name,
		Spec: runSpec(name), Revision: 1, SubmittedAt: when,
	}
	h.noError(h.s.SubmitRun(h.ctx(), run))
	return run
}

// claim leases one row, which must be due.
func (h *fixture) claim(kind store.Kind, id string, now time.Time) store.Lease {
	h.t.Helper()
	var mine *store.Lease
	for _, l := range h.due(kind, now) {
		if l.ID == id {
			mine = &l
		} else {
			h.noError(h.s.Release(h.ctx(), l, now))
		}
	}
	if mine == nil {
		h.t.Fatalf("%s %s is not due", kind, id)
	}
	return *mine
}

// due leases all due rows of a kind.
func (h *fixture) due(kind store.Kind, now time.Time) []store.Lease {
	h.t.Helper()
	leases, err := h.s.Claim(h.ctx(), kind, "here/1", "here", now, time.Minute, 100)
	h.noError(err)
	return leases
}

// isDue reports whether a row is due. It does not change the row.
func (h *fixture) isDue(kind store.Kind, id string, now time.Time) (found bool) {
	h.t.Helper()
	for _, l := range h.due(kind, now) {
		found = found || l.ID == id
		h.noError(h.s.Release(h.ctx(), l, now))
	}
	return found
}

func (h *fixture) runStep(id dstack.RunID, step lifecycle.RunStep, now time.Time) {
	h.t.Helper()
	l := h.claim(store.Runs, string(id), now)
	seen, err := h.s.RunFacts(h.ctx(), id)
	h.noError(err)
	h.noError(h.s.SaveRunStep(h.ctx(), l, seen, step, now))
}

func (h *fixture) replicaStep(id dstack.ReplicaID, step lifecycle.ReplicaStep, now time.Time) {
	h.t.Helper()
	h.noError(h.tryReplicaStep(id, step, now))
}

func (h *fixture) tryReplicaStep(id dstack.ReplicaID, step lifecycle.ReplicaStep, now time.Time) error {
	h.t.Helper()
	l := h.claim(store.Replicas, string(id), now)
	seen, err := h.s.ReplicaFacts(h.ctx(), id)
	h.noError(err)
	return h.s.SaveReplicaStep(h.ctx(), l, seen, step, now)
}

func (h *fixture) instanceStep(
	id dstack.InstanceID, step lifecycle.InstanceStep, reports []dstack.Report, fail error, now time.Time,
) bool {
	h.t.Helper()
	l := h.claim(store.Instances, string(id), now)
	seen, err := h.s.InstanceFacts(h.ctx(), id)
	h.noError(err)
	changed, err := h.s.SaveInstanceStep(h.ctx(), l, seen, step, reports, fail, now)
	h.noError(err)
	return changed
}

// box is an owned machine with two GPUs.
func box() dstack.Offer {
	return dstack.Offer{
		Backend: "local", Key: "local", Region: "local", Type: "box", OwnedInstance: "local-box", Host: "here",
		Hardware: dstack.Hardware{CPUs: 4, MemoryMiB: 8192, DiskMiB: 1 << 20, GPUs: []dstack.GPU{{ID: "GPU-a"}, {ID: "GPU-b"}}},
	}
}

// placed is the step that puts a waiting replica on the box.
func placed(claim dstack.Claim) lifecycle.ReplicaStep {
	return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true, Placement: &dstack.Placement{Offer: box(), Claim: claim}, Due: t0}
}

// replica submits a run and gives it one waiting replica.
func (h *fixture) replica(name string, now time.Time) (dstack.Run, dstack.Replica) {
	h.t.Helper()
	run := h.submit(name, now)
	h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(0), Due: now}, now)
	return h.reread(run.ID)
}

// reread returns a run and its newest replica of the highest number.
func (h *fixture) reread(id dstack.RunID) (dstack.Run, dstack.Replica) {
	h.t.Helper()
	w := h.details(id)
	if len(w.Replicas) == 0 {
		return w.Run, dstack.Replica{}
	}
	return w.Run, w.Replicas[len(w.Replicas)-1]
}

func (h *fixture) details(id dstack.RunID) store.RunDetails {
	h.t.Helper()
	found, err := h.s.RunDetails(h.ctx(), id)
	h.noError(err)
	if len(found) != 1 {
		h.t.Fatalf("got %d runs, want 1", len(found))
	}
	return found[0]
}

// ready creates a replica on the owned machine that is ready at an address.
func (h *fixture) ready(name, address string, now time.Time) (dstack.Run, dstack.Replica) {
	h.t.Helper()
	run, r := h.replica(name, now)
	h.replicaStep(r.ID, placed(dstack.Claim{}), now)
	_, r = h.reread(run.ID)
	h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: now},
		h.mergeReports(running(r.Attempt, address)), nil, now)
	h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaReady}, now)
	h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Ready: true}, now)
	return h.reread(run.ID)
}

// mergeReports returns reports and, of the other attempts on the owned machine, the
// stored ones.
func (h *fixture) mergeReports(reports ...dstack.Report) []dstack.Report {
	h.t.Helper()
	seen, err := h.s.InstanceFacts(h.ctx(), "local-box")
	h.noError(err)
	given := map[dstack.AttemptID]bool{}
	for _, rep := range reports {
		given[rep.Attempt] = true
	}
	for _, rep := range seen.Reports {
		if !given[rep.Attempt] {
			reports = append(reports, rep)
		}
	}
	return reports
}

func running(a dstack.AttemptID, address string) dstack.Report {
	return dstack.Report{Attempt: a, State: dstack.AttemptRunning, Ready: true, Endpoint: dstack.Endpoint{Address: address}, StartedAt: t0}
}

// newNums returns replicas to create with these numbers, of the only group.
func newNums(nums ...int) []lifecycle.NewNum {
	all := make([]lifecycle.NewNum, len(nums))
	for i, num := range nums {
		all[i] = lifecycle.NewNum{Num: num, Group: spec.DefaultGroup}
	}
	return all
}
