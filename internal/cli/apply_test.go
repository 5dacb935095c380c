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
	"dstack/internal/spec"
)

// applier is a user with a service that a fake server would run.
func applier(t *testing.T, views ...api.RunView) (*fake, *user) {
	f := newFake(t)
	f.preview = api.Preview{Placements: []api.Placement{place()}, URL: "http://web.localhost:3000/"}
	f.views = life(views...)
	u := newUser(t, f)
	u.env["GREETING"] = "hello"
	u.write("service.dstack.yml", serviceFile)
	return f, u
}

func TestApply_FromTheFileToTheLogs(t *testing.T) {
	f, u := applier(t, starting("pulling image 10% of 8.1GB"), starting("pulling image 62% of 8.1GB"), ready, stopped)
	f.logs = [][]api.LogEntry{{line(1, "serving on 8000"), line(2, "GET /")}}
	u.write("index.html", "hi")

	got := u.types("apply", "-f", "service.dstack.yml", "-y", "-e", "MODE=fancy", "--", "--bind", "0.0.0.0")
	got.want(t, ExitDone,
		[]string{"service  http://web.localhost:3000/", "or  http://127.0.0.1:3000/proxy/services/main/web/", "serving on 8000\nGET /\n"},
		[]string{"service web · project main · as admin", "resources ", "GREETING (from your environment), MODE (from -e)",
			"16 cpu, 64GB, 1×L4 24GB", "1 of 2 GPUs free", "web is starting", "replica 0  pulling image 10%",
			"web is ready after 0s", `curl http://web.localhost:3000/ -H "Authorization: Bearer $DSTACK_TOKEN"`,
			"Ctrl-C detaches", "web is stopped"})
	if strings.Contains(got.err, "62%") {
		t.Error("lines repeat although only their numbers changed")
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

func TestApply_WithoutTerminalOrYesAsksNobodyAndSubmitsNothing(t *testing.T) {
	f, u := applier(t, ready)
	u.types("apply", "-f", "service.dstack.yml").want(t, ExitInvalid, nil, []string{`cannot ask "Submit web?"`, "add -y"})
	if len(f.applied)+len(f.uploads) > 0 {
		t.Error("something was submitted")
	}
}

func TestApply_WorksWithTheInputClosed(t *testing.T) {
	_, u := applier(t, ready)
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	u.in = closed
	u.types("apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").want(t, ExitDone, []string{"http://web.localhost:3000/"}, nil)
}

func TestApply_JSONIsOneDocument(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		views []api.RunView
		want  api.RunStatus
		code  int
	}{
		{"ready", nil, []api.RunView{starting(""), ready}, api.StatusReady, ExitDone},
		{"detached", []string{"-d"}, []api.RunView{starting("")}, api.StatusStarting, ExitDone},
		{"failed", nil, []api.RunView{starting(""), {Status: api.StatusFailed, Ending: dstack.EndFailed}}, api.StatusFailed, ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, u := applier(t, c.views...)
			got := u.types(append([]string{"apply", "-f", "service.dstack.yml", "-y", "-o", "json"}, c.args...)...)
			got.want(t, c.code, nil, nil)
			var view api.RunView
			if err := json.Unmarshal([]byte(got.out), &view); err != nil || view.Status != c.want {
				t.Errorf("%v: %s", err, got.out)
			}
		})
	}
}

func TestApply_RefusesBeforeAnythingIsSubmitted(t *testing.T) {
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
		{"what nothing acts on yet", serviceFile + "pool_name: x\n", nil, ExitInvalid, []string{"service.dstack.yml:9:1", "not supported yet: pool_name"}},
		{"a wrong flag value", serviceFile, []string{"--gpu", "16G"}, ExitInvalid, []string{"--gpu: "}},
		{"a wrong price", serviceFile, []string{"--max-price", "-3"}, ExitInvalid, []string{"--max-price: "}},
		{"a wrong variable", serviceFile, []string{"-e", "1A=2"}, ExitInvalid, []string{"--env: "}},
		{"a wrong name", serviceFile, []string{"-n", "gateway"}, ExitInvalid, []string{"--name: "}},
		{"flags that contradict", serviceFile, []string{"--spot", "--on-demand"}, ExitInvalid, []string{"--spot and --on-demand do not go together"}},
		{"a wait for nothing", serviceFile, []string{"--wait", "rady"}, ExitInvalid, []string{"--wait ready"}},
		{"arguments without --", serviceFile, []string{"service.dstack.yml"}, ExitInvalid, []string{"does not understand `service.dstack.yml`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := applier(t, ready)
			u.write("service.dstack.yml", c.file)
			u.types(append([]string{"apply", "-y", "-f", "service.dstack.yml"}, c.args...)...).want(t, c.code, nil, c.err)
			if len(f.asked) > 0 {
				t.Errorf("the server was asked: %v", f.asked)
			}
		})
	}
}

func TestApply_FilesThatAreNotThere(t *testing.T) {
	_, u := applier(t, ready)
	u.types("apply", "-y", "-f", "servcie.dstack.yml").want(t, ExitInvalid, nil,
		[]string{"cannot read servcie.dstack.yml: no such file", "did you mean `service.dstack.yml`?"})
	u.types("apply", "-y").want(t, ExitInvalid, nil, []string{"there is no .dstack.yml", "there is: service.dstack.yml"})
	u.write(".dstack.yml", serviceFile)
	u.types("apply", "-y", "-d").want(t, ExitDone, nil, []string{"web is submitted"})
}

func TestApply_NoMachineSuits(t *testing.T) {
	f, u := applier(t, ready)
	f.preview.Placements = nil
	f.preview.Rejections = []api.Rejection{{Offer: place().Offer, Reason: "has no GPU"}}
	u.types("apply", "-f", "service.dstack.yml").want(t, ExitNoCapacity, nil, []string{"no machine suits", "local box: has no GPU"})
	if len(f.applied) > 0 {
		t.Error("it was submitted")
	}
	u.types("apply", "-f", "service.dstack.yml", "-y", "-d", "--retry").want(t, ExitDone, nil, nil)
}

func TestApply_ARunThatFailsTellsItsStory(t *testing.T) {
	crash := api.ReplicaView{Status: dstack.ReplicaRestarting, Reason: "replica 0 exited with code 1 after 14s", Restarts: 1, LastOutput: []string{"ValueError: \x1b[31mno\x1b]0;evil\a"}}
	over := crash
	over.Status = dstack.ReplicaFailed
	_, u := applier(t, starting(""),
		api.RunView{Status: api.StatusStarting, Replicas: []api.ReplicaView{crash}},
		api.RunView{Status: api.StatusFailed, Ending: dstack.EndFailed, Reason: "replica 0 exited with code 1 after 14s, three times", Replicas: []api.ReplicaView{over}})
	got := u.types("apply", "-y", "-f", "service.dstack.yml")
	got.want(t, ExitFailed, nil, []string{"error: web did not become ready\n  why   replica 0 exited with code 1 after 14s, three times",
		"          ValueError: no\n", "  try   dstack logs web"})
	if strings.Contains(got.err, "\x1b") {
		t.Error("control sequences of a program's output reached the screen")
	}
	if strings.Index(got.err, "ValueError") == strings.LastIndex(got.err, "ValueError") {
		t.Error("the crash was not told when it happened")
	}
}

func TestApply_EndsAndTheirExitCodes(t *testing.T) {
	for _, c := range []struct {
		name string
		end  api.RunView
		code int
		err  string
	}{
		{"no capacity", api.RunView{Status: api.StatusFailed, Ending: dstack.EndNoCapacity, Reason: "no machine suits"}, ExitNoCapacity, "no machine suits"},
		{"stopped by somebody", stopped, ExitFailed, "web was stopped"},
		{"replaced by somebody", api.RunView{Status: api.StatusStarting, Revision: 2}, ExitFailed, "replaced by revision 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, u := applier(t, starting(""), c.end)
			u.types("apply", "-y", "-f", "service.dstack.yml").want(t, c.code, nil, []string{c.err})
		})
	}
}

func TestApply_TimesOut(t *testing.T) {
	_, u := applier(t, starting("pulling image"))
	u.types("apply", "-y", "-f", "service.dstack.yml", "--wait", "ready", "--timeout", "60ms").want(t, ExitTimeout, nil,
		[]string{"web was not ready within 60ms", "now   web is starting", "dstack stop web"})
}

func TestApply_CtrlCDetaches(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		views []api.RunView
		code  int
	}{
		{"while it starts", nil, []api.RunView{starting("")}, ExitDone},
		{"while its logs are followed", nil, []api.RunView{ready}, ExitDone},
		{"while a script waits", []string{"--wait", "ready"}, []api.RunView{starting("")}, ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, u := applier(t, c.views...)
			ctx, press := context.WithCancelCause(t.Context())
			defer time.AfterFunc(150*time.Millisecond, func() { press(errInterrupted) }).Stop()
			u.ctx = ctx
			u.types(append([]string{"apply", "-y", "-f", "service.dstack.yml"}, c.args...)...).want(t, c.code, nil,
				[]string{"detached; web keeps running\n  back  dstack logs web -f\n  stop  dstack stop web"})
		})
	}
}

func TestApply_ARunOfTheSameName(t *testing.T) {
	f, u := applier(t, ready)
	known := life(ready)[0]
	known.Revision = 3
	f.preview.Existing = &known
	f.views[0].Revision = 4
	parsed, err := spec.ParseService("", []byte(strings.ReplaceAll(serviceFile, "GREETING", "A=b")))
	if err != nil {
		t.Fatal(err)
	}
	f.run = &api.Run{RunSpec: dstack.RunSpec{Configuration: *parsed, Profile: spec.Profile{Name: "default"}}}

	f.preview.Changes = []api.Change{{Path: "commands.1", From: "vllm serve", To: "vllm serve --max"}}
	u.types("apply", "-y", "-f", "service.dstack.yml", "--wait", "ready").want(t, ExitDone, nil,
		[]string{"web changes from revision 3 to 4", "commands.1   vllm serve  →  vllm serve --max", "code ", "rolling", "One new replica becomes ready before an old one leaves"})
	if len(f.applied) != 1 || f.applied[0].Revision != 3 {
		t.Fatalf("applied %+v", f.applied)
	}

	f.preview.Changes, f.run.RunSpec.RepoCodeHash = nil, f.applied[0].RunSpec.RepoCodeHash
	u.types("apply", "-f", "service.dstack.yml", "--wait", "ready").want(t, ExitDone, []string{"http://web.localhost:3000/"}, []string{"nothing changed"})
	if len(f.applied) != 1 {
		t.Error("it was applied although nothing changed")
	}
	u.types("apply", "-y", "-f", "service.dstack.yml", "--force", "-d").want(t, ExitDone, nil, []string{"web is submitted"})
}

func TestApply_TheServerGoesAwayForAMoment(t *testing.T) {
	f, u := applier(t, starting(""), starting("x"), ready)
	f.cutView = 5 // more than one call tries
	u.types("apply", "-y", "-f", "service.dstack.yml", "--wait", "ready").want(t, ExitDone,
		[]string{"http://web.localhost:3000/"}, []string{"cannot reach the dstack server", "trying again"})
}

func TestApply_ServerTroubles(t *testing.T) {
	refused := func(status int, kind dstack.Kind, message, hint string) refusal {
		return refusal{status, api.ErrorBody{Error: api.ErrorView{Kind: kind, Message: message, Hint: hint}}}
	}
	for _, c := range []struct {
		name string
		set  func(*fake, *user)
		code int
		err  []string
	}{
		{"down", func(f *fake, _ *user) { f.Close() }, ExitFailed, []string{"cannot reach the dstack server at http://127.0.0.1:", "dstack server"}},
		{"a wrong token", func(_ *fake, u *user) { u.env["DSTACK_TOKEN"] = "dst_bad" }, ExitFailed, []string{"this token is not known", "dstack config"}},
		{"an unknown project", func(f *fake, _ *user) {
			f.refuse["preview"] = refusal{404, `{"detail":{"msg":"Not found","code":null}}`}
		}, ExitFailed, []string{"Not found"}},
		{"an upload cut half way", func(f *fake, _ *user) { f.cutCode = true }, ExitFailed, []string{"cannot reach the dstack server"}},
		{"a full server", func(f *fake, _ *user) { f.refuse["upload_code"] = refused(413, dstack.TooLarge, "too large", "less") }, ExitInvalid, []string{"error: too large\n  try   less"}},
		{"somebody was faster", func(f *fake, _ *user) {
			f.refuse["apply"] = refused(409, dstack.Conflict, "web changed meanwhile", "apply again")
		}, ExitFailed, []string{"changed meanwhile"}},
		{"no capacity any more", func(f *fake, _ *user) { f.refuse["apply"] = refused(400, dstack.NoCapacity, "no machine", "") }, ExitNoCapacity, []string{"no machine"}},
		{"not a dstack server", func(f *fake, _ *user) { f.refuse["preview"] = refusal{200, "<html>"} }, ExitFailed, []string{"does not answer like a dstack server"}},
		{"no server at all", func(_ *fake, u *user) { clear(u.env); u.env["GREETING"] = "x" }, ExitInvalid, []string{"no server is configured", "dstack server"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			f, u := applier(t, ready)
			c.set(f, u)
			u.types("apply", "-y", "-f", "service.dstack.yml").want(t, c.code, nil, c.err)
			if len(f.applied) > 0 {
				t.Error("it was applied all the same")
			}
			if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
