package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// newApplyTest returns a fake server, and a user with a configuration that the
// server can run.
func newApplyTest(t *testing.T, views ...api.RunView) (*fakeServer, *testUser) {
	f := newFakeServer(t)
	f.preview = api.Preview{Placements: []api.Placement{testPlacement()}, URL: "http://web.localhost:3000/"}
	f.views = runViews(views...)
	u := newTestUser(t, f)
	u.env["GREETING"] = "hello"
	u.writeFile("service.dstack.yml", serviceFile)
	return f, u
}

func TestApply_PrintsPlanProgressAndLogs(t *testing.T) {
	f, u := newApplyTest(t, startingView("pulling image 10% of 8.1GB"), startingView("pulling image 62% of 8.1GB"), readyView, stoppedView)
	f.logs = [][]api.LogEntry{{logEntry(1, "serving on 8000"), logEntry(2, "GET /")}}
	u.writeFile("index.html", "hi")

	got := u.run("apply", "-f", "service.dstack.yml", "-y", "-e", "MODE=fancy", "--", "--bind", "0.0.0.0")
	got.check(t, ExitDone,
		[]string{"service  http://web.localhost:3000/", "or  http://127.0.0.1:3000/proxy/services/main/web/", "serving on 8000\nGET /\n"},
		[]string{"service web · project main · as admin", "resources ", "GREETING (from your environment), MODE (from -e)",
			"16 cpu, 64GB, 1×L4 24GB", "1 of 2 GPUs free", "web is starting", "replica 0  pulling image 10%",
			"web is ready after 0s", `curl http://web.localhost:3000/ -H "Authorization: Bearer $DSTACK_TOKEN"`,
			"Ctrl-C detaches", "web is stopped"})
	if strings.Contains(got.err, "62%") {
		t.Error("a line was repeated although only its numbers changed")
	}
	if len(f.applied) != 1 || len(f.repos) != 1 || len(f.uploads) != 1 {
		t.Fatalf("applied %d times, %d repos, %d uploads", len(f.applied), len(f.repos), len(f.uploads))
	}
	sent := f.applied[0].RunSpec
	env := map[string]string{}
	for _, v := range sent.Configuration.Env {
		env[v.Name] = v.Value
	}
	if want := map[string]string{"GREETING": "hello", "MODE": "fancy"}; !maps.Equal(env, want) {
		t.Errorf("env %v, want %v", env, want)
	}
	if want := "python3 -m http.server --bind 0.0.0.0"; sent.Configuration.Commands[0] != want {
		t.Errorf("command %q, want %q", sent.Configuration.Commands[0], want)
	}
	if sent.RepoID != f.repos[0].RepoID || f.applied[0].Revision != 0 || *sent.RunName != "web" {
		t.Errorf("sent %+v", sent)
	}
	names := tarNames(t, f.uploads[*sent.RepoCodeHash])
	if want := []string{"index.html"}; !slices.Equal(names, want) {
		t.Errorf("uploaded %v, want %v", names, want)
	}
}

func tarNames(t *testing.T, content []byte) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, head.Name)
	}
}

func TestApply_NeedsYesWithoutTerminal(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.run("apply", "-f", "service.dstack.yml").check(t, ExitInvalid, nil, []string{`cannot ask "Submit web?"`, "add -y"})
	if len(f.applied)+len(f.uploads) > 0 {
		t.Error("something was submitted")
	}
}

func TestApply_WorksWithClosedInput(t *testing.T) {
	_, u := newApplyTest(t, readyView)
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	u.in = closed
	u.run("apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").check(t, ExitDone, []string{"http://web.localhost:3000/"}, nil)
}

func TestApply_PrintsOneJSONDocument(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		views []api.RunView
		want  api.RunStatus
		code  int
	}{
		{"ready", nil, []api.RunView{startingView(""), readyView}, api.StatusReady, ExitDone},
		{"detached", []string{"-d"}, []api.RunView{startingView("")}, api.StatusStarting, ExitDone},
		{"failed", nil, []api.RunView{startingView(""), {Status: api.StatusFailed, Ending: dstack.EndFailed}}, api.StatusFailed, ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, u := newApplyTest(t, c.views...)
			got := u.run(append([]string{"apply", "-f", "service.dstack.yml", "-y", "-o", "json"}, c.args...)...)
			got.check(t, c.code, nil, nil)
			var view api.RunView
			if err := json.Unmarshal([]byte(got.out), &view); err != nil || view.Status != c.want {
				t.Errorf("%v: %s", err, got.out)
			}
		})
	}
}

func TestApply_RejectsInvalidInputBeforeAnyRequest(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		args []string
		code int
		err  []string
	}{
		{"a broken file, all problems at once", "type: service\nport: 8000\ncomands: [a]\nresources: {gpu: 16G}\n", nil, ExitInvalid,
			[]string{"service.dstack.yml:3:1", "did you mean `commands`?", "2 problems"}},
		{"missing variables", strings.ReplaceAll(serviceFile, "GREETING", "NOT_SET"), nil, ExitInvalid, []string{"service.dstack.yml:7:", "NOT_SET", "-e NOT_SET=…"}},
		{"an unsupported field", serviceFile + "pool_name: x\n", nil, ExitInvalid, []string{"service.dstack.yml:9:1", "not supported yet: pool_name"}},
		{"a wrong flag value", serviceFile, []string{"--gpu", "16G"}, ExitInvalid, []string{"--gpu: "}},
		{"a wrong price", serviceFile, []string{"--max-price", "-3"}, ExitInvalid, []string{"--max-price: "}},
		{"a wrong variable", serviceFile, []string{"-e", "1A=2"}, ExitInvalid, []string{"--env: "}},
		{"a wrong name", serviceFile, []string{"-n", "gateway"}, ExitInvalid, []string{"--name: "}},
		{"exclusive flags", serviceFile, []string{"--spot", "--on-demand"}, ExitInvalid, []string{"--spot and --on-demand do not go together"}},
		{"an unknown status to wait for", serviceFile, []string{"--wait", "rady"}, ExitInvalid, []string{"--wait ready"}},
		{"an argument without --", serviceFile, []string{"service.dstack.yml"}, ExitInvalid, []string{"unexpected argument `service.dstack.yml`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.writeFile("service.dstack.yml", c.file)
			u.run(append([]string{"apply", "-y", "-f", "service.dstack.yml"}, c.args...)...).check(t, c.code, nil, c.err)
			if len(f.requests) > 0 {
				t.Errorf("there were requests: %v", f.requests)
			}
		})
	}
}

func TestApply_SuggestsFiles(t *testing.T) {
	_, u := newApplyTest(t, readyView)
	u.run("apply", "-y", "-f", "servcie.dstack.yml").check(t, ExitInvalid, nil,
		[]string{"cannot read servcie.dstack.yml: no such file", "did you mean `service.dstack.yml`?"})
	u.run("apply", "-y").check(t, ExitInvalid, nil, []string{"there is no .dstack.yml", "name one: -f service.dstack.yml"})
	u.writeFile("empty/README", "")
	u.run("apply", "-y", "-f", "empty").check(t, ExitInvalid, nil, []string{"there is no *.dstack.yml in empty", "name the file itself"})
	u.writeFile(".dstack.yml", serviceFile)
	u.run("apply", "-y", "-d").check(t, ExitDone, nil, []string{"web is submitted"})
}

func TestApply_FailsWithoutCapacity(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	f.preview.Placements = nil
	f.preview.Rejections = []api.Rejection{{Offer: testPlacement().Offer, Reason: "has no GPU"}}
	u.run("apply", "-f", "service.dstack.yml").check(t, ExitNoCapacity, nil, []string{"no machine suits", "local box: has no GPU"})
	if len(f.applied) > 0 {
		t.Error("the run was submitted")
	}
	u.run("apply", "-f", "service.dstack.yml", "-y", "-d", "--retry").check(t, ExitDone, nil, nil)
}

// A run that never had output is not looked for in its logs.
func TestApply_NamesTheEventsOfAFailureWithoutOutput(t *testing.T) {
	why := "the registry of image x cannot be reached"
	_, u := newApplyTest(t, startingView(""), api.RunView{Status: api.StatusFailed, Ending: dstack.EndFailed, Reason: why,
		Replicas: []api.ReplicaView{{Status: dstack.ReplicaFailed, Reason: why}}})
	u.run("apply", "-y", "-f", "service.dstack.yml").check(t, ExitFailed, nil, []string{"  why   " + why + "\n", "  try   dstack events web\n"})
}

func TestApply_PrintsReasonsAndOutputOfAFailure(t *testing.T) {
	crash := api.ReplicaView{Status: dstack.ReplicaRestarting, Reason: "replica 0 exited with code 1 after 14s", Restarts: 1, LastOutput: []string{"ValueError: \x1b[31mno\x1b]0;evil\a"}}
	over := crash
	over.Status = dstack.ReplicaFailed
	_, u := newApplyTest(t, startingView(""),
		api.RunView{Status: api.StatusStarting, Replicas: []api.ReplicaView{crash}},
		api.RunView{Status: api.StatusFailed, Ending: dstack.EndFailed, Reason: "replica 0 exited with code 1 after 14s, three times", Replicas: []api.ReplicaView{over}})
	got := u.run("apply", "-y", "-f", "service.dstack.yml")
	got.check(t, ExitFailed, nil, []string{"error: web did not become ready\n  why   replica 0 exited with code 1 after 14s, three times",
		"          ValueError: no\n", "  try   dstack logs web"})
	if strings.Contains(got.err, "\x1b") {
		t.Error("control sequences of the output were printed")
	}
	if strings.Index(got.err, "ValueError") == strings.LastIndex(got.err, "ValueError") {
		t.Error("the crash was not printed when it happened")
	}
}

func TestApply_ExitStatuses(t *testing.T) {
	for _, c := range []struct {
		name string
		end  api.RunView
		code int
		err  string
	}{
		{"no capacity", api.RunView{Status: api.StatusFailed, Ending: dstack.EndNoCapacity, Reason: "no machine suits"}, ExitNoCapacity, "no machine suits"},
		{"stopped by a user", stoppedView, ExitFailed, "web was stopped"},
		{"replaced by a user", api.RunView{Status: api.StatusStarting, Revision: 2}, ExitFailed, "replaced by revision 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, u := newApplyTest(t, startingView(""), c.end)
			u.run("apply", "-y", "-f", "service.dstack.yml").check(t, c.code, nil, []string{c.err})
		})
	}
}

func TestApply_TimesOut(t *testing.T) {
	_, u := newApplyTest(t, startingView("pulling image"))
	u.run("apply", "-y", "-f", "service.dstack.yml", "--wait", "ready", "--timeout", "60ms").check(t, ExitTimeout, nil,
		[]string{"web was not ready within 60ms", "now   web is starting", "dstack stop web"})
}

func TestApply_DetachesOnInterrupt(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		views []api.RunView
		code  int
	}{
		{"before it is ready", nil, []api.RunView{startingView("")}, ExitDone},
		{"while its logs are followed", nil, []api.RunView{readyView}, ExitDone},
		{"while a script waits", []string{"--wait", "ready"}, []api.RunView{startingView("")}, ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, c.views...)
			ctx, press := context.WithCancelCause(t.Context())
			u.ctx = ctx
			go func() {
				for !f.hasRequest("/runs/view") && t.Context().Err() == nil {
					time.Sleep(5 * time.Millisecond)
				}
				time.Sleep(50 * time.Millisecond) // the run is followed by now
				press(errInterrupted)
			}()
			u.run(append([]string{"apply", "-y", "-f", "service.dstack.yml"}, c.args...)...).check(t, c.code, nil,
				[]string{"detached; web keeps running\n  back  dstack logs web -f\n  stop  dstack stop web"})
		})
	}
}

func TestApply_UpdatesAnExistingRun(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	known := runViews(readyView)[0]
	known.Revision = 3
	f.preview.Existing = &known
	f.views[0].Revision = 4
	f.preview.Strategy, f.preview.Changes = api.StrategyRolling, []api.Change{
		{Path: "commands.1", From: "vllm serve", To: "vllm serve --max", Strategy: api.StrategyRolling},
		{Path: "code", From: "01234567", To: "89abcdef", Strategy: api.StrategyRolling}}
	u.run("apply", "-y", "-f", "service.dstack.yml", "--wait", "ready").check(t, ExitDone, nil,
		[]string{"web changes from revision 3 to 4", "commands.1   vllm serve  →  vllm serve --max", "code         01234567    →  89abcdef ", "rolling", "One new replica becomes ready before an old one stops"})
	if len(f.applied) != 1 || f.applied[0].Revision != 3 {
		t.Fatalf("applied %+v", f.applied)
	}

	f.preview.Changes = nil
	u.run("apply", "-f", "service.dstack.yml", "--wait", "ready").check(t, ExitDone, []string{"http://web.localhost:3000/"}, []string{"nothing changed"})
	got := u.run("apply", "-f", "service.dstack.yml", "-d")
	got.check(t, ExitDone, nil, []string{"web runs already and nothing changed; restart it with --force", "dstack logs web -f"})
	if strings.Contains(got.err, "submitted") {
		t.Errorf("an unchanged run is said to be submitted:\n%s", got.err)
	}
	u.run("apply", "-f", "service.dstack.yml", "-d", "-o", "json").check(t, ExitDone, []string{`"status": "ready"`}, nil)
	if len(f.applied) != 1 {
		t.Error("an unchanged run was applied")
	}
	u.run("apply", "-y", "-f", "service.dstack.yml", "--force", "-d").check(t, ExitDone, nil, []string{"web is submitted"})
}

// The preview lists all changes, also those of the code, so that a run that
// exists needs no further requests.
func TestApply_SendsNecessaryRequestsOnly(t *testing.T) {
	const project = "/api/project/main/"
	sent := []string{project + "runs/preview", project + "repos/init", project + "repos/upload_code", project + "runs/apply"}
	change := api.Change{Path: "code", From: "01234567", To: "89abcdef", Strategy: api.StrategyRolling}
	for _, c := range []struct {
		name    string
		exists  bool
		changes []api.Change
		want    []string
	}{
		{"a new run", false, nil, sent},
		{"a changed run", true, []api.Change{change}, sent},
		{"an unchanged run", true, nil, sent[:1]},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			if c.exists {
				f.preview.Existing, f.preview.Changes = &runViews(readyView)[0], c.changes
			}
			u.run("apply", "-y", "-d", "-f", "service.dstack.yml").check(t, ExitDone, nil, nil)
			if !slices.Equal(f.requests, c.want) {
				t.Errorf("requested %q, want %q", f.requests, c.want)
			}
		})
	}
}

func TestApply_SurvivesARestartOfTheServer(t *testing.T) {
	f, u := newApplyTest(t, startingView(""), startingView("x"), readyView)
	f.failingViews = 5 // more than the client's own retries
	u.run("apply", "-y", "-f", "service.dstack.yml", "--wait", "ready").check(t, ExitDone,
		[]string{"http://web.localhost:3000/"}, []string{"cannot reach the dstack server", "trying again"})
}

func TestApply_ReportsServerErrors(t *testing.T) {
	refused := func(status int, kind dstack.Kind, message, hint string) refusal {
		return refusal{status, api.ErrorBody{Error: api.ErrorView{Kind: kind, Message: message, Hint: hint}}}
	}
	for _, c := range []struct {
		name string
		set  func(*fakeServer, *testUser)
		code int
		err  []string
	}{
		{"down", func(f *fakeServer, _ *testUser) { f.Close() }, ExitFailed, []string{"cannot reach the dstack server at http://127.0.0.1:", "dstack server"}},
		{"a wrong token", func(_ *fakeServer, u *testUser) { u.env["DSTACK_TOKEN"] = "dst_bad" }, ExitFailed, []string{"this token is not known", "dstack config"}},
		{"an unknown project", func(f *fakeServer, _ *testUser) {
			f.refusals["preview"] = refusal{404, `{"detail":{"msg":"Not found","code":null}}`}
		}, ExitFailed, []string{"Not found"}},
		{"a broken upload", func(f *fakeServer, _ *testUser) { f.failingUpload = true }, ExitFailed, []string{"cannot reach the dstack server"}},
		{"a full server", func(f *fakeServer, _ *testUser) {
			f.refusals["upload_code"] = refused(413, dstack.TooLarge, "too large", "less")
		}, ExitInvalid, []string{"error: too large\n  try   less"}},
		{"a concurrent change", func(f *fakeServer, _ *testUser) {
			f.refusals["apply"] = refused(409, dstack.Conflict, "web changed meanwhile", "apply again")
		}, ExitFailed, []string{"changed meanwhile"}},
		{"no capacity", func(f *fakeServer, _ *testUser) {
			f.refusals["apply"] = refused(400, dstack.NoCapacity, "no machine", "")
		}, ExitNoCapacity, []string{"no machine"}},
		{"not a dstack server", func(f *fakeServer, _ *testUser) { f.refusals["preview"] = refusal{200, "<html>"} }, ExitFailed, []string{"does not answer like a dstack server"}},
		{"no server at all", func(_ *fakeServer, u *testUser) { clear(u.env); u.env["GREETING"] = "x" }, ExitInvalid, []string{"no server is configured", "dstack server"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			f, u := newApplyTest(t, readyView)
			c.set(f, u)
			u.run("apply", "-y", "-f", "service.dstack.yml").check(t, c.code, nil, c.err)
			if len(f.applied) > 0 {
				t.Error("the run was applied")
			}
			if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
