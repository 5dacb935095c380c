package server

import (
	"fmt"

	"dstack/internal/api"
	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// explainScaling explains why a run has its current number of replicas. It makes
// the same decision as the run pass would now.
func (s *Server) explainScaling(c *apiCall, in api.RunName) (api.Explanation, error) {
	details, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return api.Explanation{}, err
	}
	view := buildRunView(details, s.urlsFor(c))
	x := api.Explanation{RunName: details.Run.Name, Status: view.Status,
		DesiredReplicas: view.DesiredReplicas, Ready: view.Ready, Min: view.Min, Max: view.Max,
		Scaling: buildScalingView(details.Run.Spec.Configuration.Scaling), ScaledAt: details.Run.ScaledAt.UTC(),
		Load: buildLoadView(details.Load), Obstacles: listObstacles(details, view)}
	if details.Run.Status.IsFinished() || details.Run.Status == dstack.RunTerminating {
		return x, nil
	}
	var unfinished []dstack.Replica
	for _, r := range details.Replicas {
		if !r.Status.IsFinished() {
			unfinished = append(unfinished, r)
		}
	}
	decisions := autoscale.DecideGroups(details.Run, unfinished, details.Load, now())
	if len(view.Groups) == 0 {
		x.Decision = decisions[0].Decision
		return x, nil
	}
	x.Decision.Reason = "each group has its own number of replicas"
	for i, d := range decisions {
		group, _ := details.Run.ForGroup(d.Group)
		x.Groups = append(x.Groups, api.GroupExplanation{GroupView: view.Groups[i], Decision: d.Decision, ScaledAt: group.ScaledAt.UTC(),
			Scaling: buildScalingView(group.Spec.Configuration.Scaling)})
		x.Decision.DesiredReplicas += d.DesiredReplicas
		x.Decision.Target += d.Target
	}
	return x, nil
}

// buildScalingView returns a scaling rule, nil if there is none.
func buildScalingView(sc *spec.Scaling) *api.ScalingView {
	if sc == nil {
		return nil
	}
	v := &api.ScalingView{Metric: sc.Metric, Target: sc.Target, Window: int64(sc.EffectiveWindow()),
		UpDelay: int64(sc.ScaleUpDelay), DownDelay: int64(sc.ScaleDownDelay)}
	return v
}

func buildLoadView(l dstack.Load) api.LoadView {
	v := api.LoadView{Known: l.Known, Requests: l.Requests, Concurrency: l.Concurrency, InFlight: l.InFlight, Held: l.Held,
		Watched: l.Watched.Seconds()}
	if l.Window > 0 {
		v.RPS = float64(l.Requests) / l.Window.Seconds()
	}
	return v
}

// ofGroup returns the words for a replica's group; empty: the service has no groups.
func ofGroup(run dstack.Run, r dstack.Replica) string {
	if len(run.Groups) == 0 {
		return ""
	}
	return " of group " + r.Group
}

// listObstacles lists, for the user, why a run does not have all of its desired
// replicas ready.
func listObstacles(details store.RunDetails, v api.RunView) []string {
	obstacles := []string{}
	if v.Reason != "" {
		obstacles = append(obstacles, v.Reason)
	}
	for _, r := range details.Replicas {
		if r.Status.IsFinished() || r.Status == dstack.ReplicaReady {
			continue
		}
		line := fmt.Sprintf("replica %d%s is %s", r.Num, ofGroup(details.Run, r), r.Status)
		if r.TemplateRevision != details.Run.TemplateRevision {
			line = fmt.Sprintf("replica %d%s of revision %d is %s", r.Num, ofGroup(details.Run, r), r.Revision, r.Status)
		}
		if r.Reason != "" {
			line += ": " + string(r.Reason)
		}
		obstacles = append(obstacles, line)
	}
	if b := v.RolledBack; b != nil {
		obstacles = append(obstacles, fmt.Sprintf("revision %d was rolled back: %s", b.From, b.Reason))
	}
	return obstacles
}
