package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
)

func TestEvents(t *testing.T) {
	f := newFake(t)
	u := newUser(t, f)
	one, at := 1, time.Now().Add(-time.Minute)
	f.events = [][]api.EventView{{
		{ID: 7, At: at, Kind: dstack.EventApplied, Revision: 4, User: "ann", Message: "revision 4, rolling"},
		{ID: 8, At: at, Kind: dstack.EventScaled, From: "1", To: "3", Message: "14.2 requests a second\x1b[2J"},
		{ID: 9, At: at, Kind: dstack.EventReplica, Replica: &one, Revision: 4, From: "starting", To: "ready"},
	}, {{ID: 10, At: time.Now(), Kind: dstack.EventRolledBack, From: "4", To: "3", Message: "revision 4 did not become ready"}}}
	polls := f.events

	got := u.types("events", "web")
	got.want(t, ExitDone, []string{"revision 4", "revision 4, rolling · by ann", "1 → 3", "replica 1", "starting → ready"}, nil)
	if strings.Contains(got.out, "\x1b") {
		t.Errorf("control characters pass: %q", got.out)
	}
	f.polls = nil
	if got := u.types("events", "web", "--since", "10s"); strings.Contains(got.out, "ready") {
		t.Errorf("older ones are shown: %s", got.out)
	}
	f.polls = nil
	var events []api.EventView
	if got := u.types("events", "web", "-o", "json", "-n", "5"); json.Unmarshal([]byte(got.out), &events) != nil || len(events) != 3 || f.polls[0].Limit != 5 {
		t.Errorf("got %s for %+v", got.out, f.polls)
	}

	f.polls, f.events = nil, polls
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(200*time.Millisecond, press).Stop()
	u.ctx = ctx
	u.types("events", "web", "-f").want(t, ExitDone, []string{"starting → ready", "rolled back", "4 → 3"}, nil)
	if len(f.polls) != 3 || f.polls[1].After != 9 || f.polls[2].After != 10 || f.polls[1].WaitSeconds == 0 {
		t.Errorf("polled %+v", f.polls)
	}
	u.types("events", "web", "-n", "0").want(t, ExitInvalid, nil, []string{"from 1 to 1000"})
}

func TestHistoryAndRollback(t *testing.T) {
	f := newFake(t)
	u := newUser(t, f)
	at := time.Now().Add(-time.Hour)
	f.history = []api.RevisionView{
		{Num: 5, Status: dstack.RevisionFailed, At: at, User: "ann", Reason: "replica 0 exited with code 1", Changes: []api.Change{{Path: "commands.0", From: "a", To: "b"}}},
		{Num: 4, Present: true, Status: dstack.RevisionReady, At: at, Of: 2},
		{Num: 3, Status: dstack.RevisionPending, At: at},
		{Num: 2, Status: dstack.RevisionReady, At: at},
	}
	u.types("history", "web").want(t, ExitDone, []string{"5         failed", "commands.0", "exited with code 1", "4 *       serves", "brings back 2", "3         replaced", "2         served"}, nil)
	u.types("history", "web", "-v").want(t, ExitDone, []string{"commands.0   a  →  b"}, nil)

	f.views = life(api.View{Status: api.StatusUpdating, Revision: 6}, api.View{Status: api.StatusReady, Revision: 6, ReadyAt: &at})
	u.types("rollback", "web", "-y").want(t, ExitDone, []string{"http://web.localhost:3000/"}, []string{"web goes back: revision 6 is what 2 was", "web is ready"})
	u.types("rollback", "web", "--to", "3", "-y", "-d").want(t, ExitDone, nil, []string{"revision 6 is what 3 was"})
	if len(f.backs) != 2 || f.backs[0].Revision != 4 || f.backs[0].To != 2 || f.backs[1].To != 3 {
		t.Errorf("asked for %+v", f.backs)
	}
}

func TestExplain(t *testing.T) {
	f := newFake(t)
	u := newUser(t, f)
	f.explain = api.Explanation{RunName: "web", Status: api.StatusReady, Wanted: 2, Ready: 2, Min: 1, Max: 4,
		Decision: autoscale.Decision{Why: "14.2 requests a second over the last 60s, target 10 a replica: ceil(14.2 / 10) = 2", NextAt: time.Now().Add(10 * time.Minute)},
		Load:     api.LoadView{InFlight: 9, Held: 1}, Why: []string{"replica 1 is waiting: no machine suits"}}
	u.types("explain", "web").want(t, ExitDone, []string{"wants 2 replicas, has 2 ready\n", "ceil(14.2 / 10) = 2", "range 1..4 · in flight 9 · held 1", "could change at ", "replica 1 is waiting"}, nil)
	var x api.Explanation
	if got := u.types("explain", "web", "-o", "json"); json.Unmarshal([]byte(got.out), &x) != nil || x.Wanted != 2 {
		t.Errorf("got %s", got.out)
	}
	f.list = life(api.View{Status: api.StatusSleeping, Wanted: 0, Min: 0, Max: 2})
	u.types("ps", "-v").want(t, ExitDone, []string{"sleeping  0 of 0..2", "ceil(14.2 / 10) = 2"}, nil)
}
