package server

import (
	"fmt"

	"dstack/internal/api"
	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
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
		DesiredReplicas: view.DesiredReplicas, Ready: view.Ready, Min: view.Min, Max: view.Max, Scaling: buildScalingView(details.Run), ScaledAt: details.Run.ScaledAt.UTC(),
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
	x.Decision = autoscale.Decide(autoscale.BuildFacts(details.Run, unfinished, details.Load), now())
	return x, nil
}

// buildScalingView returns the scaling rule of a run, nil if it has none.
func buildScalingView(run dstack.Run) *api.ScalingView {
	sc := run.Spec.Configuration.Scaling
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
		line := fmt.Sprintf("replica %d is %s", r.Num, r.Status)
		if r.TemplateRevision != details.Run.TemplateRevision {
			line = fmt.Sprintf("replica %d of revision %d is %s", r.Num, r.Revision, r.Status)
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
