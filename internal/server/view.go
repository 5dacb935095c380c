package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/decide/status"
	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/human"
	"dstack/internal/server/store"
)

// buildViews returns the views of runs, with the metrics that the gateways
// reported.
func (s *Server) buildViews(c *apiCall, found ...store.RunDetails) []api.RunView {
	urls := s.urlsFor(c)
	views := make([]api.RunView, 0, len(found))
	for _, details := range found {
		v := buildRunView(details, urls)
		v.Metrics = buildRunMetrics(details)
		views = append(views, v)
	}
	return views
}

// buildRunView returns the view of a run, without metrics.
func buildRunView(details store.RunDetails, urls route.URLs) api.RunView {
	run, conf := details.Run, details.Run.Spec.Configuration
	v := api.RunView{
		ID: run.ID, Project: run.Project, Name: run.Name, User: run.User, Revision: run.Revision,
		Reason: string(run.Reason), Ending: run.Ending, SubmittedAt: run.SubmittedAt.UTC(), Since: run.Since.UTC(),
		ReadyAt: nullIfZero(run.ReadyAt), FinishedAt: nullIfZero(run.FinishedAt),
		DesiredReplicas: run.DesiredReplicas, Min: conf.Replicas.Min, Max: conf.Replicas.Max,
		RolledBack: buildRollbackView(details), Auth: conf.Auth,
		URL:         urls.Run(run.Project, run.Name, string(conf.Gateway)),
		PathURL:     urls.RunByPath(run.Project, run.Name),
		Model:       buildModelView(urls, run),
		Publication: buildPublication(urls, run.Project, run.Name, conf),
		Replicas:    []api.ReplicaView{},
	}
	summary := status.Summarize(status.NewFacts(run, details.Replicas))
	v.Status, v.Ready, v.Serving = viewStates[summary.State], summary.Ready, summary.Serving
	for i, r := range details.Replicas {
		if isShown(details, i) {
			v.Replicas = append(v.Replicas, buildReplicaView(details, r))
		}
	}
	v.Groups = buildGroupViews(details)
	v.ReplicaCount = countReplicaNumbers(details.Replicas)
	v.Version = hashView(v)
	return v
}

// buildGroupViews returns the views of the groups of a run; nil if it has none.
func buildGroupViews(details store.RunDetails) []api.GroupView {
	var views []api.GroupView
	for _, g := range details.Run.Spec.Configuration.Groups {
		group, _ := details.Run.ForGroup(g.Name)
		v := api.GroupView{Name: g.Name, DesiredReplicas: group.DesiredReplicas, Min: g.Replicas.Min, Max: g.Replicas.Max}
		for _, r := range details.Replicas {
			if r.Group == g.Name && r.Status == dstack.ReplicaReady && r.TemplateRevision == details.Run.TemplateRevision {
				v.Ready++
			}
		}
		views = append(views, v)
	}
	return views
}

func countReplicaNumbers(replicas []dstack.Replica) int {
	known := map[int]bool{}
	for _, r := range replicas {
		known[r.Num] = true
	}
	return len(known)
}

// isShown reports whether a view contains replica i: an unfinished one, or the
// last finished one of its number if it failed or the run is ending.
func isShown(details store.RunDetails, i int) bool {
	r := details.Replicas[i]
	if !r.Status.IsFinished() {
		return true
	}
	for _, later := range details.Replicas[i+1:] {
		if later.Num == r.Num {
			return false
		}
	}
	run := details.Run.Status
	return run.IsFinished() || run == dstack.RunTerminating || r.Status == dstack.ReplicaFailed
}

// viewStates maps the state of a run to the status that a view shows.
var viewStates = map[status.State]api.RunStatus{
	status.Submitted: api.StatusWaiting,
	status.Waiting:   api.StatusWaiting,
	status.Starting:  api.StatusStarting,
	status.Ready:     api.StatusReady,
	status.Updating:  api.StatusUpdating,
	status.Degraded:  api.StatusDegraded,
	status.Failing:   api.StatusFailing,
	status.Sleeping:  api.StatusSleeping,
	status.Disabled:  api.StatusSleeping,
	status.Stopping:  api.StatusStopping,
	status.Stopped:   api.StatusStopped,
	status.Failed:    api.StatusFailed,
	status.Unknown:   api.StatusFailing,
}

// buildRollbackView describes the latest revision if it failed; otherwise it
// returns nil.
func buildRollbackView(details store.RunDetails) *api.RollbackView {
	f := details.Failed
	if f == nil {
		return nil
	}
	last := f.LastOutput
	if last == nil {
		last = []string{}
	}
	return &api.RollbackView{From: f.Num, To: details.Run.Revision, Reason: string(f.Reason), Replica: f.Replica,
		LastOutput: last, At: f.At.UTC()}
}

func buildReplicaView(details store.RunDetails, r dstack.Replica) api.ReplicaView {
	report := details.Reports[r.Attempt]
	v := api.ReplicaView{
		Num: r.Num, Revision: r.Revision, Status: r.Status, Reason: string(r.Reason), Since: r.Since.UTC(),
		Restarts: r.AttemptNum, SubmissionID: r.Attempt, LastOutput: findLastOutput(r, report),
	}
	if len(details.Run.Groups) > 0 {
		v.Group = r.Group
	}
	if r.Attempt == "" {
		v.SubmissionID = dstack.AttemptID(r.ID)
	}
	if r.Status == dstack.ReplicaStarting {
		v.Progress = report.Progress
	}
	if r.Status == dstack.ReplicaRestarting {
		v.RetryAt = nullIfZero(r.RetryAt)
	}
	if n := details.Load.Replicas[r.ID]; r.Status == dstack.ReplicaDraining && n > 0 {
		v.Progress = fmt.Sprintf("finishes %s", human.Count(n, "request"))
	}
	if instance, ok := details.Instances[r.Instance]; ok {
		offer := instance.Offer.ShowTo(r.Claim)
		v.Backend, v.Region, v.Instance, v.Spot, v.Price = offer.Backend, offer.Region, cmp.Or(report.Node, offer.Type), offer.Spot, offer.Price
		v.Resources = formatHardware(offer.Hardware)
	}
	return v
}

// findLastOutput returns the last output of the latest attempt that ended, and
// none if the replica is ready again.
func findLastOutput(r dstack.Replica, report dstack.Report) []string {
	switch {
	case r.Status == dstack.ReplicaReady:
		return []string{}
	case report.State.IsOver() && len(report.LastOutput) > 0:
		return report.LastOutput
	case len(r.PastAttempts) > 0 && r.PastAttempts[len(r.PastAttempts)-1].LastOutput != nil:
		return r.PastAttempts[len(r.PastAttempts)-1].LastOutput
	default:
		return []string{}
	}
}

// formatHardware formats hardware as plans do, without what is not known: 4 cpu, 16GB, 1×L4 24GB.
func formatHardware(hw dstack.Hardware) string {
	var parts []string
	if hw.CPUs > 0 {
		parts = append(parts, fmt.Sprintf("%d cpu", hw.CPUs))
	}
	if hw.MemoryMiB > 0 {
		parts = append(parts, human.Gigabytes(hw.MemoryMiB))
	}
	names := make([]string, len(hw.GPUs))
	for i, g := range hw.GPUs {
		names[i] = gpu.Title(g.Name, g.MemoryMiB)
	}
	if len(names) > 0 {
		parts = append(parts, human.CountEach(names, "×"))
	}
	return strings.Join(parts, ", ")
}

func nullIfZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// hashView returns a hash of all fields of a view except Version.
func hashView(v api.RunView) string {
	v.Version = ""
	text, err := json.Marshal(v)
	if err != nil {
		return "" // respondJSON reports the same error
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// recheckInterval is how often a waiting call reads the store without a
// notification, in case another server changed it.
const recheckInterval = time.Second

// waitForView returns the view of a run. If the request has the version of an
// earlier view, it waits until the version has changed or the time is over.
func (s *Server) waitForView(c *apiCall, in api.RunViewRequest) (api.RunView, error) {
	var deadline <-chan time.Time // nil: do not wait
	if in.After != "" && in.WaitSeconds > 0 {
		defer c.endWhenStopping()()
		timer := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
		defer timer.Stop()
		deadline = timer.C
	}
	for {
		changed := s.broadcast.Changed()
		v, err := s.findView(c, in)
		if err != nil || deadline == nil || v.Version != in.After {
			return v, err
		}
		if again, err := waitForChange(c.ctx, changed, deadline); !again {
			return v, err
		}
	}
}

// waitForChange waits until the caller should read the store again: changed is
// closed, or recheckInterval has passed. again is false if the deadline has
// passed or ctx is done.
func waitForChange(ctx context.Context, changed <-chan struct{}, deadline <-chan time.Time) (again bool, err error) {
	recheck := time.NewTimer(recheckInterval)
	defer recheck.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-deadline:
		return false, nil
	case <-changed:
	case <-recheck.C:
	}
	return true, nil
}

// findView returns the view of a run. It fails if the request has the ID of
// another run.
func (s *Server) findView(c *apiCall, in api.RunViewRequest) (api.RunView, error) {
	details, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return api.RunView{}, err
	}
	if in.RunID != "" && in.RunID != string(details.Run.ID) {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict,
			Message: "the run " + in.RunName + " was replaced by another one with the same name",
			Hint:    "see the current one: dstack ps"}
	}
	return s.buildViews(c, details)[0], nil
}

// listViews returns the views of a page of runs.
func (s *Server) listViews(c *apiCall, in api.ListRuns) ([]api.RunView, error) {
	found, err := s.listRunDetails(c, in)
	return s.buildViews(c, found...), err
}
