package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestPS(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.run("ps").check(t, ExitDone, nil, []string{"no runs in project main"})
	u.run("ps", "-o", "json").check(t, ExitDone, []string{"[]\n"}, nil)

	f.list = runViews(
		api.RunView{Status: api.StatusReady},
		api.RunView{Status: api.StatusDegraded, DesiredReplicas: 2, Ready: 1, Replicas: []api.ReplicaView{
			{Num: 0, Status: dstack.ReplicaReady, Backend: "local", Instance: "box", Resources: "1×L4"},
			{Num: 1, Status: dstack.ReplicaWaiting, Reason: "no capacity: 2×H100"}}},
		api.RunView{Status: api.StatusFailed, Reason: "gave up\x1b[2J"})
	f.list[1].Name, f.list[2].Name = "mixtral", "dead"
	first := 0.21
	f.list[0].Metrics = &api.RunMetrics{Requests: 1, InFlight: 0}
	f.list[1].Model, f.list[1].Metrics = &api.ModelView{Name: "m", BaseURL: "http://127.0.0.1:3000/v1"}, &api.RunMetrics{Requests: 12, InFlight: 2, Held: 3, TokensIn: 1234, TokensOut: 12345678, FirstToken: &first}
	got := u.run("ps")
	got.check(t, ExitDone, []string{" NAME     STATUS    REPLICAS  URL", " mixtral  degraded  1 of 2 ", "replica 1 is waiting: no capacity: 2×H100", " web      ready     1 of 1    http://web.localhost:3000/"}, nil)
	if strings.Contains(got.out, "dead") {
		t.Error("a finished run is listed")
	}
	got = u.run("ps", "-a", "-v")
	got.check(t, ExitDone, []string{"dead     ", "gave up\n", "  replica 0  ready ", "local box",
		"  1 request · 0 in flight\n", "  model m at http://127.0.0.1:3000/v1\n", "  12 requests · 2 in flight · 3 held · first token after 210ms · tokens 1.2k in, 12.3M out\n"}, nil)
	var views []api.RunView
	if got := u.run("ps", "-a", "-o", "json"); json.Unmarshal([]byte(got.out), &views) != nil || len(views) != 3 {
		t.Errorf("got %s", got.out)
	}
	f.list = f.list[2:]
	u.run("ps").check(t, ExitDone, []string{"dead"}, nil) // no run is active, so the latest is listed
	u.run("ps", "daed").check(t, ExitFailed, nil, []string{"there is no run `daed` in project main", "did you mean `dead`?"})
	f.refusals["views"] = refusal{500, "Internal Server Error"}
	u.run("ps").check(t, ExitFailed, nil, []string{"answered 500"})
}

func TestPS_WatchPrintsChangesOnly(t *testing.T) {
	f := newFakeServer(t)
	f.list = runViews(readyView)
	u := newTestUser(t, f)
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(100*time.Millisecond, press).Stop()
	u.ctx = ctx
	got := u.run("ps", "-w", "-o", "json")
	got.check(t, ExitDone, []string{`[{"id":`}, nil)
	if strings.Count(got.out, "\n") != 1 {
		t.Errorf("got %s", got.out)
	}
}

func TestLogs(t *testing.T) {
	f := newFakeServer(t)
	f.list = runViews(stoppedView)
	stderr := logEntry(2, "to\x1b]0;title\a \xff stderr")
	stderr.Stream = "stderr"
	lines := []api.LogEntry{logEntry(1, "one"), stderr, {Error: "the disk is full: output was lost"}}
	f.logs = [][]api.LogEntry{lines, lines, lines, lines}
	u := newTestUser(t, f)
	got := u.run("logs", "web")
	got.check(t, ExitDone, nil, []string{"the disk is full: output was lost"})
	if want := "one\nto\x1b]0;title\a \xff stderr\n"; got.out != want {
		t.Errorf("a pipe got %q, want %q", got.out, want)
	}
	u.run("logs", "web", "-o", "json").check(t, ExitDone, []string{`{"timestamp":"2023-11-14T22:13:21Z","replica":0,"attempt":"a","stream":"stdout","message":"one"}`}, nil)
	u.run("logs", "web", "-t", "--replica", "1", "--since", "2023-11-14T22:00:00Z").check(t, ExitDone, []string{"2023-11-14T22:13:21.000Z one"}, nil)
	last := f.logRequests[len(f.logRequests)-1]
	if last.Replica == nil || *last.Replica != 1 || last.StartTime == nil || last.StartTime.Minute() != 0 {
		t.Errorf("requested %+v", last)
	}
	if last.Tail != nil {
		t.Errorf("requested %d lines", *last.Tail)
	}
	u.run("logs", "web", "--tail", "20").check(t, ExitDone, nil, nil)
	if last := f.logRequests[len(f.logRequests)-1]; last.Tail == nil || *last.Tail != 20 {
		t.Errorf("requested %+v", last)
	}
	for tail, want := range map[string]string{"-3": "a number of lines cannot be negative", "many": "`many` is not a number of lines",
		"": "`` is not a number of lines", "1.5": "`1.5` is not a number of lines", "99999999999999999999": "`99999999999999999999` is not a number of lines"} {
		u.run("logs", "web", "--tail="+tail).check(t, ExitInvalid, nil, []string{"--tail: " + want + "\n", "write a number such as 100, or all"})
	}
	u.run("logs", "web", "--since", "-5m").check(t, ExitInvalid, nil, []string{"--since: `-5m` is not a time"})
	u.run("logs", "web", "--since", "").check(t, ExitInvalid, nil, []string{"--since: `` is not a time"}) // an unset variable of a script
	u.run("events", "web", "--since", "").check(t, ExitInvalid, nil, []string{"--since: `` is not a time"})
	u.run("logs", "web", "--since", "yesterday").check(t, ExitInvalid, nil, []string{"--since: `yesterday` is not a time"})
	u.run("logs", "wbe").check(t, ExitFailed, nil, []string{"did you mean `web`?"})
}

// A pipe gets the number of the replica, too, if there is or was more than one, or may be while
// the output is followed.
func TestLogs_PrefixesLinesWithTheReplica(t *testing.T) {
	second := logEntry(2, "two")
	second.Replica = 1
	for name, c := range map[string]struct {
		count, max int
		args       []string
		want       string
	}{
		"one replica":                        {1, 1, nil, "one\ntwo\n"},
		"two, of which one has ended":        {2, 1, nil, "0 | one\n1 | two\n"},
		"one of at most four":                {1, 4, nil, "one\ntwo\n"},
		"one of at most four, followed":      {1, 4, []string{"-f"}, "0 | one\n1 | two\n"},
		"two, but only one is asked for":     {2, 2, []string{"--replica", "1"}, "one\ntwo\n"},
		"two, with timestamps":               {2, 2, []string{"-t"}, "2023-11-14T22:13:21.000Z 0 | one\n2023-11-14T22:13:22.000Z 1 | two\n"},
		"two, as JSON, which has the number": {2, 2, []string{"-o", "json"}, `{"timestamp":"2023-11-14T22:13:21Z","replica":0,`},
	} {
		f := newFakeServer(t)
		view := stoppedView
		view.ReplicaCount, view.Max = c.count, c.max
		f.list = runViews(view)
		f.logs = [][]api.LogEntry{{logEntry(1, "one"), second}}
		got := newTestUser(t, f).run(append([]string{"logs", "web"}, c.args...)...)
		if !strings.HasPrefix(got.out, c.want) {
			t.Errorf("%s: %q, want %q; %s", name, got.out, c.want, got.err)
		}
	}
}

func TestLogs_ContinuesAfterARestartOfTheServer(t *testing.T) {
	f := newFakeServer(t)
	f.views = runViews(readyView, stoppedView)
	f.brokenStreams = 1
	f.logs = [][]api.LogEntry{{logEntry(1, "one"), logEntry(2, "two")}, {logEntry(2, "two"), logEntry(3, "three")}, {logEntry(4, "four")}}
	f.views[0].Version = "" // without a version, every view is new
	u := newTestUser(t, f)
	got := u.run("logs", "web", "-f")
	got.check(t, ExitDone, nil, []string{"trying again"})
	if want := "one\ntwo\nthree\n"; got.out != want {
		t.Errorf("got %q, want %q", got.out, want)
	}
	if after := f.logRequests[1].After["a"]; !after.Equal(logEntry(2, "").Timestamp) {
		t.Errorf("the second stream began after %v", f.logRequests[1].After)
	}
}

func TestLogs_EndsOnInterrupt(t *testing.T) {
	f := newFakeServer(t)
	f.views = runViews(readyView)
	f.logs = [][]api.LogEntry{{logEntry(1, "one")}}
	u := newTestUser(t, f)
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(100*time.Millisecond, press).Stop()
	u.ctx = ctx
	u.run("logs", "web", "-f").check(t, ExitDone, []string{"one\n"}, nil)
}

func TestStop(t *testing.T) {
	f := newFakeServer(t)
	f.views = runViews(readyView, api.RunView{Status: api.StatusStopping, Reason: "1 replica is ending"}, stoppedView)
	u := newTestUser(t, f)
	u.run("stop", "web").check(t, ExitInvalid, nil, []string{`cannot ask "Stop web?"`, "add -y"})
	u.run("stop", "wbe", "-y").check(t, ExitFailed, nil, []string{"there is no run `wbe`"})
	if len(f.stopped) > 0 {
		t.Fatal("the run was stopped")
	}
	f.viewRequests = 0
	u.run("stop", "web", "-y", "--abort").check(t, ExitDone, nil, []string{"web is stopping", "web is stopped"})
	if len(f.stopped) != 1 || !f.stopped[0].Abort || f.stopped[0].RunsNames[0] != "web" {
		t.Errorf("requested %+v", f.stopped)
	}
	u.run("stop", "--all", "web").check(t, ExitInvalid, nil, []string{"--all stops every run of the project"})
	u.run("stop", "web", "-y").check(t, ExitDone, nil, []string{"web is stopped"})
	if len(f.stopped) != 1 {
		t.Error("a stopped run was stopped again")
	}
}

// An answer of the server has at most a hundred runs; a project may have more.
func TestActiveRuns_AreMoreThanAPage(t *testing.T) {
	f := newFakeServer(t)
	for i := range 250 {
		view := runViews(readyView)[0]
		view.Name, view.ID = fmt.Sprintf("web-%d", i), dstack.RunID(fmt.Sprint(i))
		f.list = append(f.list, view)
	}
	u := newTestUser(t, f)
	u.run("stop", "--all", "-y", "-d").check(t, ExitDone, nil, []string{"web-0 is stopping", "web-249 is stopping"})
	if len(f.stopped) != 1 || len(f.stopped[0].RunsNames) != 250 {
		t.Errorf("requested %+v", f.stopped)
	}
	var listed []api.RunView
	if got := u.run("ps", "-o", "json"); json.Unmarshal([]byte(got.out), &listed) != nil || len(listed) != 250 {
		t.Errorf("ps lists %d runs", len(listed))
	}
}

func TestStop_PrintsJSON(t *testing.T) {
	finished := runViews(stoppedView)[0]
	finished.Name = "old"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"web", "old"}, `[{"run":"web","status":"stopped"},{"run":"old","status":"stopped"}]`},
		{[]string{"web", "-d"}, `[{"run":"web","status":"stopping"}]`},
		{[]string{"old"}, `[{"run":"old","status":"stopped"}]`},
	} {
		f := newFakeServer(t)
		f.views = runViews(readyView, api.RunView{Status: api.StatusStopping}, stoppedView)
		f.list = []api.RunView{finished}
		got := newTestUser(t, f).run(append([]string{"stop", "-y", "-o", "json"}, c.args...)...)
		got.check(t, ExitDone, nil, nil)
		expectJSON(t, got.out, c.want)
	}
}

// expectJSON compares two JSON documents, apart from white space.
func expectJSON(t *testing.T, got, want string) {
	t.Helper()
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(got)); err != nil || compact.String() != want {
		t.Errorf("%v: got %s, want %s", err, compact.String(), want)
	}
}

func TestDelete(t *testing.T) {
	f := newFakeServer(t)
	f.list = runViews(readyView)
	u := newTestUser(t, f)
	u.run("delete", "web", "-y").check(t, ExitFailed, nil, []string{"cannot delete web: it is ready", "dstack stop web"})
	f.list = runViews(stoppedView)
	u.run("delete", "web").check(t, ExitInvalid, nil, []string{"add -y"})
	u.writeFile("service.dstack.yml", serviceFile)
	u.run("destroy", "-f", "service.dstack.yml", "-y").check(t, ExitDone, nil, []string{"web is deleted"})
	if len(f.deleted) != 1 || f.deleted[0] != "web" {
		t.Errorf("deleted %v", f.deleted)
	}
	got := u.run("delete", "web", "-y", "-o", "json")
	got.check(t, ExitDone, nil, nil)
	expectJSON(t, got.out, `[{"run":"web","status":"deleted"}]`)
	u.writeFile("nameless.dstack.yml", strings.Replace(serviceFile, "name: web\n", "", 1))
	u.run("delete", "-f", "nameless.dstack.yml").check(t, ExitInvalid, nil, []string{"names no run"})
}

func TestValidate(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFile("service.dstack.yml", serviceFile)
	u.writeFile("sub/bad.dstack.yml", "type: service\nport: 99999\ncommands: [a]\n")
	u.writeFile("sub/later.dstack.yml", serviceFile+"reservation: x\n")
	u.writeFile(".hidden/worse.dstack.yml", ":")
	u.run("validate", "service.dstack.yml").check(t, ExitDone, []string{"service.dstack.yml: valid\n"}, nil)
	u.writeFile("task.dstack.yml", "type: task\ncommands: [a]\n")
	u.writeFile("fleet.dstack.yml", "type: fleet\nnodes: 2\nreservation: r\n")
	u.run("validate", "sub/later.dstack.yml").check(t, ExitDone, []string{"sub/later.dstack.yml: valid, but this version cannot run it\n"},
		[]string{"sub/later.dstack.yml:9:14: note: not supported yet: reservation; remove it"})
	u.run("validate", "task.dstack.yml").check(t, ExitDone, []string{"task.dstack.yml: not checked\n"}, []string{"task.dstack.yml:1:7: note: not supported yet: type task"})
	u.run("validate", "fleet.dstack.yml").check(t, ExitDone, []string{"fleet.dstack.yml: valid, but"}, []string{"fleet.dstack.yml:3:14: note: not supported yet: reservation"})
	u.run("validate", ".").check(t, ExitInvalid, []string{"service.dstack.yml: valid\n"}, []string{"sub/bad.dstack.yml:2:7", "not supported yet: reservation"})
	u.writeFile(".hidden/Name.dstack.yml", "type: service\nname: My_Service\nport: 1\ncommands: [a]\n")
	u.run("validate", ".hidden/Name.dstack.yml").check(t, ExitInvalid, nil, []string{".hidden/Name.dstack.yml:2:7: `My_Service` is not a valid name for a run"})
	u.run("validate", "nowhere.yml", "service.dstack.yml").check(t, ExitInvalid, []string{"service.dstack.yml: valid\n"}, []string{"cannot read nowhere.yml"})
	u.run("validate").check(t, ExitInvalid, nil, []string{"there is no .dstack.yml"})
	u.in = strings.NewReader(serviceFile)
	u.run("validate", "-").check(t, ExitDone, []string{"(input): valid"}, nil)

	got := u.run("validate", ".", "-o", "json")
	got.check(t, ExitInvalid, nil, nil)
	var results []fileResult
	if err := json.Unmarshal([]byte(got.out), &results); err != nil || got.err != "" {
		t.Fatalf("%v: %s%s", err, got.out, got.err)
	}
	valid, notes := 0, 0
	for _, r := range results {
		if r.Valid {
			valid++
			notes += len(r.Notes)
		} else if len(r.Problems) != 1 || r.Problems[0].Line == 0 {
			t.Errorf("got %+v", r)
		}
	}
	if len(results) != 5 || valid != 4 || notes != 3 {
		t.Errorf("%d results, %d valid, %d notes", len(results), valid, notes)
	}
}

// A profiles file is checked as such, named by itself and found in a folder.
func TestValidate_Profiles(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFile("service.dstack.yml", serviceFile)
	u.writeFile(".dstack/profiles.yml", "profiles:\n- name: cheap\n  spot_policy: auto\n- name: gpus\n  reservation: a\n")
	u.run("validate", ".").check(t, ExitDone, []string{"service.dstack.yml: valid\n", ".dstack/profiles.yml: valid, but this version cannot run it\n"},
		[]string{".dstack/profiles.yml:5:16: note: not supported yet: reservation"})
	u.run("validate", "--json", ".dstack/profiles.yml").check(t, ExitDone, []string{`"profiles": [`, `"name": "cheap"`}, nil)

	u.writeFile(".dstack/profiles.yml", "profiles:\n- name: cheap\n  spot_polic: auto\n  nothing: 1\n")
	problems := []string{".dstack/profiles.yml:3:3: unknown field `spot_polic`", "did you mean `spot_policy`?", "2 problems in .dstack/profiles.yml"}
	u.run("validate", ".").check(t, ExitInvalid, []string{"service.dstack.yml: valid\n"}, problems)
	u.run("validate", ".dstack/profiles.yml").check(t, ExitInvalid, nil, problems)

	u.writeFile("alone/.dstack/profiles.yaml", "profiles:\n- name: cheap\n")
	u.run("validate", "alone").check(t, ExitDone, []string{"alone/.dstack/profiles.yaml: valid\n"}, nil)
	u.writeFile("alone/.dstack/profiles.yml", "profiles: [")
	u.run("validate", "alone", "-o", "json").check(t, ExitInvalid, []string{`"file": "alone/.dstack/profiles.yaml"`, `"valid": false`}, nil)
	u.run("validate", "alone").check(t, ExitInvalid, nil, []string{"invalid YAML"})
}

func TestValidate_PrintsNormalisedForm(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFile("service.dstack.yml", "type: service\nport: 80:8000\ncommands: ['a && b <c>']\nresources: {gpu: '24GB..:2'}\n")
	u.writeFile("bad.dstack.yml", "type: service\nport: 99999\ncommands: [a]\n")
	got := u.run("validate", "--json", "service.dstack.yml")
	got.check(t, ExitDone, []string{`"commands": [`, `"a && b <c>"`, `"min": 24.0`, `"container_port": 8000`}, nil)
	if !strings.HasPrefix(got.out, "{\n  \"port\": {") {
		t.Errorf("the order of the keys is not that of the wire format: %s", got.out)
	}
	got = u.run("validate", "--json", "bad.dstack.yml", "service.dstack.yml")
	got.check(t, ExitInvalid, []string{`"port": {`}, []string{"bad.dstack.yml:2:7: port 99999"})
	u.run("validate", "--json", "-o", "json").check(t, ExitInvalid, nil, []string{"do not go together"})
	u.run("validate", "--json", "task.dstack.yml").check(t, ExitInvalid, nil, []string{"cannot read task.dstack.yml"})
}

func TestSchema(t *testing.T) {
	u := newTestUser(t, nil)
	for _, args := range [][]string{{"schema"}, {"schema", "configuration"}, {"schema", "profiles"}} {
		got := u.run(args...)
		got.check(t, ExitDone, []string{`"$schema": "https://json-schema.org/draft/2020-12/schema"`}, nil)
		if !json.Valid([]byte(got.out)) {
			t.Errorf("%v does not print JSON", args)
		}
	}
	u.run("schema", "profils").check(t, ExitInvalid, nil, []string{"did you mean `profiles`?"})
	u.run("schema", "a", "b").check(t, ExitInvalid, nil, []string{"prints one schema"})
}

func TestInit(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.run("init").check(t, ExitDone, nil, []string{"is registered as"})
	u.run("init", "-o", "json").check(t, ExitDone, []string{`"path": "`, `"project": "main"`, `"repo_id": "` + f.repos[0].RepoID + `"`}, nil)
	book, err := readClientConfig(u.home)
	if err != nil || len(book.Repos) != 1 || book.Repos[0].RepoID != f.repos[0].RepoID {
		t.Errorf("%+v %v", book, err)
	}
}
