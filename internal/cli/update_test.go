package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestApply_DoesNotWaitForASleepingService(t *testing.T) {
	_, u := newApplyTest(t, api.RunView{Status: api.StatusSleeping, Revision: 1, Max: 1})
	u.run("apply", "-y", "-f", "service.dstack.yml").check(t, ExitDone, []string{"http://web.localhost:3000/"}, []string{"web sleeps until a request comes"})
}

func TestApply_ReportsARollback(t *testing.T) {
	f, u := newApplyTest(t, api.RunView{Status: api.StatusUpdating, Revision: 4},
		api.RunView{Status: api.StatusReady, Revision: 3, DesiredReplicas: 2, Serving: 2, RolledBack: &api.RollbackView{From: 4, To: 3,
			Reason: "replica 0 exited with code 1 after 14s, 3 times in a row", LastOutput: []string{"ValueError: 8192 is larger than 4096"}}})
	known := runViews(readyView)[0]
	known.Revision = 3
	f.preview.Existing, f.preview.Strategy = &known, api.StrategyRolling
	f.preview.Changes = []api.Change{{Path: "commands.0", From: "a", To: "b", Strategy: api.StrategyRolling}}
	u.run("apply", "-y", "-f", "service.dstack.yml").check(t, ExitRolledBack, nil, []string{
		"revision 4 of web did not become ready, rolled back to 3", "exited with code 1 after 14s", "ValueError: 8192", "  now   revision 3 serves, 2 of 2 replicas\n", "dstack events web"})
}

// A change of the configuration alone does not change the code.
func TestApply_LeavesTheConfigurationOutOfTheCode(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.run("apply", "-y", "-d", "-f", "service.dstack.yml").check(t, ExitDone, nil, nil)
	before := *f.applied[0].RunSpec.RepoCodeHash
	u.writeFile("service.dstack.yml", serviceFile+"replicas: 2\n")
	u.run("apply", "-y", "-d", "-f", "service.dstack.yml").check(t, ExitDone, nil, nil)
	if after := *f.applied[1].RunSpec.RepoCodeHash; after != before {
		t.Errorf("the code changed with the file: %s, %s", before, after)
	}
}

func TestWaitOutcome(t *testing.T) {
	at := time.Now()
	of := func(status api.RunStatus, revision int, readyAt *time.Time) api.RunView {
		return api.RunView{Name: "web", Status: status, Revision: revision, ReadyAt: readyAt, Ready: 1, Min: 1, Max: 2}
	}
	back := func(v api.RunView, from int) api.RunView {
		v.RolledBack = &api.RollbackView{From: from, To: v.Revision}
		return v
	}
	for _, c := range []struct {
		name string
		view api.RunView
		over bool
		kind dstack.Kind
	}{
		{"starts", of(api.StatusStarting, 4, nil), false, ""},
		{"has some", of(api.StatusDegraded, 4, nil), false, ""},
		{"has all", of(api.StatusReady, 4, &at), true, ""},
		{"has some of those that it always has", api.RunView{Status: api.StatusDegraded, Revision: 4, ReadyAt: &at, Ready: 1, Min: 2, Max: 2}, false, ""},
		{"is ready as it was, and not yet as it will be", of(api.StatusReady, 4, nil), false, ""},
		{"has served, and has too few for the load", of(api.StatusDegraded, 4, &at), true, ""},
		{"has served, and takes over", of(api.StatusUpdating, 4, &at), false, ""},
		{"has served, and all have crashed", of(api.StatusFailing, 4, &at), false, ""},
		{"sleeps", of(api.StatusSleeping, 4, nil), true, ""},
		{"sleeps as it did before", back(of(api.StatusSleeping, 3, &at), 4), true, dstack.RolledBack},
		{"was rolled back", back(of(api.StatusReady, 3, &at), 4), true, dstack.RolledBack},
		{"an earlier one was rolled back", back(of(api.StatusStarting, 4, nil), 3), false, ""},
		{"ours and a later one were rolled back", back(of(api.StatusReady, 3, &at), 5), true, dstack.Conflict},
		{"was replaced", of(api.StatusReady, 5, &at), true, dstack.Conflict},
		{"was stopped", of(api.StatusStopping, 4, &at), true, dstack.Conflict},
		{"failed", of(api.StatusFailed, 4, nil), true, dstack.Conflict},
	} {
		over, err := waitOutcome(c.view, 4)
		kind := dstack.KindOf(err)
		if err == nil {
			kind = ""
		}
		if over != c.over || kind != c.kind {
			t.Errorf("%s: %v %v", c.name, over, err)
		}
	}
}

// newUpdateTest is newApplyTest for a service that runs at revision 3.
func newUpdateTest(t *testing.T, how string, changes []api.Change, views ...api.RunView) (*fakeServer, *testUser) {
	f, u := newApplyTest(t, views...)
	known := runViews(readyView)[0]
	known.Revision = 3
	f.preview.Existing, f.preview.Strategy, f.preview.Changes = &known, how, changes
	return f, u
}

func TestApply_DescribesTheStrategy(t *testing.T) {
	for _, c := range []struct {
		name  string
		how   string
		force bool
		says  []string
	}{
		{"in place", api.StrategyInPlace, false, []string{"scaling.target   10  →  20     in place\n", "Nothing is restarted."}},
		{"rolling", api.StrategyRolling, false, []string{"One new replica becomes ready before an old one stops. Nothing is interrupted."}},
		{"recreate", api.StrategyRecreate, false, []string{"No machine has capacity for both: an old replica stops before a new one starts. Requests wait in the meantime."}},
		{"force", "", true, []string{"Nothing changed: its replicas are replaced one by one."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newUpdateTest(t, c.how, nil, readyView)
			f.preview.Existing.RolledBack = &api.RollbackView{From: 7, To: 3}
			args := []string{"apply", "-y", "-d", "-f", "service.dstack.yml"}
			if c.force {
				args = append(args, "--force")
			} else {
				f.preview.Changes = []api.Change{{Path: "scaling.target", From: "10", To: "20", Strategy: api.StrategyInPlace},
					{Path: "port", From: "1", To: "2", Strategy: c.how}}
			}
			got := u.run(args...)
			got.check(t, ExitDone, nil, append(c.says, "web changes from revision 3 to 8"))
		})
	}
}

func TestApply_PrintsAChangeOfTheCode(t *testing.T) {
	_, u := newUpdateTest(t, api.StrategyRolling, []api.Change{{Path: "scaling.target", From: "10", To: "20", Strategy: api.StrategyInPlace},
		{Path: "code", From: "01234567", To: "89abcdef", Strategy: api.StrategyRolling}}, readyView)
	u.run("apply", "-y", "-d", "-f", "service.dstack.yml").check(t, ExitDone, nil, []string{"code             01234567  →  89abcdef      rolling\n", "One new replica becomes ready"})
}

func TestApply_ShowsTheProgressOfAnUpdate(t *testing.T) {
	_, u := newApplyTest(t,
		api.RunView{Status: api.StatusUpdating, Revision: 4, DesiredReplicas: 2, Ready: 1, Reason: "updating to revision 4", Replicas: []api.ReplicaView{
			{Num: 0, Revision: 3, Status: dstack.ReplicaDraining, Progress: "finishes 3 requests"},
			{Num: 2, Revision: 4, Status: dstack.ReplicaUnhealthy, Reason: "GET /health answered 500"}}},
		api.RunView{Status: api.StatusReady, Revision: 4, DesiredReplicas: 2})
	u.run("apply", "-y", "--wait", "ready", "-f", "service.dstack.yml").check(t, ExitDone, nil, []string{
		" web is updating to revision 4, 1 of 2 replicas new (0s)\n", "replica 0 of revision 3  finishes 3 requests\n",
		"replica 2  unhealthy: GET /health answered 500\n", "web is ready after 0s"})
}

func TestApply_PrintsTheViewOfARollbackAsJSON(t *testing.T) {
	_, u := newApplyTest(t, api.RunView{Status: api.StatusUpdating, Revision: 4},
		api.RunView{Status: api.StatusUpdating, Revision: 3, DesiredReplicas: 2, Serving: 1, RolledBack: &api.RollbackView{From: 4, To: 3, Reason: "gave up"}})
	got := u.run("apply", "-y", "-f", "service.dstack.yml", "-o", "json")
	got.check(t, ExitRolledBack, nil, []string{"  why   gave up\n  now   revision 3 serves, 1 of 2 replicas\n  try   dstack events web\n        dstack logs web\n"})
	var view api.RunView
	if err := json.Unmarshal([]byte(got.out), &view); err != nil || view.RolledBack == nil {
		t.Errorf("%v: %s", err, got.out)
	}
}

// setHistory gives the server a run with five revisions.
func setHistory(f *fakeServer) {
	at := time.Now().Add(-time.Hour)
	change := func(path, from, to, how string) api.Change {
		return api.Change{Path: path, From: from, To: to, Strategy: how}
	}
	f.history = []api.RevisionView{
		{Num: 5, Current: true, Status: dstack.RevisionReady, At: at, Changes: []api.Change{change("commands.0", "b", "a", api.StrategyRolling), change("env.KEY", "•••", "•••", api.StrategyRolling)}},
		{Num: 4, Status: dstack.RevisionFailed, At: at, Reason: "replica 0 exited with code 1", Changes: []api.Change{change("commands.0", "a", "b", api.StrategyRolling), change("scaling.target", "10", "20", api.StrategyInPlace)}},
		{Num: 3, Status: dstack.RevisionReady, At: at, Changes: []api.Change{change("scaling.target", "5", "10", api.StrategyInPlace)}},
		{Num: 2, Status: dstack.RevisionPending, At: at},
	}
	f.views = runViews(api.RunView{Status: api.StatusUpdating, Revision: 6}, api.RunView{Status: api.StatusReady, Revision: 6})
}

func TestRollback_PrintsItsChanges(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	setHistory(f)
	got := u.run("rollback", "web")
	got.check(t, ExitInvalid, nil, []string{"web changes from revision 5 back to revision 3", "scaling.target   20   →  10      in place\n",
		"env.KEY          •••  →  •••      rolling\n", `cannot ask "Roll back to revision 3?"`, "add -y"})
	if strings.Contains(got.err, "commands.0") {
		t.Error("an unchanged field is printed as a change")
	}
	u.run("rollback", "web", "--to", "4", "-y", "-d").check(t, ExitDone, nil, []string{"commands.0   a    →  b ", "revision 4 failed: replica 0 exited", "web is submitted"})
	if len(f.rollbacks) != 1 || f.rollbacks[0].To != 4 || f.rollbacks[0].Revision != 5 {
		t.Errorf("asked for %+v", f.rollbacks)
	}
	for _, same := range []string{"5", "9"} { // the error is from the server
		f.refusals["rollback"] = refusal{400, api.ErrorBody{Error: api.ErrorView{Kind: dstack.NotFound, Message: "web has no such revision"}}}
		u.run("rollback", "web", "--to", same).check(t, ExitFailed, nil, []string{"web has no such revision"})
	}
	u.run("rollback", "web", "--to", "0").check(t, ExitInvalid, nil, []string{"the first revision is 1"})
	u.run("rollback", "web", "-d", "--timeout", "1m").check(t, ExitInvalid, nil, []string{"--detach alone does not wait"})
	f.list = runViews(readyView)
	f.refusals["history"] = refusal{400, `{"detail":[{"msg":"Run not found","code":"resource_not_exists"}]}`}
	u.run("rollback", "wbe").check(t, ExitFailed, nil, []string{"there is no run `wbe`", "did you mean `web`?"})
	u.run("history", "wbe").check(t, ExitFailed, nil, []string{"did you mean `web`?"})
}

func TestRollback_ToAnEqualRevision(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes []api.Change
		asks    int // requests for a rollback
	}{
		{"no change", nil, 0},
		{"hidden values, which the server compares", []api.Change{{Path: "env.KEY", From: "•••", To: "•••", Strategy: api.StrategyRolling}}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeServer(t)
			u := newTestUser(t, f)
			f.history = []api.RevisionView{{Num: 2, Current: true, Changes: c.changes}, {Num: 1, Status: dstack.RevisionReady}}
			f.views = runViews(api.RunView{Status: api.StatusReady, Revision: 2})
			u.run("rollback", "web", "-y").check(t, ExitDone, nil, []string{"Nothing changes: revision 2 of web is the same as revision 1."})
			u.run("rollback", "web", "-y", "-o", "json").check(t, ExitDone, []string{`"revision": 2`}, nil)
			if len(f.rollbacks) != c.asks {
				t.Errorf("requested %+v", f.rollbacks)
			}
		})
	}
}

func TestRollback_WaitsLikeApply(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		views []api.RunView
		code  int
		out   string
		err   string
	}{
		{"ready", nil, []api.RunView{{Status: api.StatusUpdating, Revision: 6}, {Status: api.StatusReady, Revision: 6}}, ExitDone, "service  http://web", "web is ready after"},
		{"json", []string{"-o", "json", "--wait", "ready"}, []api.RunView{{Status: api.StatusUpdating, Revision: 6}, {Status: api.StatusReady, Revision: 6}}, ExitDone, `"status": "ready"`, "is updating to revision 6"},
		{"sleeping", nil, []api.RunView{{Status: api.StatusSleeping, Revision: 6}}, ExitDone, "service  http://web", " web sleeps until a request comes\n"},
		{"rolled back", nil, []api.RunView{{Status: api.StatusUpdating, Revision: 6},
			{Status: api.StatusReady, Revision: 5, RolledBack: &api.RollbackView{From: 6, To: 5}}}, ExitRolledBack, "", "revision 6 of web did not become ready, rolled back to 5"},
		{"late", []string{"--timeout", "60ms"}, []api.RunView{{Status: api.StatusUpdating, Revision: 6}}, ExitTimeout, "", "not ready within 60ms"},
		{"Ctrl-C", nil, []api.RunView{{Status: api.StatusUpdating, Revision: 6}}, ExitDone, "", "detached; web keeps running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeServer(t)
			u := newTestUser(t, f)
			setHistory(f)
			f.views = runViews(c.views...)
			if c.name == "Ctrl-C" {
				ctx, press := context.WithCancelCause(t.Context())
				defer time.AfterFunc(150*time.Millisecond, func() { press(errInterrupted) }).Stop()
				u.ctx = ctx
			}
			u.run(append([]string{"rollback", "web", "-y"}, c.args...)...).check(t, c.code, []string{c.out}, []string{c.err})
		})
	}
}

func TestShortenCommon(t *testing.T) {
	for _, c := range []struct{ from, to, short, other string }{
		{"10", "20", "10", "20"},
		{"vllm serve meta-llama/Meta-Llama-3.1-8B-Instruct --max-model-len 4096", "vllm serve meta-llama/Meta-Llama-3.1-8B-Instruct --max-model-len 8192",
			"vllm serve … --max-model-len 4096", "… --max-model-len 8192"},
		{"python3 serve.py --port 8000 --workers 4", "python3 serve.py --port 9000 --workers 4", "python3 serve.py --port 8000 …", "… --port 9000 …"},
		{"(none)", "python3 -m http.server 8000 --bind ::", "(none)", "python3 -m http.server 8000 --bind ::"},
		{"a-word-that-is-rather-long-1", "a-word-that-is-rather-long-2", "a-word-that-is-rather-long-1", "a-word-that-is-rather-long-2"},
	} {
		if short, other := shortenCommon(c.from, c.to); short != c.short || other != c.other {
			t.Errorf("%q and %q\nwant %q and %q", short, other, c.short, c.other)
		}
	}
}

func TestChanges_AlignsStrategies(t *testing.T) {
	s, out := newTerminalScreen(60)
	(&app{screen: s}).printChangeList([]api.Change{{Path: "commands.1", From: "vllm serve some/model --max-model-len 4096", To: "vllm serve some/model --max-model-len 8192", Strategy: api.StrategyRolling},
		{Path: "scaling.target", From: "10", To: "20", Strategy: api.StrategyInPlace}})
	want := "   commands.1                                       rolling\n" +
		"       vllm serve … --max-model-len 4096\n" +
		"     → … --max-model-len 8192\n" +
		"   scaling.target   10  →  20                      in place\n\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

// In a pipe, nothing is cut: a long change is separated from its strategy, too.
func TestPrintChangeList_SeparatesLongValuesInAPipe(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(strings.NewReader(""), &out, &out)
	long := strings.Repeat("x", 120)
	(&app{screen: s}).printChangeList([]api.Change{{Path: "image", From: "a", To: long, Strategy: api.StrategyRolling}})
	if want := "   image   a  →  " + long + "  rolling\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %q", out.String())
	}
}
