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
	f := newFakeServer(t)
	u := newTestUser(t, f)
	one, at := 1, time.Now().Add(-time.Minute)
	f.events = [][]api.EventView{{
		{ID: 7, At: at, Kind: dstack.EventApplied, Revision: 4, User: "ann", Message: "revision 4, rolling"},
		{ID: 8, At: at, Kind: dstack.EventScaled, From: "1", To: "3", Message: "14.2 requests a second\x1b[2J"},
		{ID: 9, At: at, Kind: dstack.EventReplica, Replica: &one, Revision: 4, From: "starting", To: "ready"},
	}, {{ID: 10, At: time.Now(), Kind: dstack.EventRolledBack, From: "4", To: "3", Message: "revision 4 did not become ready"}}}
	polls := f.events

	got := u.run("events", "web")
	got.check(t, ExitDone, []string{"revision 4", "revision 4, rolling · by ann", "1 → 3", "replica 1", "starting → ready"}, nil)
	if strings.Contains(got.out, "\x1b") {
		t.Errorf("control characters were printed: %q", got.out)
	}
	f.eventRequests = nil
	if got := u.run("events", "web", "--since", "10s"); strings.Contains(got.out, "ready") {
		t.Errorf("older events were printed: %s", got.out)
	}
	f.eventRequests = nil
	var events []api.EventView
	if got := u.run("events", "web", "-o", "json", "-n", "5"); json.Unmarshal([]byte(got.out), &events) != nil || len(events) != 3 || f.eventRequests[0].Limit != 5 {
		t.Errorf("got %s for %+v", got.out, f.eventRequests)
	}

	f.eventRequests, f.events = nil, polls
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(200*time.Millisecond, press).Stop()
	u.ctx = ctx
	u.run("events", "web", "-f").check(t, ExitDone, []string{"starting → ready", "rolled back", "4 → 3"}, nil)
	f.mu.Lock() // the last request is still waiting
	defer f.mu.Unlock()
	if len(f.eventRequests) != 3 || f.eventRequests[1].After != 9 || f.eventRequests[2].After != 10 || f.eventRequests[1].WaitSeconds == 0 {
		t.Errorf("requested %+v", f.eventRequests)
	}
	u.run("events", "web", "-n", "0").check(t, ExitInvalid, nil, []string{"from 1 to 1000"})
}

func TestHistoryAndRollback(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	at := time.Now().Add(-time.Hour)
	f.history = []api.RevisionView{
		{Num: 5, Status: dstack.RevisionFailed, At: at, User: "ann", Reason: "replica 0 exited with code 1", Changes: []api.Change{{Path: "commands.0", From: "a", To: "b"}}},
		{Num: 4, Current: true, Status: dstack.RevisionReady, At: at, Restores: 2, Changes: []api.Change{{Path: "port", From: "1", To: "2"}}},
		{Num: 3, Status: dstack.RevisionPending, At: at},
		{Num: 2, Status: dstack.RevisionReady, At: at},
	}
	u.run("history", "web").check(t, ExitDone, []string{"5         failed", "commands.0", "exited with code 1", "4 *       serves", "rollback to 2", "3         replaced", "2         served"}, nil)
	u.run("history", "web", "-v").check(t, ExitDone, []string{"commands.0   a  →  b"}, nil)

	f.views = runViews(api.RunView{Status: api.StatusUpdating, Revision: 6}, api.RunView{Status: api.StatusReady, Revision: 6, ReadyAt: &at})
	u.run("rollback", "web", "-y").check(t, ExitDone, []string{"http://web.localhost:3000/"}, []string{"web rolls back: revision 6 is a copy of revision 2", "web is ready"})
	u.run("rollback", "web", "--to", "3", "-y", "-d").check(t, ExitDone, nil, []string{"revision 6 is a copy of revision 3"})
	if len(f.rollbacks) != 2 || f.rollbacks[0].Revision != 4 || f.rollbacks[0].To != 2 || f.rollbacks[1].To != 3 {
		t.Errorf("requested %+v", f.rollbacks)
	}
}

func TestExplain(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.explain = api.Explanation{RunName: "web", Status: api.StatusReady, DesiredReplicas: 2, Ready: 2, Min: 1, Max: 4,
		Decision: autoscale.Decision{Reason: "14.2 requests a second over the last 60s, target 10 a replica: ceil(14.2 / 10) = 2", NextAt: time.Now().Add(10 * time.Minute)},
		Load:     api.LoadView{InFlight: 9, Held: 1}, Obstacles: []string{"replica 1 is waiting: no machine suits"}}
	u.run("explain", "web").check(t, ExitDone, []string{"2 replicas desired, 2 ready\n", "ceil(14.2 / 10) = 2", "range 1..4 · in flight 9 · held 1", "could change at ", "replica 1 is waiting"}, nil)
	var x api.Explanation
	if got := u.run("explain", "web", "-o", "json"); json.Unmarshal([]byte(got.out), &x) != nil || x.DesiredReplicas != 2 {
		t.Errorf("got %s", got.out)
	}
	f.explain.Decision.NextAt = time.Time{} // the number does not change
	if got := u.run("explain", "web", "-o", "json"); got.code != ExitDone || strings.Contains(got.out, "next_at") {
		t.Errorf("a time that never comes is printed: %s", got.out)
	}
	f.list = runViews(api.RunView{Status: api.StatusSleeping, DesiredReplicas: 0, Min: 0, Max: 2})
	u.run("ps", "-v").check(t, ExitDone, []string{"sleeping  0 of 0..2", "ceil(14.2 / 10) = 2"}, nil)
}

func TestEvents_FormatsTable(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	long := strings.Repeat("because ", 40) + "of that"
	at := time.Now().Add(-3 * time.Minute)
	f.events = [][]api.EventView{{
		{ID: 1, At: at, Kind: dstack.EventApplied, Revision: 4, User: "ann"},
		{ID: 2, At: at, Kind: dstack.EventReplica, To: "waiting", Message: long},
		{ID: 3, At: at, Kind: dstack.EventRolledBack, From: "4", To: "3"},
	}, {}, {}, {}}
	got := u.run("events", "web")
	got.check(t, ExitDone, []string{" TIME    WHAT         CHANGE      WHY\n", " 3m ago  applied      revision 4  by ann\n",
		" 3m ago  replicas     → waiting   " + long + "\n", " 3m ago  rolled back  4 → 3       -\n"}, nil)
	u.run("events", "web").check(t, ExitDone, nil, []string{"web has no events\n"})
	u.run("events", "web", "--since", "1h").check(t, ExitDone, nil, []string{"web has no events since 1h\n"})
	u.run("events", "web", "-o", "json").check(t, ExitDone, []string{"[]\n"}, nil)
	u.run("events", "web", "--since", "yesterday").check(t, ExitInvalid, nil, []string{"--since: `yesterday` is not a time"})
	f.list = runViews(readyView)
	f.refusals["events"] = refusal{400, `{"detail":[{"msg":"Run not found","code":"resource_not_exists"}]}`}
	u.run("events", "wbe").check(t, ExitFailed, nil, []string{"there is no run `wbe`", "did you mean `web`?"})
	u.run("events").check(t, ExitInvalid, nil, []string{"dstack events needs the name of a run"})
}

func TestEvents_FollowsAcrossARestartOfTheServer(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.events = [][]api.EventView{{{ID: 7, Kind: dstack.EventApplied}}, {{ID: 8, Kind: dstack.EventReady}}}
	f.failingEvents = 5 // more than the client's own retries
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(2*time.Second, press).Stop()
	u.ctx = ctx
	got := u.run("events", "web", "-f", "-o", "json")
	got.check(t, ExitDone, nil, []string{"cannot reach the dstack server", "trying again"})
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %s", got.out)
	}
	for i, line := range lines {
		var e api.EventView
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID != int64(7+i) {
			t.Errorf("%v: %s", err, line)
		}
	}
}

func TestEvents_FitsTheTerminal(t *testing.T) {
	s, out := newTerminalScreen(60)
	w := &eventsCommand{app: &app{screen: s}, follow: true}
	event := api.EventView{At: time.Now(), Kind: dstack.EventScaled, From: "1", To: "3", Message: "14.2 requests a second over the last 60s"}
	for range 2 { // the header is printed once, and the widths do not change
		if err := w.printEventTable([]api.EventView{event}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) != 5 || lines[1] != lines[3] || strings.TrimSpace(lines[2]) != event.Message || lines[2] != lines[4] {
		t.Errorf("got\n%s", out)
	}
}

func TestDescribeNextChange(t *testing.T) {
	now := time.Now()
	scaling := &api.ScalingView{UpDelay: 300, DownDelay: 600}
	for _, c := range []struct {
		name           string
		target, wanted int
		at, scaled     time.Time
		scaling        *api.ScalingView
		want           string
	}{
		{"never", 2, 2, time.Time{}, now, scaling, ""},
		{"down", 1, 2, now.Add(7 * time.Minute), now.Add(-3 * time.Minute), scaling, "could go down at %s at the earliest, in 7m: scale_down_delay 10m since the last change"},
		{"up", 3, 2, now.Add(2 * time.Minute), now.Add(-3 * time.Minute), scaling, "could go up at %s at the earliest, in 2m: scale_up_delay 5m since the last change"},
		{"something else is waited for", 1, 2, now.Add(time.Minute), now.Add(-time.Hour), scaling, "could go down at %s at the earliest, in 1m"},
		{"the way is not known", 2, 2, now.Add(time.Minute), now, scaling, "could change at %s at the earliest, in 1m"},
	} {
		x := api.Explanation{Scaling: c.scaling, ScaledAt: c.scaled, Decision: autoscale.Decision{Target: c.target, DesiredReplicas: c.wanted, NextAt: c.at}}
		if want := strings.ReplaceAll(c.want, "%s", c.at.Local().Format("15:04:05")); describeNextChange(x, now) != want {
			t.Errorf("%s: %q, want %q", c.name, describeNextChange(x, now), want)
		}
	}
	got := strings.Join(explanationLines(api.Explanation{Status: api.StatusReady, DesiredReplicas: 1, Min: 1, Max: 1, Obstacles: []string{"a\x1b[2J"}}, now), "\n")
	if want := "1 replica desired, 0 ready\n   no recent load report from a gateway\n   a"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := explanationLines(api.Explanation{RunName: "web", Status: api.StatusStopped}, now)[0]; got != "web is stopped and needs no replicas" {
		t.Errorf("got %q", got)
	}
}

func TestPS_ShowsScalingAndUpdates(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	retry := time.Now().Add(40*time.Second + 500*time.Millisecond)
	f.explain.Decision.Reason = "14.2 requests a second"
	f.list = runViews(
		api.RunView{Status: api.StatusReady, DesiredReplicas: 2, Min: 1, Max: 4, RolledBack: &api.RollbackView{From: 4, To: 3, Reason: "replica 0 exited with code 1"}},
		api.RunView{Status: api.StatusUpdating, DesiredReplicas: 2, Ready: 1, Serving: 3, Reason: "updating to revision 4", Replicas: []api.ReplicaView{
			{Num: 0, Status: dstack.ReplicaDraining, Progress: "finishes 3 requests"},
			{Num: 1, Status: dstack.ReplicaUnhealthy, Reason: "GET /health answered 500"},
			{Num: 2, Status: dstack.ReplicaDraining, Reason: "replaced by revision 4"}}},
		api.RunView{Status: api.StatusDegraded, DesiredReplicas: 2, Ready: 1, Min: 2, Max: 2, Replicas: []api.ReplicaView{
			{Num: 1, Status: dstack.ReplicaWaiting, Reason: "no machine suits: 2×H100 at most $8", RetryAt: &retry}}},
		api.RunView{Status: api.StatusSleeping, Max: 2, Reason: "no request for 10m"})
	f.list[1].Name, f.list[2].Name, f.list[3].Name, f.list[3].DesiredReplicas = "new", "mixtral", "whisper", 0
	for i := range f.list {
		f.list[i].ID = dstack.RunID(f.list[i].Name)
	}
	got := u.run("ps")
	got.check(t, ExitDone, []string{" web      ready     2 of 1..4 ", "revision 4 was rolled back to 3: replica 0 exited with code 1\n",
		" new      updating  3 of 2 ", "replica 0 finishes 3 requests\n", "replica 1 is unhealthy: GET /health answered 500\n", "replica 2 is draining: replaced by revision 4\n",
		" mixtral  degraded  1 of 2 ", "replica 1 is waiting: no machine suits: 2×H100 at most $8, next try in 40s\n", " whisper  sleeping  0 of 0..2 "}, nil)
	if strings.Contains(got.out, "no request for 10m") || strings.Contains(got.out, "updating to") {
		t.Errorf("the status is repeated:\n%s", got.out)
	}
	for _, path := range f.requests {
		if strings.HasSuffix(path, "/explain") {
			t.Error("there was an explain request without -v")
		}
	}
	f.requests = nil
	u.run("ps", "-v").check(t, ExitDone, []string{"  2 desired: 14.2 requests a second\n", "  0 desired: 14.2 requests a second\n"}, nil)
	asked := 0
	for _, path := range f.requests {
		if strings.HasSuffix(path, "/explain") {
			asked++
		}
	}
	if asked != 2 {
		t.Errorf("there were %d explain requests for two runs that scale", asked)
	}
}

func TestStatusPaint_KnowsEveryStatus(t *testing.T) {
	for status, want := range map[string]textStyle{
		"ready": green, "sleeping": dim, "degraded": yellow, "failing": yellow, "failed": red, "stopped": dim,
		"unhealthy": yellow, "restarting": yellow, "draining": dim, "terminating": dim, "terminated": dim,
	} {
		if got, ok := statusPaint(status); !ok || got != want {
			t.Errorf("%s is painted %v (%v)", status, got, ok)
		}
	}
	for _, status := range []string{"starting", "updating", "stopping", "what comes later"} {
		if _, ok := statusPaint(status); ok {
			t.Errorf("%s has a colour", status)
		}
	}
}

func TestStop_ShowsDrainingReplicas(t *testing.T) {
	f := newFakeServer(t)
	f.views = runViews(readyView, api.RunView{Status: api.StatusStopping, Replicas: []api.ReplicaView{
		{Num: 0, Status: dstack.ReplicaDraining, Progress: "finishes 3 requests"}}}, stoppedView)
	newTestUser(t, f).run("stop", "web", "-y").check(t, ExitDone, nil, []string{"   replica 0  finishes 3 requests\n", "web is stopped"})
}

func TestCompletion_CompletesRunNames(t *testing.T) {
	f := newFakeServer(t)
	f.list = runViews(readyView)
	for _, command := range []string{"events", "history", "rollback", "explain", "ps", "logs", "stop"} {
		newTestUser(t, f).run("__complete", command, "").check(t, ExitDone, []string{"web\n"}, nil)
	}
}
