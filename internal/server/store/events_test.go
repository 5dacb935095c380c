package store_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func (h *fixture) events(name string, after int64, limit int) []dstack.Event {
	h.t.Helper()
	all, err := h.s.Events(h.ctx(), h.project.ID, name, after, limit)
	h.noError(err)
	return all
}

// messages returns the messages of some kinds of events of a run.
func (h *fixture) messages(name string, kinds ...dstack.EventKind) (all []string) {
	h.t.Helper()
	for _, e := range h.events(name, 0, 1000) {
		if slices.Contains(kinds, e.Kind) {
			all = append(all, e.User+": "+e.Message)
		}
	}
	return all
}

func TestEvents_OfUserRequests(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		h.revise(run.ID, "two", true, t0)
		h.revise(run.ID, "three", false, t0)
		_, err := h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 3, Spec: runSpec("web"), User: "bob", NeedsRollout: true, Restores: 1, Now: t0})
		h.noError(err)
		_, err = h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 3, Spec: runSpec("web"), User: "eve", Now: t0})
		h.wantKind(dstack.Conflict, err)
		for _, stop := range []dstack.StopRequest{dstack.StopGraceful, dstack.StopGraceful, dstack.StopAbort, dstack.StopGraceful} {
			h.noError(h.s.StopRun(h.ctx(), run.ID, stop, "ann", t0))
		}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminated}, t0)
		h.noError(h.s.StopRun(h.ctx(), run.ID, dstack.StopAbort, "eve", t0))
		want := []string{
			"admin: revision 1", "bob: revision 2, rolling", "bob: revision 3, in place", "bob: revision 4, rolling, brings back revision 1",
			"ann: asked to stop", "ann: asked to end at once",
		}
		if got := h.messages("web", dstack.EventApplied, dstack.EventStop); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

func TestEvents_OfSteps(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		h.revise(run.ID, "two", false, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Drain: []dstack.ReplicaID{r.ID}, StopReason: "tired"}, t0.Add(time.Second))
		all := h.events("web", 0, 0)
		if len(all) < 5 {
			t.Fatalf("got %+v", all)
		}
		for _, e := range all {
			if e.Run != run.ID || e.RunName != "web" || e.Project != h.project.ID || e.At.IsZero() {
				t.Errorf("got %+v", e)
			}
		}
		last := all[len(all)-1]
		if last.Replica == nil || *last.Replica != 0 || last.From != "ready" || last.To != "draining" || last.Message != "tired" || !last.At.Equal(t0.Add(time.Second)) {
			t.Errorf("got %+v", last)
		}
		if n := len(h.events("other", 0, 0)); n > 0 {
			t.Errorf("%d events of another name", n)
		}
	})
}

func TestEvents_PagesAndOutlivesItsRun(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		for i := range 4 {
			h.revise(run.ID, fmt.Sprint(i), false, t0)
		}
		all := h.events("web", 0, 0)
		if len(all) != 5 || !slices.IsSortedFunc(all, func(a, b dstack.Event) int { return int(a.ID - b.ID) }) {
			t.Fatalf("got %+v", all)
		}
		for _, c := range []struct {
			after int64
			limit int
			want  []dstack.Event
		}{{0, 2, all[3:]}, {all[2].ID, 0, all[3:]}, {all[1].ID, 2, all[3:]}, {all[4].ID, 0, nil}} {
			got := h.events("web", c.after, c.limit)
			if !slices.EqualFunc(got, c.want, func(a, b dstack.Event) bool { return a.ID == b.ID }) {
				t.Errorf("after %d, %d of them: %+v", c.after, c.limit, got)
			}
		}
		h.finish(run.ID, t0)
		h.noError(h.s.DeleteRuns(h.ctx(), h.project.ID, []string{"web"}))
		again := h.submit("web", t0.Add(time.Hour))
		got := h.events("web", 0, 0)
		if got[0].ID != all[0].ID || got[len(got)-1].Run != again.ID {
			t.Errorf("the history of the name is %+v", got)
		}
	})
}

func TestEvents_AreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		h.submit("other", t0)
		raw := h.openRaw()
		for i := range 1100 {
			_, err := raw.ExecContext(h.ctx(), fmt.Sprintf(`INSERT INTO events (id, project_id, run_id, run_name, at, kind, revision, was, became, username, message)
				VALUES (%d, '%s', '%s', 'web', %d, 'run', 1, '', '', '', '')`, i+10, h.project.ID, run.ID, t0.UnixMicro()))
			h.noError(err)
		}
		_, err := raw.ExecContext(h.ctx(), "UPDATE installation SET events = 1148")
		h.noError(err)
		count := func(name string) (n int) {
			h.noError(raw.QueryRowContext(h.ctx(), fmt.Sprintf("SELECT COUNT(*) FROM events WHERE run_name = '%s'", name)).Scan(&n))
			return n
		}
		h.revise(run.ID, "two", false, t0) // 1149
		if n := count("web"); n != 1102 {
			t.Errorf("%d events", n)
		}
		h.revise(run.ID, "three", false, t0) // 1150
		if n := count("web"); n != 1000 {
			t.Errorf("%d events are kept", n)
		}
		if n := len(h.events("web", 0, 5000)); n != 1000 || count("other") != 1 {
			t.Errorf("%d events, and %d of another", n, count("other"))
		}
		_, err = raw.ExecContext(h.ctx(), "UPDATE installation SET events = 1199")
		h.noError(err)
		h.submit("third", t0.Add(90*24*time.Hour+time.Second))
		if count("web")+count("other") > 0 || count("third") != 1 {
			t.Error("what is older than 90 days is kept")
		}
	})
}

// A reader that has seen an event has missed none before it.
func TestEvents_IDsFollowCommitOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		var runs []dstack.Run
		for i := range 8 {
			runs = append(runs, h.submit(fmt.Sprintf("run-%d", i), t0))
		}
		var group sync.WaitGroup
		for _, run := range runs {
			group.Go(func() {
				for i := range 5 {
					rs := runSpec(run.Name)
					if _, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: i + 1, Spec: rs, Now: t0}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { group.Wait(); close(done) }()
		raw := h.openRaw()
		var last, seen int64
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			default:
			}
			var n, most int64
			h.noError(raw.QueryRowContext(t.Context(), "SELECT COUNT(*), MAX(id) FROM events").Scan(&n, &most))
			if n != most || most < last {
				t.Fatalf("%d events up to number %d", n, most)
			}
			last, seen = most, n
		}
		if seen != 48 {
			t.Errorf("%d events", seen)
		}
	})
}

func TestFindEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		web, _ := h.ready("web", "127.0.0.1:1", t0)
		h.submit("other", t0.Add(time.Minute))
		all := store.EventQuery{Projects: []dstack.ProjectID{h.project.ID}, OfRuns: true, OfReplicas: true, Limit: 100}
		find := func(change func(*store.EventQuery)) []dstack.Event {
			q := all
			change(&q)
			found, err := h.s.FindEvents(h.ctx(), q)
			h.noError(err)
			return found
		}
		newest := find(func(*store.EventQuery) {})
		oldest := find(func(q *store.EventQuery) { q.Ascending = true })
		n := len(newest)
		if n < 4 || n != len(oldest) || newest[0].ID != oldest[n-1].ID || newest[0].RunName != "other" {
			t.Fatalf("newest first: %+v; oldest first: %+v", newest, oldest)
		}
		for name, c := range map[string]struct {
			change func(*store.EventQuery)
			want   int
		}{
			"a page":                  {func(q *store.EventQuery) { q.Limit = 2 }, 2},
			"the next page":           {func(q *store.EventQuery) { q.BeyondID = newest[1].ID }, n - 2},
			"the next page ascending": {func(q *store.EventQuery) { q.Ascending, q.BeyondID = true, oldest[0].ID }, n - 1},
			"later":                   {func(q *store.EventQuery) { q.Ascending, q.Beyond = true, t0 }, 1},
			"earlier":                 {func(q *store.EventQuery) { q.Beyond = t0.Add(time.Second) }, n - 1},
			"of a run":                {func(q *store.EventQuery) { q.Runs = []dstack.RunID{web.ID} }, n - 1},
			"of no project":           {func(q *store.EventQuery) { q.Projects = nil }, 0},
			"of another project":      {func(q *store.EventQuery) { q.Projects = []dstack.ProjectID{"x"} }, 0},
			"of nobody":               {func(q *store.EventQuery) { q.Users = []string{"nobody"} }, 0},
			"of neither kind":         {func(q *store.EventQuery) { q.OfRuns, q.OfReplicas = false, false }, 0},
		} {
			if got := find(c.change); len(got) != c.want {
				t.Errorf("%s: %d of %d events, want %d", name, len(got), n, c.want)
			}
		}
		runs := find(func(q *store.EventQuery) { q.OfReplicas = false })
		replicas := find(func(q *store.EventQuery) { q.OfRuns = false })
		if len(runs)+len(replicas) != n || len(replicas) == 0 || slices.ContainsFunc(runs, func(e dstack.Event) bool { return e.Replica != nil }) {
			t.Errorf("of runs: %+v; of replicas: %+v", runs, replicas)
		}
	})
}
