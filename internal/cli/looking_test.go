package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestPS(t *testing.T) {
	f := newFake(t)
	u := newUser(t, f)
	u.types("ps").want(t, ExitDone, nil, []string{"no runs in project main"})
	u.types("ps", "-o", "json").want(t, ExitDone, []string{"[]\n"}, nil)

	f.list = life(
		api.RunView{Status: api.StatusReady},
		api.RunView{Status: api.StatusDegraded, DesiredReplicas: 2, Ready: 1, Replicas: []api.ReplicaView{
			{Num: 0, Status: dstack.ReplicaReady, Backend: "local", Instance: "box", Resources: "1×L4"},
			{Num: 1, Status: dstack.ReplicaWaiting, Reason: "no capacity: 2×H100"}}},
		api.RunView{Status: api.StatusFailed, Reason: "gave up\x1b[2J"})
	f.list[1].Name, f.list[2].Name = "mixtral", "dead"
	first := 0.21
	f.list[0].Metrics = &api.RunMetrics{Requests: 1, InFlight: 0}
	f.list[1].Model, f.list[1].Metrics = &api.ModelView{Name: "m"}, &api.RunMetrics{Requests: 12, InFlight: 2, Held: 3, TokensIn: 1234, TokensOut: 12345678, FirstToken: &first}
	got := u.types("ps")
	got.want(t, ExitDone, []string{" NAME     STATUS    REPLICAS  URL", " mixtral  degraded  1 of 2 ", "replica 1 is waiting: no capacity: 2×H100", " web      ready     1 of 1    http://web.localhost:3000/"}, nil)
	if strings.Contains(got.out, "dead") {
		t.Error("an ended run is listed")
	}
	got = u.types("ps", "-a", "-v")
	got.want(t, ExitDone, []string{"dead     ", "gave up\n", "  replica 0  ready ", "local box",
		"  1 request · 0 in flight\n", "  12 requests · 2 in flight · 3 held · first token after 210ms · tokens 1.2k in, 12.3M out\n"}, nil)
	var views []api.RunView
	if got := u.types("ps", "-a", "-o", "json"); json.Unmarshal([]byte(got.out), &views) != nil || len(views) != 3 {
		t.Errorf("got %s", got.out)
	}
	f.list = f.list[2:]
	u.types("ps").want(t, ExitDone, []string{"dead"}, nil) // the latest, as none is active
	u.types("ps", "daed").want(t, ExitFailed, nil, []string{"there is no run `daed` in project main", "did you mean `dead`?"})
	f.refuse["views"] = refusal{500, "Internal Server Error"}
	u.types("ps").want(t, ExitFailed, nil, []string{"answered 500"})
}

func TestPS_WatchShowsWhatChanges(t *testing.T) {
	f := newFake(t)
	f.list = life(ready)
	u := newUser(t, f)
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(100*time.Millisecond, press).Stop()
	u.ctx = ctx
	got := u.types("ps", "-w", "-o", "json")
	got.want(t, ExitDone, []string{`[{"id":`}, nil)
	if strings.Count(got.out, "\n") != 1 {
		t.Errorf("got %s", got.out)
	}
}

func TestLogs(t *testing.T) {
	f := newFake(t)
	f.list = life(stopped)
	stderr := line(2, "to\x1b]0;title\a \xff stderr")
	stderr.Stream = "stderr"
	lines := []api.LogEntry{line(1, "one"), stderr, {Error: "the disk is full: output was lost"}}
	f.logs = [][]api.LogEntry{lines, lines, lines, lines}
	u := newUser(t, f)
	got := u.types("logs", "web")
	got.want(t, ExitDone, nil, []string{"the disk is full: output was lost"})
	if want := "one\nto\x1b]0;title\a \xff stderr\n"; got.out != want {
		t.Errorf("a pipe got %q, want %q", got.out, want)
	}
	u.types("logs", "web", "-o", "json").want(t, ExitDone, []string{`{"timestamp":"2023-11-14T22:13:21Z","replica":0,"attempt":"a","stream":"stdout","message":"one"}`}, nil)
	u.types("logs", "web", "-t", "--replica", "1", "--since", "2023-11-14T22:00:00Z").want(t, ExitDone, []string{"2023-11-14T22:13:21.000Z one"}, nil)
	last := f.follows[len(f.follows)-1]
	if last.Replica == nil || *last.Replica != 1 || last.StartTime == nil || last.StartTime.Minute() != 0 {
		t.Errorf("asked %+v", last)
	}
	u.types("logs", "web", "--since", "yesterday").want(t, ExitInvalid, nil, []string{"--since: `yesterday` is not a time"})
	u.types("logs", "wbe").want(t, ExitFailed, nil, []string{"did you mean `web`?"})
}

func TestLogs_AServerThatRestartsLosesNothing(t *testing.T) {
	f := newFake(t)
	f.views = life(ready, stopped)
	f.cutLogs = 1
	f.logs = [][]api.LogEntry{{line(1, "one"), line(2, "two")}, {line(2, "two"), line(3, "three")}, {line(4, "four")}}
	f.views[0].Version = "" // every look is news
	u := newUser(t, f)
	got := u.types("logs", "web", "-f")
	got.want(t, ExitDone, nil, []string{"trying again"})
	if want := "one\ntwo\nthree\n"; got.out != want {
		t.Errorf("got %q, want %q", got.out, want)
	}
	if after := f.follows[1].After["a"]; !after.Equal(line(2, "").Timestamp) {
		t.Errorf("it came back with %v", f.follows[1].After)
	}
}

func TestLogs_CtrlCEndsTheLooking(t *testing.T) {
	f := newFake(t)
	f.views = life(ready)
	f.logs = [][]api.LogEntry{{line(1, "one")}}
	u := newUser(t, f)
	ctx, press := context.WithCancel(t.Context())
	defer time.AfterFunc(100*time.Millisecond, press).Stop()
	u.ctx = ctx
	u.types("logs", "web", "-f").want(t, ExitDone, []string{"one\n"}, nil)
}

func TestStop(t *testing.T) {
	f := newFake(t)
	f.views = life(ready, api.RunView{Status: api.StatusStopping, Reason: "1 replica is ending"}, stopped)
	u := newUser(t, f)
	u.types("stop", "web").want(t, ExitInvalid, nil, []string{`cannot ask "Stop web?"`, "add -y"})
	u.types("stop", "wbe", "-y").want(t, ExitFailed, nil, []string{"there is no run `wbe`"})
	if len(f.stopped) > 0 {
		t.Fatal("it was stopped")
	}
	f.looked = 0
	u.types("stop", "web", "-y", "--abort").want(t, ExitDone, nil, []string{"web is stopping", "web is stopped"})
	if len(f.stopped) != 1 || !f.stopped[0].Abort || f.stopped[0].RunsNames[0] != "web" {
		t.Errorf("asked %+v", f.stopped)
	}
	u.types("stop", "web", "-y").want(t, ExitDone, nil, []string{"web is stopped"})
	if len(f.stopped) != 1 {
		t.Error("what is stopped was stopped again")
	}
}

func TestDelete(t *testing.T) {
	f := newFake(t)
	f.list = life(ready)
	u := newUser(t, f)
	u.types("delete", "web", "-y").want(t, ExitFailed, nil, []string{"cannot delete web: it is ready", "dstack stop web"})
	f.list = life(stopped)
	u.types("delete", "web").want(t, ExitInvalid, nil, []string{"add -y"})
	u.write("service.dstack.yml", serviceFile)
	u.types("destroy", "-f", "service.dstack.yml", "-y").want(t, ExitDone, nil, []string{"web is deleted"})
	if len(f.deleted) != 1 || f.deleted[0] != "web" {
		t.Errorf("deleted %v", f.deleted)
	}
	u.write("nameless.dstack.yml", strings.Replace(serviceFile, "name: web\n", "", 1))
	u.types("delete", "-f", "nameless.dstack.yml").want(t, ExitInvalid, nil, []string{"names no run"})
}

func TestValidate(t *testing.T) {
	u := newUser(t, nil)
	u.write("service.dstack.yml", serviceFile)
	u.write("sub/bad.dstack.yml", "type: service\nport: 99999\ncommands: [a]\n")
	u.write("sub/later.dstack.yml", serviceFile+"pool_name: x\n")
	u.write(".hidden/worse.dstack.yml", ":")
	u.types("validate", "service.dstack.yml").want(t, ExitDone, []string{"service.dstack.yml: valid\n"}, nil)
	u.write("task.dstack.yml", "type: task\ncommands: [a]\n")
	u.write("fleet.dstack.yml", "type: fleet\nnodes: 2\n")
	u.types("validate", "sub/later.dstack.yml").want(t, ExitDone, []string{"sub/later.dstack.yml: valid, but this version cannot run it\n"},
		[]string{"sub/later.dstack.yml:9:12: note: not supported yet: pool_name; remove it"})
	u.types("validate", "task.dstack.yml").want(t, ExitDone, []string{"task.dstack.yml: not checked\n"}, []string{"task.dstack.yml:1:7: note: not supported yet: type task"})
	u.types("validate", "fleet.dstack.yml").want(t, ExitDone, []string{"fleet.dstack.yml: valid, but"}, []string{"fleet.dstack.yml:1:7: note: not supported yet: type fleet"})
	u.types("validate", ".").want(t, ExitInvalid, []string{"service.dstack.yml: valid\n"}, []string{"sub/bad.dstack.yml:2:7", "not supported yet: pool_name"})
	u.write(".hidden/Name.dstack.yml", "type: service\nname: My_Service\nport: 1\ncommands: [a]\n")
	u.types("validate", ".hidden/Name.dstack.yml").want(t, ExitInvalid, nil, []string{".hidden/Name.dstack.yml:2:7: `My_Service` is not a name for a run"})
	u.types("validate", "nowhere.yml", "service.dstack.yml").want(t, ExitInvalid, []string{"service.dstack.yml: valid\n"}, []string{"cannot read nowhere.yml"})
	u.types("validate").want(t, ExitInvalid, nil, []string{"there is no .dstack.yml"})
	u.in = strings.NewReader(serviceFile)
	u.types("validate", "-").want(t, ExitDone, []string{"(input): valid"}, nil)

	got := u.types("validate", ".", "-o", "json")
	got.want(t, ExitInvalid, nil, nil)
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

func TestValidate_Normal(t *testing.T) {
	u := newUser(t, nil)
	u.write("service.dstack.yml", "type: service\nport: 80:8000\ncommands: ['a && b <c>']\nresources: {gpu: '24GB..:2'}\n")
	u.write("bad.dstack.yml", "type: service\nport: 99999\ncommands: [a]\n")
	got := u.types("validate", "--json", "service.dstack.yml")
	got.want(t, ExitDone, []string{`"commands": [`, `"a && b <c>"`, `"min": 24.0`, `"container_port": 8000`}, nil)
	if !strings.HasPrefix(got.out, "{\n  \"port\": {") {
		t.Errorf("it does not begin as the wire does: %s", got.out)
	}
	got = u.types("validate", "--json", "bad.dstack.yml", "service.dstack.yml")
	got.want(t, ExitInvalid, []string{`"port": {`}, []string{"bad.dstack.yml:2:7: port 99999"})
	u.types("validate", "--json", "-o", "json").want(t, ExitInvalid, nil, []string{"do not go together"})
	u.types("validate", "--json", "task.dstack.yml").want(t, ExitInvalid, nil, []string{"cannot read task.dstack.yml"})
}

func TestSchema(t *testing.T) {
	u := newUser(t, nil)
	for _, args := range [][]string{{"schema"}, {"schema", "configuration"}, {"schema", "profiles"}} {
		got := u.types(args...)
		got.want(t, ExitDone, []string{`"$schema": "https://json-schema.org/draft/2020-12/schema"`}, nil)
		if !json.Valid([]byte(got.out)) {
			t.Errorf("%v prints no JSON", args)
		}
	}
	u.types("schema", "profils").want(t, ExitInvalid, nil, []string{"did you mean `profiles`?"})
	u.types("schema", "a", "b").want(t, ExitInvalid, nil, []string{"prints one schema"})
}

func TestInit(t *testing.T) {
	f := newFake(t)
	u := newUser(t, f)
	u.types("init").want(t, ExitDone, nil, []string{"is registered as"})
	u.types("init").want(t, ExitDone, nil, nil)
	book, err := readClientConfig(u.home)
	if err != nil || len(book.Repos) != 1 || book.Repos[0].RepoID != f.repos[0].RepoID {
		t.Errorf("%+v %v", book, err)
	}
}
