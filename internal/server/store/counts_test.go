package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// reportLoad saves a gateway's report at a time, which becomes the present.
func (h *fixture) reportLoad(gateway string, drains int64, runs map[dstack.RunID]dstack.RunLoad, now time.Time) (woke bool) {
	h.t.Helper()
	h.s.SetClock(func() time.Time { return now })
	woke, err := h.s.SaveLoadReport(h.ctx(), dstack.LoadReport{Gateway: gateway, DrainSequence: drains, Watched: time.Hour, Runs: runs}, now)
	h.noError(err)
	return woke
}

func (h *fixture) load(id dstack.RunID) dstack.Load {
	h.t.Helper()
	seen, err := h.s.RunFacts(h.ctx(), id)
	h.noError(err)
	if diff := cmp.Diff(seen.Load, h.details(id).Load); diff != "" {
		h.t.Errorf("RunFacts and RunDetails have different loads: %s", diff)
	}
	if diff := cmp.Diff(seen.Load.Replicas, seen.InFlight); diff != "" {
		h.t.Error(diff)
	}
	return seen.Load
}

type counts = map[dstack.RunID]dstack.RunLoad

func sec(n int) time.Duration { return time.Duration(n) * time.Second }

func TestLoad_SumsRecentReportsOfGateways(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submitted(ranged("web", 0, 4), t0) // a window of 30 s
		none := map[dstack.ReplicaID]bool{}
		h.s.SetClock(func() time.Time { return t0 })
		if diff := cmp.Diff(dstack.Load{}, h.load(run.ID)); diff != "" {
			t.Errorf("without reports: %s", diff)
		}
		h.reportLoad("a", 0, counts{run.ID: {Window: sec(30), Watched: sec(20), Requests: 7, Concurrency: 1.5, InFlight: 2, Held: 1, Replicas: map[dstack.ReplicaID]int{"x": 1, "y": 1}}}, t0)
		want := dstack.Load{Known: true, Window: sec(30), Watched: sec(20), Requests: 7, Concurrency: 1.5, InFlight: 2, Held: 1, Replicas: map[dstack.ReplicaID]int{"x": 1, "y": 1}, Drained: none}
		if diff := cmp.Diff(want, h.load(run.ID)); diff != "" {
			t.Errorf("one report: %s", diff)
		}
		h.reportLoad("b", 0, nil, t0.Add(sec(5)))
		if diff := cmp.Diff(want, h.load(run.ID)); diff != "" {
			t.Errorf("a report, and an empty one: %s", diff)
		}
		h.reportLoad("b", 0, counts{run.ID: {Window: sec(30), Watched: sec(10), Requests: 1, Concurrency: 0.25, InFlight: 1, Replicas: map[dstack.ReplicaID]int{"y": 1}}}, t0.Add(sec(6)))
		want = dstack.Load{Known: true, Window: sec(30), Watched: sec(10), Requests: 8, Concurrency: 1.75, InFlight: 3, Held: 1, Replicas: map[dstack.ReplicaID]int{"x": 1, "y": 2}, Drained: none}
		if diff := cmp.Diff(want, h.load(run.ID)); diff != "" {
			t.Errorf("two reports: %s", diff)
		}
		h.reportLoad("b", 0, nil, t0.Add(sec(10)))
		want = dstack.Load{Known: true, Window: sec(30), Watched: sec(30), Replicas: map[dstack.ReplicaID]int{"x": 1, "y": 1}, Drained: none} // a may still have them in flight
		if diff := cmp.Diff(want, h.load(run.ID)); diff != "" {
			t.Errorf("ten seconds after the report of a: %s", diff)
		}
		for name, now := range map[string]time.Time{"later": t0.Add(sec(20)), "the clock is set back": t0.Add(-sec(11))} {
			h.s.SetClock(func() time.Time { return now })
			if load := h.load(run.ID); load.Known {
				t.Errorf("%s: %+v", name, load)
			}
		}
	})
}

// A gateway that has just started has not counted for a whole window.
func TestLoad_OfANewGateway(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submitted(ranged("web", 0, 4), t0)
		h.s.SetClock(func() time.Time { return t0 })
		for _, c := range []struct{ counts, want int }{{0, 0}, {12, 12}, {90, 30}} {
			_, err := h.s.SaveLoadReport(h.ctx(), dstack.LoadReport{Gateway: "a", Watched: sec(c.counts), Runs: counts{"other": {Requests: c.counts}}}, t0)
			h.noError(err)
			if load := h.load(run.ID); load.Watched != sec(c.want) || !load.Known {
				t.Errorf("after %d seconds: %+v", c.counts, load)
			}
		}
	})
}

// A gateway without a recent report may still have requests in flight.
func TestLoad_DrainedNeedsEveryGateway(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:80", t0)
		h.runStepDue(run.ID, lifecycle.RunStep{To: dstack.RunActive, Drain: []dstack.ReplicaID{r.ID}, DrainTimeout: sec(600)})
		h.reportLoad("b", 1, counts{run.ID: {InFlight: 1, Replicas: map[dstack.ReplicaID]int{r.ID: 1}}}, t0)
		for _, c := range []struct {
			after int
			quiet bool
		}{{5, false}, {15, false}, {50, false}, {70, true}} {
			now := t0.Add(sec(c.after))
			h.s.SetClock(func() time.Time { return now })
			h.reportLoad("a", 1, nil, now)
			if load := h.load(run.ID); load.Drained[r.ID] != c.quiet {
				t.Errorf("%d seconds after b reported a request: %+v", c.after, load)
			}
		}
	})
}

// An unchanged report is written at most every three seconds.
func TestLoadReport_UnchangedIsWrittenRarely(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submitted(ranged("web", 0, 4), t0)
		raw := h.openRaw()
		readReport := func() (drains int64, at time.Time) {
			var us int64
			h.noError(raw.QueryRowContext(t.Context(), "SELECT drains, at FROM gateways WHERE name = 'a'").Scan(&drains, &us))
			return drains, time.UnixMicro(us).UTC()
		}
		one, two := counts{run.ID: {Requests: 1}}, counts{run.ID: {Requests: 2}}
		for _, c := range []struct {
			name     string
			at       int
			drains   int64
			runs     counts
			woke     bool
			written  int
			ofDrains int64
		}{
			{"the first", 0, 0, one, true, 0, 0},
			{"the same", 1, 0, one, false, 0, 0},
			{"a new table and nothing drains", 2, 5, one, false, 0, 0},
			{"after three seconds", 3, 5, one, false, 3, 5},
			{"another count", 4, 5, two, true, 4, 5},
			{"none", 5, 5, nil, true, 5, 5},
			{"none again", 6, 5, nil, false, 5, 5},
		} {
			if woke := h.reportLoad("a", c.drains, c.runs, t0.Add(sec(c.at))); woke != c.woke {
				t.Errorf("%s: woke %v", c.name, woke)
			}
			if drains, at := readReport(); !at.Equal(t0.Add(sec(c.written))) || drains != c.ofDrains {
				t.Errorf("%s: written at %v of %d", c.name, at, drains)
			}
		}
	})
}

func TestLoadReport_OnlyUnfinishedRunsForAMinute(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		live, ended := h.submit("live", t0), h.submit("ended", t0)
		h.finish(ended.ID, t0)
		h.reportLoad("a", 0, counts{live.ID: {Requests: 1}, ended.ID: {Requests: 1}, "unknown": {Requests: 1}}, t0)
		rows := func() (gateways, n int) {
			h.noError(h.openRaw().QueryRowContext(t.Context(), "SELECT (SELECT COUNT(*) FROM gateways), (SELECT COUNT(*) FROM counts)").Scan(&gateways, &n))
			return gateways, n
		}
		if gateways, n := rows(); gateways != 1 || n != 1 {
			t.Errorf("%d gateways with %d counts", gateways, n)
		}
		h.reportLoad("b", 0, nil, t0.Add(sec(60)))
		if gateways, n := rows(); gateways != 2 || n != 1 {
			t.Errorf("%d gateways with %d counts", gateways, n)
		}
		h.reportLoad("b", 0, nil, t0.Add(sec(64)))
		if gateways, n := rows(); gateways != 1 || n != 0 {
			t.Errorf("%d gateways with %d counts", gateways, n)
		}
		h.reportLoad("a", 0, nil, t0.Add(-time.Hour)) // the clock is set back
		if gateways, _ := rows(); gateways != 1 {
			t.Errorf("%d gateways", gateways)
		}
	})
}

func TestLoadReport_MarksDueWhatItChanges(t *testing.T) {
	now := t0.Add(time.Minute)
	for _, c := range []struct {
		name        string
		least, most int
		replica     bool
		then        dstack.RunLoad
		want        bool
	}{
		{"a fixed number", 1, 1, true, dstack.RunLoad{Requests: 9, Held: 1}, false},
		{"a range", 1, 2, true, dstack.RunLoad{Requests: 9}, true},
		{"a range and nothing new", 1, 2, true, dstack.RunLoad{Requests: 1}, false},
		{"a request waits and there is no replica", 1, 1, false, dstack.RunLoad{Requests: 1, Held: 1}, true},
		{"no request waits and there is no replica", 1, 1, false, dstack.RunLoad{Requests: 2}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, h *fixture) {
				run := h.submitted(ranged("web", c.least, c.most), t0)
				var add []int
				if c.replica {
					add = []int{0}
				}
				h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Add: newNums(add...), Due: t0}, t0)
				h.reportLoad("a", 0, counts{run.ID: {Requests: 1}}, t0)
				h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1}, t0)
				woke := h.reportLoad("a", 0, counts{run.ID: c.then}, now)
				if due := h.isDue(store.Runs, string(run.ID), now); due != c.want || woke != c.want {
					t.Errorf("due %v, woke %v", due, woke)
				}
			})
		})
	}
}

// A draining replica has drained when every gateway has a table without it and no
// request in flight to it.
func TestDrain_EndsOnceEveryGatewayHasDrained(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		before := h.routes().DrainSequence
		busy := counts{run.ID: {InFlight: 1, Replicas: map[dstack.ReplicaID]int{r.ID: 1}}}
		h.reportLoad("a", before, busy, t0)
		h.reportLoad("b", before, nil, t0)
		h.revise(run.ID, "two", false, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Drain: []dstack.ReplicaID{r.ID}, DrainTimeout: time.Minute}, t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaDraining}, t0)
		after := h.routes().DrainSequence
		if after <= before || len(h.routes().Routes[0].Ready) > 0 {
			t.Errorf("the drain sequence of the table is %d, before %d; routes: %+v", after, before, h.routes().Routes)
		}
		for i, c := range []struct {
			name    string
			gateway string
			drains  int64
			runs    counts
			quiet   bool
		}{
			{"nothing in flight, and the old table", "a", before, nil, false},
			{"the new table at one", "a", after, nil, false},
			{"the new table at both, and a late request", "b", after, busy, false},
			{"nothing in flight at both", "b", after, nil, true},
			{"the same again", "b", after, nil, false}, // not written
			{"a newer table", "b", after + 1, nil, true},
			{"a table without a number", "a", 0, nil, false},
		} {
			now := t0.Add(time.Duration(i+1) * 100 * time.Millisecond)
			if woke := h.reportLoad(c.gateway, c.drains, c.runs, now); woke != c.quiet {
				t.Errorf("%s: woke %v", c.name, woke)
			}
			if c.name == "the same again" {
				continue
			}
			seen, err := h.s.ReplicaFacts(t.Context(), r.ID)
			if h.noError(err); seen.Load.Drained[r.ID] != c.quiet || h.isDue(store.Replicas, string(r.ID), now) != c.quiet {
				t.Errorf("%s: the load is %+v", c.name, seen.Load)
			}
			if c.quiet {
				h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaDraining}, now)
			}
		}
	})
}
