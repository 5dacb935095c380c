package lifecycle_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// world is one owned machine with its engine, a gateway with its requests, and
// the store's rows of one run, in memory. Time moves only by tick, and
// everything that can go wrong does, one time in so many.
type world struct {
	t   *rapid.T
	now time.Time

	run      dstack.Run
	replicas map[dstack.ReplicaID]*dstack.Replica
	instance *dstack.Instance
	reports  map[dstack.AttemptID]dstack.Report // as saved

	engine map[dstack.AttemptID]*proc // what really is
	of     map[dstack.AttemptID]dstack.ReplicaID
	next   int
	faults bool

	runDue  time.Time // when the run is looked at by itself; zero: never
	touched bool      // somebody made it due

	revisions []revision // the first is number 1
	wanted    int        // by load
	room      int        // how many replicas the machine takes
	web       web
}

// revision is what was applied.
type revision struct {
	shape  int
	broken bool // can never become ready
}

// proc is one attempt on the machine.
type proc struct {
	shape           int
	runsAt, readyAt time.Time // image pulled; port open
	sick            bool      // fails its probes
	sickFor         int       // times in a row that it was seen so
	diesAt          time.Time // when told to stop
	stopping, ended bool
	refused         bool
	code            int
}

const (
	tick  = 500 * time.Millisecond
	place = dstack.InstanceID("this")
)

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: time.Unix(1e6, 0).UTC(), faults: true,
		run:      dstack.Run{ID: "run", Name: "run", Status: dstack.RunSubmitted},
		room:     rapid.IntRange(1, 8).Draw(t, "room"),
		replicas: map[dstack.ReplicaID]*dstack.Replica{},
		reports:  map[dstack.AttemptID]dstack.Report{},
		engine:   map[dstack.AttemptID]*proc{},
		of:       map[dstack.AttemptID]dstack.ReplicaID{},
	}
	w.run.Spec.Configuration.Port.Container = 80
	w.run.Spec.Configuration.Probes = []spec.Probe{{Type: "http"}}
	w.web = web{table: map[dstack.ReplicaID]bool{}, inFlight: map[dstack.ReplicaID][]time.Time{}}
	return w
}

// chance is true about one time in n, and only while faults are on.
func (w *world) chance(n int, what string) bool {
	return w.faults && rapid.IntRange(0, n-1).Draw(w.t, what) == 0
}

func (w *world) later(most int, what string) time.Time {
	return w.now.Add(time.Duration(rapid.IntRange(0, most).Draw(w.t, what)) * tick)
}

func (w *world) tick() {
	w.now = w.now.Add(tick)
	w.live()
	w.serve()
	w.stepRun()
	for _, id := range sorted(w.replicas) {
		w.stepReplica(w.replicas[id])
	}
	if w.instance != nil {
		w.stepInstance()
	}
	w.check()
}

// live is what happens on the machine by itself.
func (w *world) live() {
	for _, id := range sorted(w.engine) {
		p := w.engine[id]
		switch {
		case p.stopping && !w.now.Before(p.diesAt):
			p.ended, p.code = true, 143
		case !p.ended && w.broken(p.shape) && !w.now.Before(p.runsAt):
			p.ended, p.code = true, 1
		case !p.ended && w.chance(60, "it crashes"):
			p.ended, p.code = true, 1
		case w.chance(150, "somebody removes it"):
			delete(w.engine, id)
		case w.chance(40, "its health changes"):
			p.sick = !p.sick
		case !w.faults:
			p.sick = false
		}
	}
}

// isDue says that the run is looked at, as the store would: when it is due, or
// something about its replicas or wishes has changed.
func (w *world) isDue() bool {
	return w.touched || !w.runDue.IsZero() && !w.now.Before(w.runDue)
}

func (w *world) stepRun() {
	if w.wanted != w.run.DesiredReplicas || w.run.Stop != dstack.StopNone {
		w.touched = true // the load, or its user
	}
	if !w.isDue() {
		return
	}
	seen := lifecycle.RunFacts{Run: w.run, DesiredReplicas: w.wanted, ScaleReason: "the load asks for it", InFlight: map[dstack.ReplicaID]int{}}
	for id, requests := range w.web.inFlight {
		seen.InFlight[id] = len(requests)
	}
	for _, id := range sorted(w.replicas) {
		r := w.replicas[id]
		if !r.Status.IsFinished() || (r.Status == dstack.ReplicaFailed && r.TemplateRevision == w.run.TemplateRevision) {
			seen.Replicas = append(seen.Replicas, *r)
		}
	}
	step, err := lifecycle.DecideRun(seen, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.chance(20, "crash before saving a run") {
		return
	}
	if w.run.Status.IsFinished() && step.To != w.run.Status {
		w.t.Fatalf("finished run moved from %s to %s", w.run.Status, step.To)
	}
	w.touched, w.runDue = false, step.Due
	w.run.Status, w.run.Reason, w.run.Ending, w.run.DesiredReplicas = step.To, step.Reason, step.Ending, step.DesiredReplicas
	if step.Ready && w.run.ReadyAt.IsZero() {
		w.run.ReadyAt = w.now
	}
	if step.StableRevision > 0 {
		w.run.StableRevision = step.StableRevision
	}
	if b := step.Rollback; b != nil {
		if b.ToRevision != w.run.StableRevision || b.Reason == "" {
			w.t.Fatalf("falls back to %d with %q; %d has served", b.ToRevision, b.Reason, w.run.StableRevision)
		}
		w.run.Revision, w.run.TemplateRevision = b.ToRevision, w.revisions[b.ToRevision-1].shape
		w.run.ReadyAt, w.run.StableRevision = w.now, 0
	}
	for _, num := range step.Add {
		w.next++
		id := dstack.ReplicaID(fmt.Sprintf("r%04d", w.next))
		w.replicas[id] = &dstack.Replica{ID: id, Num: num, Revision: w.run.Revision, TemplateRevision: w.run.TemplateRevision, Status: dstack.ReplicaWaiting, Since: w.now}
	}
	for _, id := range step.Drain {
		r := w.replicas[id]
		w.move(r, dstack.ReplicaDraining, step.StopReason)
		r.Graceful, r.DrainDeadline = true, w.now.Add(step.DrainTimeout)
	}
	for _, id := range step.Terminate {
		r := w.replicas[id]
		w.move(r, dstack.ReplicaTerminating, step.StopReason)
		r.Graceful = step.Graceful
	}
}

func (w *world) move(r *dstack.Replica, to dstack.ReplicaStatus, why dstack.Reason) {
	if r.Status.IsFinished() && to != r.Status {
		w.t.Fatalf("finished replica %s moved from %s to %s", r.ID, r.Status, to)
	}
	if to == dstack.ReplicaTerminated {
		w.nothingRuns(r)
	}
	if r.Status != to {
		r.Status, r.Since = to, w.now
		if to == dstack.ReplicaReady {
			r.ReadyAt = w.now
		}
	}
	r.Reason = why
}

// nothingRuns fails when an attempt of a replica that is called terminated
// still runs.
func (w *world) nothingRuns(r *dstack.Replica) {
	for id, p := range w.engine {
		if w.of[id] == r.ID && !p.ended && !p.refused {
			w.t.Fatalf("replica %s is terminated, but its attempt %s runs", r.ID, id)
		}
	}
}

func (w *world) stepReplica(r *dstack.Replica) {
	if r.Status.IsFinished() {
		return
	}
	seen := lifecycle.ReplicaFacts{
		Replica: *r, Run: w.run, Load: w.web.load(w),
		Limits: lifecycle.Limits{StartTimeout: time.Minute, PlaceTimeout: time.Minute},
	}
	for _, id := range sorted(w.replicas) {
		if other := w.replicas[id]; other != r && !other.Status.IsFinished() {
			seen.Siblings = append(seen.Siblings, *other)
		}
	}
	if r.Instance != "" {
		seen.Instance = w.instance
	}
	if rep, ok := w.reports[r.Attempt]; ok {
		seen.Report = &rep
	}
	if r.Status == dstack.ReplicaWaiting && !w.chance(3, "no place") {
		all, older := w.placed(r.TemplateRevision)
		switch {
		case all < w.room:
			seen.Placements = []dstack.Placement{{Offer: dstack.Offer{Type: "this", OwnedInstance: place}}}
		case all-older < w.room:
			seen.Blocked = true
		}
	}
	step, err := lifecycle.DecideReplica(seen, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.chance(20, "crash before saving a replica") {
		return
	}
	if step.Placement != nil {
		r.Instance = step.Placement.Offer.OwnedInstance
		if w.instance == nil {
			w.instance = &dstack.Instance{ID: place, Offer: step.Placement.Offer, Status: dstack.InstanceCreating, Since: w.now}
		}
	}
	if step.NewAttempt {
		if r.Attempt != "" {
			r.AttemptNum++
		}
		w.next++
		r.Attempt, r.AttemptAt = dstack.AttemptID(fmt.Sprintf("a%04d", w.next)), w.now
		w.of[r.Attempt] = r.ID
	}
	if step.To == dstack.ReplicaWaiting {
		r.Instance = ""
	}
	w.touched = w.touched || step.To != r.Status || step.NewAttempt || step.Blocked != r.Blocked
	r.Crashes, r.FirstCrashAt, r.RetryAt, r.Blocked = step.Crashes, step.FirstCrashAt, step.RetryAt, step.Blocked
	w.move(r, step.To, step.Reason)
}

// check holds after every tick, whatever went wrong in it.
func (w *world) check() {
	runs := map[dstack.ReplicaID]dstack.AttemptID{}
	nums := map[[2]int]dstack.ReplicaID{}
	for _, id := range sorted(w.engine) {
		p := w.engine[id]
		if p.ended || p.refused || w.now.Before(p.runsAt) {
			continue
		}
		if other, twice := runs[w.of[id]]; twice {
			w.t.Fatalf("replica %s runs twice: %s and %s", w.of[id], other, id)
		}
		runs[w.of[id]] = id
	}
	for _, id := range sorted(w.replicas) {
		r := w.replicas[id]
		if r.Status.IsFinished() {
			continue
		}
		if other, twice := nums[[2]int{r.TemplateRevision, r.Num}]; twice {
			w.t.Fatalf("replicas %s and %s are both number %d of shape %d", other, id, r.Num, r.TemplateRevision)
		}
		nums[[2]int{r.TemplateRevision, r.Num}] = id
	}
}

// apply is what the API and the store do with a new revision.
func (w *world) apply(replicas int, rolls, broken bool) {
	rolls, w.touched = rolls || len(w.revisions) == 0, true
	w.wanted = replicas
	w.run.LatestRevision++
	shape := w.run.LatestRevision
	if rolls {
		if !w.run.ReadyAt.IsZero() {
			w.run.StableRevision = w.run.Revision
		}
		w.run.ReadyAt = time.Time{}
	} else {
		shape, broken = w.run.TemplateRevision, false
	}
	w.run.Revision, w.run.TemplateRevision = w.run.LatestRevision, shape
	w.revisions = append(w.revisions, revision{shape: shape, broken: broken})
}

func (w *world) broken(shape int) bool { return w.revisions[shape-1].broken }

func (w *world) ready() (n int) {
	for _, r := range w.replicas {
		if r.Status == dstack.ReplicaReady && r.TemplateRevision == w.run.TemplateRevision {
			n++
		}
	}
	return n
}

// placed counts those that hold room on the machine, and of them those of
// another shape.
func (w *world) placed(shape int) (all, older int) {
	for _, r := range w.replicas {
		if r.Status.IsFinished() || r.Instance == "" {
			continue
		}
		all++
		if r.TemplateRevision != shape {
			older++
		}
	}
	return all, older
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	ks := make([]K, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
