package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/store"
)

// viewsOf are runs as people see them, with what the gateway counted.
func (s *Server) viewsOf(found ...store.RunDetails) []api.RunView {
	numbers := s.numbers()
	views := make([]api.RunView, 0, len(found))
	for _, w := range found {
		v := viewOfRun(w, s.names)
		if n, known := numbers[w.Run.ID]; known {
			v.Metrics = &n
		}
		views = append(views, v)
	}
	return views
}

// viewOfRun is a run as a person sees it.
func viewOfRun(w store.RunDetails, at address) api.RunView {
	run, conf := w.Run, w.Run.Spec.Configuration
	v := api.RunView{
		ID: run.ID, Project: run.Project, Name: run.Name, User: run.User, Revision: run.Revision,
		Reason: string(run.Reason), Ending: run.Ending, SubmittedAt: run.SubmittedAt.UTC(), Since: run.Since.UTC(),
		ReadyAt: timeOrNull(run.ReadyAt), FinishedAt: timeOrNull(run.FinishedAt),
		DesiredReplicas: run.DesiredReplicas, Min: conf.Replicas.Min, Max: conf.Replicas.Max, RolledBack: rolledBack(w),
		Auth: conf.Auth, URL: at.service(run.Project, run.Name) + "/", PathURL: at.servicePath(run.Project, run.Name),
		Replicas: []api.ReplicaView{},
	}
	if m := conf.Model; m != nil {
		v.Model = &api.ModelView{Name: m.Name, URL: at.models(run.Project), PathURL: at.modelsPath(run.Project)}
	}
	for i, r := range w.Replicas {
		if r.Status == dstack.ReplicaReady {
			v.Serving++
			if r.TemplateRevision == run.TemplateRevision {
				v.Ready++
			}
		}
		if shown(w, i) {
			v.Replicas = append(v.Replicas, viewOfReplica(w, r))
		}
	}
	v.Status = viewStatus(w, v.Ready)
	v.Version = versionOf(v)
	return v
}

// shown says whether a replica is of interest: those that live, those that
// failed, and in the end the last of each number.
func shown(w store.RunDetails, i int) bool {
	r := w.Replicas[i]
	if !r.Status.IsFinished() {
		return true
	}
	for _, later := range w.Replicas[i+1:] {
		if later.Num == r.Num {
			return false
		}
	}
	return w.Run.Status.IsFinished() || w.Run.Status == dstack.RunTerminating || r.Status == dstack.ReplicaFailed
}

// viewStatus is a run's status in our own words.
func viewStatus(w store.RunDetails, ready int) api.RunStatus {
	if stopAsked(w.Run) {
		return api.StatusStopping
	}
	switch w.Run.Status {
	case dstack.RunSubmitted:
		return api.StatusWaiting
	case dstack.RunActive:
		return viewActive(w, ready)
	case dstack.RunTerminating:
		return api.StatusStopping
	case dstack.RunTerminated:
		return api.StatusStopped
	case dstack.RunFailed:
		return api.StatusFailed
	default:
		return api.StatusFailing
	}
}

// stopAsked says that a run lives on only until the next pass sees the wish.
func stopAsked(run dstack.Run) bool {
	return run.Stop != dstack.StopNone && (run.Status == dstack.RunSubmitted || run.Status == dstack.RunActive)
}

// viewActive is the status of a run that replicas come and go for.
func viewActive(w store.RunDetails, ready int) api.RunStatus {
	live, waiting, failed, serving, older := 0, 0, 0, 0, 0
	for _, r := range w.Replicas {
		if r.Status == dstack.ReplicaFailed && r.TemplateRevision == w.Run.TemplateRevision {
			failed++
		}
		if r.Status.IsFinished() || r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating {
			continue
		}
		live++
		if r.Status == dstack.ReplicaWaiting {
			waiting++
		}
		if r.Status == dstack.ReplicaReady {
			serving++
		}
		if r.TemplateRevision != w.Run.TemplateRevision {
			older++
		}
	}
	switch {
	case w.Run.DesiredReplicas == 0 && live == 0:
		return api.StatusSleeping
	case older > 0 && serving > 0:
		return api.StatusUpdating
	case ready >= w.Run.DesiredReplicas && ready > 0:
		return api.StatusReady
	case serving > 0:
		return api.StatusDegraded
	case !w.Run.ReadyAt.IsZero() && !wakes(w) || failed > 0 && live == 0:
		return api.StatusFailing
	case live == waiting && (live > 0 || len(w.Replicas) == 0):
		return api.StatusWaiting
	default:
		return api.StatusStarting
	}
}

// wakes says that a run which served has no replica because it slept: those it
// has begin for the first time.
func wakes(w store.RunDetails) bool {
	for _, r := range w.Replicas {
		if !r.Status.IsFinished() && (r.Crashes > 0 || !r.ReadyAt.IsZero()) {
			return false
		}
	}
	return w.Run.Spec.Configuration.Replicas.Min == 0
}

// rolledBack tells of the newest revision, if it failed.
func rolledBack(w store.RunDetails) *api.RollbackView {
	f := w.Failed
	if f == nil {
		return nil
	}
	last := f.LastOutput
	if last == nil {
		last = []string{}
	}
	return &api.RollbackView{From: f.Num, To: w.Run.Revision, Reason: string(f.Reason), Replica: f.Replica, LastOutput: last, At: f.At.UTC()}
}

func viewOfReplica(w store.RunDetails, r dstack.Replica) api.ReplicaView {
	report := w.Reports[r.Attempt]
	v := api.ReplicaView{
		Num: r.Num, Revision: r.Revision, Status: r.Status, Reason: string(r.Reason), Since: r.Since.UTC(),
		Restarts: r.AttemptNum, SubmissionID: r.Attempt, LastOutput: lastOutput(r, report),
	}
	if r.Attempt == "" {
		v.SubmissionID = dstack.AttemptID(r.ID)
	}
	if r.Status == dstack.ReplicaStarting {
		v.Progress = report.Progress
	}
	if r.Status == dstack.ReplicaRestarting {
		v.RetryAt = timeOrNull(r.RetryAt)
	}
	if n := w.Load.Replicas[r.ID]; r.Status == dstack.ReplicaDraining && n > 0 {
		v.Progress = fmt.Sprintf("finishes %s", human.Count(n, "request"))
	}
	if instance, ok := w.Instances[r.Instance]; ok {
		offer := instance.Offer
		v.Backend, v.Region, v.Instance, v.Spot, v.Price = offer.Backend, offer.Region, offer.Type, offer.Spot, offer.Price
		v.Resources = plainHardware(offer.Hardware)
	}
	return v
}

// lastOutput is the last lines of what ended last. A replica that is ready
// again needs no reminder.
func lastOutput(r dstack.Replica, report dstack.Report) []string {
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

// plainHardware prints hardware as our plans do: 4 cpu, 16GB, 1×L4 24GB.
func plainHardware(hw dstack.Hardware) string {
	parts := []string{fmt.Sprintf("%d cpu", hw.CPUs), human.Gigabytes(hw.MemoryMiB)}
	if n := len(hw.GPUs); n > 0 {
		parts = append(parts, fmt.Sprintf("%d×%s %s", n, hw.GPUs[0].Name, human.Gigabytes(hw.GPUs[0].MemoryMiB)))
	}
	return strings.Join(parts, ", ")
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// versionOf changes when anything that a view shows does.
func versionOf(v api.RunView) string {
	v.Version = ""
	text, err := json.Marshal(v)
	if err != nil {
		return "" // a view that cannot be written is refused where it is answered
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// recheck is how often those who wait look without having been called.
const recheck = time.Second

// view shows a run; with a version given it waits until that one is past.
func (s *Server) view(c *call, in api.RunViewRequest) (api.RunView, error) {
	var over <-chan time.Time
	if in.After != "" && in.WaitSeconds > 0 {
		limit := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
		defer limit.Stop()
		over = limit.C
	}
	for {
		news := s.bell.Changed()
		v, err := s.viewNamed(c, in)
		if err != nil || over == nil || v.Version != in.After {
			return v, err
		}
		if more, err := awaited(c.ctx, news, over); !more {
			return v, err
		}
	}
}

// awaited waits until it is time to look again: something rang, or nothing has
// for a while. More is false when the wait as a whole is over.
func awaited(ctx context.Context, news <-chan struct{}, over <-chan time.Time) (more bool, err error) {
	again := time.NewTimer(recheck)
	defer again.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-over:
		return false, nil
	case <-news:
	case <-again.C:
	}
	return true, nil
}

func (s *Server) viewNamed(c *call, in api.RunViewRequest) (api.RunView, error) {
	w, err := s.whole(c, in.RunName)
	if err != nil {
		return api.RunView{}, err
	}
	if in.RunID != "" && in.RunID != string(w.Run.ID) {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict, Message: "the run " + in.RunName + " was replaced by another of the same name",
			Hint: "look at the present one: dstack ps"}
	}
	return s.viewsOf(w)[0], nil
}

// views lists runs as people see them.
func (s *Server) views(c *call, in api.ListRuns) ([]api.RunView, error) {
	found, err := s.listWhole(c, in)
	return s.viewsOf(found...), err
}
