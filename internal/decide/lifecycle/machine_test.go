package lifecycle_test

import (
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

func (w *world) stepInstance() {
	seen := lifecycle.InstanceFacts{Instance: *w.instance, Listed: true, Machine: &dstack.Machine{Alive: true}}
	for _, id := range sorted(w.replicas) {
		if r := w.replicas[id]; r.Instance == place && !r.Status.IsFinished() {
			seen.Replicas = append(seen.Replicas, lifecycle.PlacedReplica{Replica: *r, Run: w.run})
		}
	}
	step, err := lifecycle.DecideInstance(seen, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.instance.Status = step.To
	if step.Action != lifecycle.SyncEngine || w.chance(6, "engine unreachable") {
		return
	}
	heard := w.sync(seen.Replicas)
	if w.chance(20, "crash before saving an instance") {
		return
	}
	saved := map[dstack.AttemptID]dstack.Report{}
	for _, p := range seen.Replicas {
		saved[p.Replica.Attempt] = dstack.Report{Attempt: p.Replica.Attempt, State: dstack.AttemptAbsent, At: w.now}
	}
	for _, rep := range heard {
		if _, placed := saved[rep.Attempt]; placed {
			saved[rep.Attempt] = rep
		}
	}
	w.reports = saved
}

// sync is what an engine does with what it is told.
func (w *world) sync(placed []lifecycle.PlacedReplica) []dstack.Report {
	heard := map[dstack.AttemptID]dstack.Report{}
	for _, id := range sorted(w.engine) {
		heard[id] = w.report(id)
	}
	list := make([]dstack.Report, 0, len(heard))
	for _, id := range sorted(heard) {
		list = append(list, heard[id])
	}
	for _, t := range lifecycle.PlanEngineCommands(placed, list) {
		switch t.Command {
		case lifecycle.StartAttempt:
			if w.engine[t.Attempt] == nil {
				runs := w.later(6, "pulled in")
				w.engine[t.Attempt] = &proc{shape: t.Placed.Replica.TemplateRevision, runsAt: runs, readyAt: runs.Add(2 * tick), refused: w.chance(10, "refused")}
			}
			heard[t.Attempt] = w.report(t.Attempt)
		case lifecycle.StopAttempt:
			w.tellStop(t)
		case lifecycle.RemoveAttempt:
			delete(w.engine, t.Attempt)
			delete(heard, t.Attempt)
		default:
			w.t.Fatalf("unknown verb %q", t.Command)
		}
	}
	list = list[:0]
	for _, id := range sorted(heard) {
		list = append(list, heard[id])
	}
	return list
}

// tellStop checks that nothing healthy and wanted is told to stop, and that
// nobody's request is cut before its time.
func (w *world) tellStop(t lifecycle.EngineCommand) {
	p := w.engine[t.Attempt]
	r := w.replicas[w.of[t.Attempt]]
	healthy := !p.ended && !w.now.Before(p.readyAt) && !p.stopping && !p.sick
	if healthy && r.Status == dstack.ReplicaReady && r.Attempt == t.Attempt {
		w.t.Fatalf("healthy attempt %s of replica %s was told to stop", t.Attempt, r.ID)
	}
	drained := r.Status == dstack.ReplicaTerminating && r.Graceful && !r.DrainDeadline.IsZero()
	if n := len(w.web.inFlight[r.ID]); healthy && n > 0 && drained && w.now.Before(r.DrainDeadline) {
		w.t.Fatalf("attempt %s was told to stop with %d requests in flight, %s before its time", t.Attempt, n, r.DrainDeadline.Sub(w.now))
	}
	if !p.stopping {
		p.stopping, p.diesAt = true, w.later(4, "dies in")
	}
}

func (w *world) report(id dstack.AttemptID) dstack.Report {
	p := w.engine[id]
	rep := dstack.Report{Attempt: id, At: w.now, StartedAt: p.runsAt}
	switch {
	case p.refused:
		rep.State, rep.Error = dstack.AttemptRefused, "no"
	case p.ended:
		rep.State, rep.ExitCode, rep.EndedAt = dstack.AttemptExited, p.code, w.now
	case w.now.Before(p.runsAt):
		rep.State = dstack.AttemptPulling
	default:
		rep.State, rep.Ready = dstack.AttemptRunning, !w.now.Before(p.readyAt)
		if p.sickFor++; !p.sick {
			p.sickFor = 0
		}
		rep.Probes = &dstack.ProbeStatus{Ready: rep.Ready && !p.sick, ConsecutiveFailures: min(p.sickFor, dstack.ProbeFailureThreshold), Message: "GET / answered 500"}
	}
	return rep
}
