package server

import (
	"fmt"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// listEvents tells what happened to the runs of a name. It waits for something
// new where it was asked to.
func (s *Server) listEvents(c *request, in api.EventsRequest) ([]api.EventView, error) {
	var over <-chan time.Time
	if in.WaitSeconds > 0 {
		limit := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
		defer limit.Stop()
		over = limit.C
	}
	for {
		news := s.broadcast.Changed()
		found, err := s.store.Events(c.ctx, c.project.ID, in.RunName, in.After, in.Limit)
		if err != nil || len(found) > 0 || over == nil {
			if err == nil && len(found) == 0 && in.After == 0 {
				_, err = s.findRunDetails(c, in.RunName) // or is there no such run?
			}
			return buildEventViews(found), err
		}
		if more, err := waitForChange(c.ctx, news, over); !more {
			return []api.EventView{}, err
		}
	}
}

func buildEventViews(found []dstack.Event) []api.EventView {
	views := make([]api.EventView, 0, len(found))
	for _, e := range found {
		views = append(views, api.EventView{ID: e.ID, At: e.At.UTC(), RunID: e.Run, RunName: e.RunName, Kind: e.Kind,
			Revision: e.Revision, Replica: e.Replica, From: e.From, To: e.To, User: e.User, Message: e.Message})
	}
	return views
}

// listRevisions lists a run's revisions, newest first.
func (s *Server) listRevisions(c *request, in api.RunName) ([]api.RevisionView, error) {
	w, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return nil, err
	}
	found, err := s.store.Revisions(c.ctx, w.Run.ID)
	if err != nil {
		return nil, err
	}
	views := make([]api.RevisionView, 0, len(found))
	for i, r := range found {
		v := api.RevisionView{Num: r.Num, Current: r.Num == w.Run.Revision, Status: r.Status, User: r.User, At: r.At.UTC(),
			Restores: r.Restores, Reason: string(r.Reason), Changes: []api.Change{}}
		if i+1 < len(found) {
			v.Changes = listChanges(found[i+1].Spec, r.Spec)
		}
		views = append(views, v)
	}
	return views, nil
}

// rollBackRun brings an earlier revision back, as a new one.
func (s *Server) rollBackRun(c *request, in api.RollbackRequest) (api.RunView, error) {
	w, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return api.RunView{}, err
	}
	if w.Run.Status.IsFinished() {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict, Message: in.RunName + " does not run any more", Hint: "start it again: dstack apply"}
	}
	if in.Revision != w.Run.Revision {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict, Message: describeConcurrentChange(in.RunName, in.Revision, w.Run.Revision),
			Hint: "look at it again: dstack history " + in.RunName}
	}
	target, err := s.findRollbackTarget(c, w.Run, in.To)
	if err != nil {
		return api.RunView{}, err
	}
	run, err := s.store.ReviseRun(c.ctx, w.Run.ID, store.Revision{Revision: w.Run.Revision, Spec: target.Spec, User: c.user.Name,
		NeedsRollout: needsRollout(w.Run.Spec, target.Spec), Restores: target.Num, Now: now()})
	if err != nil {
		return api.RunView{}, err
	}
	s.notifyChange()
	return s.viewRevision(c, run)
}

// findRollbackTarget finds the revision that is meant: the one of a number, or the last
// that has served before the present one.
func (s *Server) findRollbackTarget(c *request, run dstack.Run, num int) (dstack.Revision, error) {
	found, err := s.store.Revisions(c.ctx, run.ID)
	if err != nil {
		return dstack.Revision{}, err
	}
	for _, r := range found {
		switch {
		case num == 0 && r.Num < run.Revision && r.Status == dstack.RevisionReady, num == r.Num && num != run.Revision:
			return r, nil
		case num == r.Num:
			return r, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("revision %d of %s is the present one", num, run.Name),
				Hint: "what there is: dstack history " + run.Name}
		}
	}
	if num == 0 {
		return dstack.Revision{}, &dstack.Error{Kind: dstack.Conflict, Message: run.Name + " has no earlier revision that has served",
			Hint: "what there is: dstack history " + run.Name}
	}
	return dstack.Revision{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("%s has no revision %d", run.Name, num),
		Hint: "what there is: dstack history " + run.Name}
}

// explainScaling tells why a run has the replicas that it has, as the next pass would
// decide now.
func (s *Server) explainScaling(c *request, in api.RunName) (api.Explanation, error) {
	w, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return api.Explanation{}, err
	}
	view := buildRunView(w, s.urls)
	x := api.Explanation{RunName: w.Run.Name, Status: view.Status, DesiredReplicas: view.DesiredReplicas, Ready: view.Ready,
		Min: view.Min, Max: view.Max, Scaling: scalingView(w.Run), ScaledAt: w.Run.ScaledAt.UTC(), Load: loadView(w.Load), Obstacles: whyNot(w, view)}
	if w.Run.Status.IsFinished() || w.Run.Status == dstack.RunTerminating {
		return x, nil
	}
	var live []dstack.Replica
	for _, r := range w.Replicas {
		if !r.Status.IsFinished() {
			live = append(live, r)
		}
	}
	x.Decision = autoscale.Decide(autoscale.BuildFacts(w.Run, live, w.Load), now())
	return x, nil
}

func scalingView(run dstack.Run) *api.ScalingView {
	sc := run.Spec.Configuration.Scaling
	if sc == nil {
		return nil
	}
	v := &api.ScalingView{Metric: sc.Metric, Target: sc.Target, Window: 60, UpDelay: int64(sc.ScaleUpDelay), DownDelay: int64(sc.ScaleDownDelay)}
	if sc.Window != nil {
		v.Window = int64(*sc.Window)
	}
	return v
}

func loadView(l dstack.Load) api.LoadView {
	v := api.LoadView{Known: l.Known, Requests: l.Requests, Concurrency: l.Concurrency, InFlight: l.InFlight, Held: l.Held, Watched: l.Watched.Seconds()}
	if l.Window > 0 {
		v.RPS = float64(l.Requests) / l.Window.Seconds()
	}
	return v
}

// whyNot says what keeps a run from what is wanted, one thing a line.
func whyNot(w store.RunDetails, v api.RunView) []string {
	why := []string{}
	if v.Reason != "" {
		why = append(why, v.Reason)
	}
	for _, r := range w.Replicas {
		if r.Status.IsFinished() || r.Status == dstack.ReplicaReady {
			continue
		}
		line := fmt.Sprintf("replica %d is %s", r.Num, r.Status)
		if r.TemplateRevision != w.Run.TemplateRevision {
			line = fmt.Sprintf("replica %d of revision %d is %s", r.Num, r.Revision, r.Status)
		}
		if r.Reason != "" {
			line += ": " + string(r.Reason)
		}
		why = append(why, line)
	}
	if b := v.RolledBack; b != nil {
		why = append(why, fmt.Sprintf("revision %d was rolled back: %s", b.From, b.Reason))
	}
	return why
}
