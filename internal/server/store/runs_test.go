package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// finish ends a run as the passes would.
func (h *fixture) finish(id dstack.RunID, now time.Time) {
	h.t.Helper()
	h.noError(h.s.StopRun(h.t.Context(), id, dstack.StopAbort, "admin", now))
	h.runStep(id, lifecycle.RunStep{To: dstack.RunTerminated, Ending: dstack.EndAborted}, now)
}

func TestSubmit_RefusesTheNameOfAnUnfinishedRun(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		first := h.submit("web", t0)
		second := first
		second.ID = dstack.RunID(uuid.NewString())
		err := h.s.SubmitRun(ctx, second)
		if h.wantKind(dstack.Conflict, err); !strings.Contains(err.Error(), `"web"`) {
			t.Errorf("%v does not name the run", err)
		}
		h.wantKind(dstack.Conflict, h.s.DeleteRuns(ctx, h.project.ID, []string{"web"}))
		h.finish(first.ID, t0)
		h.noError(h.s.SubmitRun(ctx, second))
		got, err := h.s.Run(ctx, h.project.ID, "web")
		if h.noError(err); got.ID != second.ID {
			t.Error("the finished run of the name is still listed")
		}
		if old := h.details(first.ID).Run; !old.Deleted || old.Status != dstack.RunTerminated {
			t.Errorf("the run that was replaced: %+v", old)
		}
	})
}

func TestRun_ReturnsWhatWasSubmitted(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		when := t0.Add(123456 * time.Microsecond)
		want := h.submit("web", when)
		want.Project, want.Status, want.Since, want.ScaledAt, want.Version = "Main", dstack.RunSubmitted, when, when, 1
		want.LatestRevision, want.TemplateRevision, want.DesiredReplicas = 1, 1, 1
		want.IsGlobalAdmin = true
		got, err := h.s.Run(t.Context(), h.project.ID, "web")
		if h.noError(err); !cmp.Equal(got, want) {
			t.Error(cmp.Diff(want, got))
		}
		if !got.Spec.Configuration.Resources.Explicit.CPU || got.Spec.Configuration.Resources.Explicit.Memory {
			t.Error("which sizes were asked for is forgotten")
		}
		_, err = h.s.Run(t.Context(), "another project", "web")
		h.wantKind(dstack.NotFound, err)
	})
}

func TestRevise(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		run, _ := h.ready("web", "127.0.0.1:1", t0)
		if run.ReadyAt.IsZero() {
			t.Fatal("the run never was ready")
		}
		spec := runSpec("web")
		spec.Configuration.Commands = []string{"another"}
		got, err := h.s.ReviseRun(ctx, run.ID, store.Revision{Revision: 1, Spec: spec, User: "bob", NeedsRollout: true, Now: t0})
		if h.noError(err); got.Revision != 2 || !got.ReadyAt.IsZero() || got.Status != dstack.RunActive || got.Spec.Configuration.Commands[0] != "another" || got.User != "bob" {
			t.Errorf("got %+v", got)
		}
		_, err = h.s.ReviseRun(ctx, run.ID, store.Revision{Revision: 1, Spec: spec, User: "bob", NeedsRollout: true, Now: t0})
		h.wantKind(dstack.Conflict, err)
		h.noError(h.s.StopRun(ctx, run.ID, dstack.StopGraceful, "admin", t0))
		_, err = h.s.ReviseRun(ctx, run.ID, store.Revision{Revision: 2, Spec: spec, User: "bob", NeedsRollout: true, Now: t0})
		h.wantKind(dstack.Conflict, err)
		_, err = h.s.ReviseRun(ctx, "nothing", store.Revision{Revision: 1, Spec: spec, User: "bob", NeedsRollout: true, Now: t0})
		h.wantKind(dstack.NotFound, err)
	})
}

func TestStop_AbortOverridesStop(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		for _, c := range []struct{ ask, want dstack.StopRequest }{
			{dstack.StopGraceful, dstack.StopGraceful}, {dstack.StopAbort, dstack.StopAbort}, {dstack.StopGraceful, dstack.StopAbort},
		} {
			h.noError(h.s.StopRun(t.Context(), run.ID, c.ask, "admin", t0))
			if got := h.details(run.ID).Run.Stop; got != c.want {
				t.Errorf("after %q it is %q, want %q", c.ask, got, c.want)
			}
		}
		h.wantKind(dstack.NotFound, h.s.StopRun(t.Context(), "nothing", dstack.StopGraceful, "admin", t0))
	})
}

func TestDelete_AllOrNone(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		ended := h.submit("ended", t0)
		h.finish(ended.ID, t0)
		h.submit("live", t0)
		err := h.s.DeleteRuns(ctx, h.project.ID, []string{"ended", "live"})
		if h.wantKind(dstack.Conflict, err); !strings.Contains(err.Error(), "live") || strings.Contains(err.Error(), "ended") {
			t.Errorf("%v names the wrong run", err)
		}
		if names, err := h.s.RunNames(ctx, h.project.ID); err != nil || !names["ended"] || !names["live"] {
			t.Errorf("names %v, %v", names, err)
		}
		h.noError(h.s.DeleteRuns(ctx, h.project.ID, []string{"ended", "unknown"}))
		if names, err := h.s.RunNames(ctx, h.project.ID); err != nil || names["ended"] || !names["live"] {
			t.Errorf("names %v, %v", names, err)
		}
	})
}

func TestRuns_PagesMeetWithoutGapOrOverlap(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		var all []dstack.Run
		for i := range 9 { // three at each time, so that pages end within a tie
			all = append(all, h.submit(fmt.Sprintf("run-%d", i), t0.Add(time.Duration(i/3)*time.Second)))
		}
		h.finish(all[4].ID, t0.Add(time.Minute))
		for _, ascending := range []bool{false, true} {
			want := slices.Clone(all)
			slices.SortFunc(want, func(a, b dstack.Run) int {
				if c := a.SubmittedAt.Compare(b.SubmittedAt); c != 0 {
					return map[bool]int{true: c, false: -c}[ascending]
				}
				return strings.Compare(string(a.ID), string(b.ID))
			})
			var got []dstack.Run
			q := store.RunQuery{Ascending: ascending, Limit: 2}
			for {
				page, err := h.s.Runs(t.Context(), q)
				if h.noError(err); len(page) == 0 {
					break
				}
				got = append(got, page...)
				last := page[len(page)-1]
				q.BeforeAt, q.BeforeID = last.SubmittedAt, last.ID
			}
			names := func(runs []dstack.Run) (names []string) {
				for _, r := range runs {
					names = append(names, r.Name)
				}
				return names
			}
			if diff := cmp.Diff(names(want), names(got)); diff != "" {
				t.Errorf("ascending %v: %s", ascending, diff)
			}
		}
		for name, c := range map[string]struct {
			q    store.RunQuery
			want int
		}{
			"all":             {store.RunQuery{}, 9},
			"active":          {store.RunQuery{OnlyActive: true}, 8},
			"this project":    {store.RunQuery{Projects: []dstack.ProjectID{h.project.ID}}, 9},
			"no project":      {store.RunQuery{Projects: []dstack.ProjectID{}}, 0},
			"another project": {store.RunQuery{Projects: []dstack.ProjectID{"x"}}, 0},
			"a user":          {store.RunQuery{User: "admin"}, 9},
			"another user":    {store.RunQuery{User: "bob"}, 0},
			"a repo":          {store.RunQuery{Repo: "folder-12345678"}, 9},
			"another repo":    {store.RunQuery{Repo: "x"}, 0},
			"before a time":   {store.RunQuery{BeforeAt: t0.Add(time.Second)}, 3},
		} {
			got, err := h.s.Runs(t.Context(), c.q)
			if h.noError(err); len(got) != c.want {
				t.Errorf("%s: %d runs, want %d", name, len(got), c.want)
			}
		}
	})
}

func TestRunDetails_SurviveARestart(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		exit := dstack.Report{Attempt: r.Attempt, State: dstack.AttemptExited, ExitCode: 3, LastOutput: []string{"bad \xff byte", "\x00"}, StartedAt: t0, EndedAt: t0.Add(time.Second)}
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaReady}, t0)
		h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp}, h.mergeReports(exit), nil, t0)
		past := &dstack.Attempt{ID: r.Attempt, StartedAt: t0, EndedAt: t0.Add(time.Second), Reason: "it crashed", EndState: dstack.AttemptExited, ExitCode: 3, LastOutput: []string{"bye"}}
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaRestarting, EndedAttempt: past, Crashes: 1, FirstCrashAt: t0, RetryAt: t0.Add(time.Second)}, t0)

		before := h.details(run.ID)
		if len(before.Replicas) != 1 || len(before.Reports) != 1 || len(before.Instances) != 1 {
			t.Fatalf("got %d replicas, %d reports, %d instances", len(before.Replicas), len(before.Reports), len(before.Instances))
		}
		if diff := cmp.Diff([]dstack.Attempt{*past}, before.Replicas[0].PastAttempts); diff != "" {
			t.Error(diff)
		}
		name, err := h.s.Installation(t.Context())
		h.noError(err)
		h.restart()
		if diff := cmp.Diff(before, h.details(run.ID)); diff != "" {
			t.Error(diff)
		}
		if again, err := h.s.Installation(t.Context()); err != nil || again != name || name == "" {
			t.Errorf("the installation %q is called %q after a restart (%v)", name, again, err)
		}
		if _, err := h.s.UserByToken(t.Context(), hash("admin")); err != nil {
			t.Error(err)
		}
		twice, err := h.s.RunDetails(t.Context(), "nothing", run.ID, run.ID)
		if h.noError(err); len(twice) != 1 {
			t.Errorf("asked twice for a run: %d answers", len(twice))
		}
	})
}
