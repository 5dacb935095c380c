package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/store"
)

// fakeExecutor is an engine whose commands are functions.
type fakeExecutor struct {
	engine.Engine
	run func(ctx context.Context, spec dstack.AttemptSpec, c engine.Command) (int, error)
}

func (f *fakeExecutor) Exec(ctx context.Context, spec dstack.AttemptSpec, c engine.Command) (int, error) {
	return f.run(ctx, spec, c)
}

// newExecTest returns a server with the running replica 0 of web, and a client of it. The
// commands of the replica are run.
func newExecTest(t *testing.T, run func(context.Context, dstack.AttemptSpec, engine.Command) (int, error)) (*testServer, *api.Client) {
	h := newTestServer(t)
	h.backend.engine = &fakeExecutor{run: run}
	h.initRepo()
	submitted := h.submitRun("web")
	r := h.startReplica(submitted.ID)
	h.saveReports(r.Instance, dstack.Report{Attempt: r.Attempt, State: dstack.AttemptRunning, At: time.Now()})
	client, err := api.NewClient(h.url, h.admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return h, client
}

// saveReports saves the reports of an instance, as the instance pass does.
func (h *testServer) saveReports(id dstack.InstanceID, reports ...dstack.Report) {
	h.t.Helper()
	l := h.claimLease(store.Instances, string(id))
	seen, err := h.store.InstanceFacts(h.t.Context(), id)
	if err == nil {
		_, err = h.store.SaveInstanceStep(h.t.Context(), l, seen, lifecycle.InstanceStep{To: dstack.InstanceUp}, reports, nil, time.Now())
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestExec_PassesStreamsOn(t *testing.T) {
	sizes := make(chan engine.TerminalSize, 1)
	h, client := newExecTest(t, func(ctx context.Context, spec dstack.AttemptSpec, c engine.Command) (int, error) {
		if c.Terminal == nil || c.Terminal.Type != "xterm" || strings.Join(c.Argv, " ") != "echo -n hello" || spec.Env["DSTACK_RUN_NAME"] != "web" {
			t.Errorf("the command is %+v with %v", c, spec.Env)
		}
		sizes <- c.Terminal.Size
		sizes <- <-c.Terminal.Resizes
		text, err := io.ReadAll(c.Stdin)
		_, _ = c.Stderr.Write([]byte("to stderr"))
		_, outErr := c.Stdout.Write(text)
		return 42, errors.Join(err, outErr)
	})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 128<<10) // 2 MiB, several windows
	resizes := make(chan api.ExecSize, 1)
	var out, errOut bytes.Buffer
	var started api.ExecStarted
	done := make(chan struct{})
	go func() {
		defer close(done)
		if size := <-sizes; size != (engine.TerminalSize{Columns: 80, Rows: 24}) {
			t.Errorf("the size is %v", size)
		}
		resizes <- api.ExecSize{Columns: 132, Rows: 50}
		if size := <-sizes; size != (engine.TerminalSize{Columns: 132, Rows: 50}) {
			t.Errorf("the new size is %v", size)
		}
	}()
	code, err := client.Exec(t.Context(), "main", api.ExecRequest{
		RunName: "web", Command: []string{"echo", "-n", "hello"}, Terminal: &api.ExecTerminal{Type: "xterm", Size: api.ExecSize{Columns: 80, Rows: 24}},
	}, api.ExecStreams{Stdin: bytes.NewReader(sent), Stdout: &out, Stderr: &errOut, Resizes: resizes, Started: func(s api.ExecStarted) { started = s }})
	if code != 42 || err != nil || !bytes.Equal(out.Bytes(), sent) || errOut.String() != "to stderr" || started.Attempt == "" {
		t.Errorf("%d, %v; %d bytes, %q, %+v", code, err, out.Len(), errOut.String(), started)
	}
	<-done
	events := h.callAs(h.admin, api.PathEvents, `{"run_name": "web"}`)
	if !strings.Contains(events.text, `"kind":"exec"`) || !strings.Contains(events.text, "exec: a command") || strings.Contains(events.text+h.log.String(), "hello") {
		t.Errorf("the events are %s", events.text)
	}
	if !strings.Contains(h.log.String(), "exec: a command") {
		t.Error("the call is not in the audit log")
	}
}

func TestExec_EndsWithTheClient(t *testing.T) {
	ended := make(chan error, 1)
	_, client := newExecTest(t, func(ctx context.Context, _ dstack.AttemptSpec, c engine.Command) (int, error) {
		_, _ = c.Stdout.Write([]byte("up"))
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return 0, context.Cause(ctx)
	})
	ctx, cancel := context.WithCancel(t.Context())
	stdin, w := io.Pipe()
	defer w.Close()
	_, err := client.Exec(ctx, "main", api.ExecRequest{RunName: "web"},
		api.ExecStreams{Stdin: stdin, Stdout: writerFunc(func() { cancel() }), Stderr: io.Discard})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the client's error is %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, errCallerGone) {
			t.Errorf("the cause is %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the command goes on")
	}
}

// writerFunc calls a function for each write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func TestExec_EndsWhenTheCallerLosesAccess(t *testing.T) {
	h, _ := newExecTest(t, func(ctx context.Context, _ dstack.AttemptSpec, c engine.Command) (int, error) {
		_, _ = c.Stdout.Write([]byte("up"))
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	h.server.accessInterval = 20 * time.Millisecond
	token := h.createUser("alice", dstack.RoleUser)
	h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{{Username: "alice", ProjectRole: dstack.RoleUser}}}, nil)
	client, err := api.NewClient(h.url, token)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Exec(t.Context(), "main", api.ExecRequest{RunName: "web"}, api.ExecStreams{Stderr: io.Discard,
		Stdout: writerFunc(func() { h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{}}, nil) })})
	if dstack.KindOf(err) != dstack.NotFound {
		t.Errorf("the error is %v", err)
	}
}

// A command beside a plain process has the rights of the server.
func TestExec_BesidePlainProcessesIsForGlobalAdmins(t *testing.T) {
	h := newTestServer(t)
	h.backend.engine = &fakeExecutor{run: func(ctx context.Context, _ dstack.AttemptSpec, c engine.Command) (int, error) {
		return 0, nil
	}}
	h.initRepo()
	submitted := h.submitRun("web")
	h.stepRun(submitted.ID, lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0}}})
	plain := testOffer()
	plain.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.stepReplica(h.findReplica(submitted.ID).ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, Placement: &dstack.Placement{Offer: plain}, NewAttempt: true}
	})
	r := h.findReplica(submitted.ID)
	h.saveReports(r.Instance, dstack.Report{Attempt: r.Attempt, State: dstack.AttemptRunning, At: time.Now()})
	member := h.createUser("alice", dstack.RoleUser)
	h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{{Username: "alice", ProjectRole: dstack.RoleAdmin}}}, nil)
	for token, want := range map[string]dstack.Kind{h.admin: "", member: dstack.Forbidden} {
		client, err := api.NewClient(h.url, token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Exec(t.Context(), "main", api.ExecRequest{RunName: "web"}, api.ExecStreams{Stdout: io.Discard, Stderr: io.Discard})
		if (err == nil) != (want == "") || err != nil && dstack.KindOf(err) != want {
			t.Errorf("want %q, got %v", want, err)
		}
		client.Close()
	}
}

func TestExec_ReportsErrors(t *testing.T) {
	h, client := newExecTest(t, func(context.Context, dstack.AttemptSpec, engine.Command) (int, error) {
		return engine.ExitNoProgram, engine.NewNoProgramError([]string{"nope"})
	})
	one := 1
	for _, c := range []struct {
		name    string
		request api.ExecRequest
		code    int
		kind    dstack.Kind
		part    string
	}{
		{"no such program", api.ExecRequest{RunName: "web", Command: []string{"nope"}}, 127, dstack.Invalid, "no program `nope`"},
		{"no such run", api.ExecRequest{RunName: "absent"}, 0, dstack.NotFound, "there is no run"},
		{"no such replica", api.ExecRequest{RunName: "web", Replica: &one}, 0, dstack.NotFound, "web has no replica 1; there is: replica 0"},
	} {
		code, err := client.Exec(t.Context(), "main", c.request, api.ExecStreams{Stdout: io.Discard, Stderr: io.Discard})
		if code != c.code || dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %d, %v", c.name, code, err)
		}
	}
	h.backend.engine = nil
	if _, err := client.Exec(t.Context(), "main", api.ExecRequest{RunName: "web"}, api.ExecStreams{}); err == nil {
		t.Error("no error without an engine")
	}
	stranger, err := api.NewClient(h.url, "dst_wrong")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Exec(t.Context(), "main", api.ExecRequest{RunName: "web"}, api.ExecStreams{}); dstack.KindOf(err) != dstack.Unauthorized {
		t.Errorf("with a wrong token: %v", err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+strings.ReplaceAll(api.PathExec, "{project_name}", "main"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+h.admin)
	if a := h.send(r); a.status != 426 || a.header.Get("Upgrade") != "websocket" || !strings.Contains(a.text, "needs a WebSocket") {
		t.Errorf("without a WebSocket: %d %s", a.status, a.text)
	}
}

func TestChooseExecReplica(t *testing.T) {
	replica := func(num int, status dstack.ReplicaStatus, state dstack.AttemptState) (dstack.Replica, dstack.Report) {
		id := dstack.AttemptID(string(status) + string(rune('0'+num)))
		return dstack.Replica{Num: num, Status: status, Attempt: id, Reason: "it says why"}, dstack.Report{Attempt: id, State: state}
	}
	const running, exited = dstack.AttemptRunning, dstack.AttemptExited
	type given struct {
		num    int
		status dstack.ReplicaStatus
		state  dstack.AttemptState
	}
	one, three := 1, 3
	for name, c := range map[string]struct {
		replicas []given
		num      *int
		want     dstack.AttemptID
		part     string // of the error
	}{
		"the lowest ready one":      {[]given{{0, dstack.ReplicaStarting, running}, {1, dstack.ReplicaReady, running}, {2, dstack.ReplicaReady, running}}, nil, "ready1", ""},
		"else the lowest running":   {[]given{{0, dstack.ReplicaRestarting, exited}, {1, dstack.ReplicaStarting, running}, {2, dstack.ReplicaUnhealthy, running}}, nil, "starting1", ""},
		"one that ends is the last": {[]given{{0, dstack.ReplicaDraining, running}, {1, dstack.ReplicaStarting, running}}, nil, "starting1", ""},
		"but better than none":      {[]given{{0, dstack.ReplicaDraining, running}, {1, dstack.ReplicaWaiting, ""}}, nil, "draining0", ""},
		"the given one":             {[]given{{0, dstack.ReplicaReady, running}, {1, dstack.ReplicaStarting, running}}, &one, "starting1", ""},
		"the latest of its number":  {[]given{{1, dstack.ReplicaTerminated, exited}, {1, dstack.ReplicaReady, running}}, &one, "ready1", ""},
		"none":                      {nil, nil, "", "web has no running replica"},
		"none that runs":            {[]given{{0, dstack.ReplicaStarting, dstack.AttemptPulling}, {1, dstack.ReplicaFailed, exited}}, nil, "", "web has no running replica"},
		"the given one is crashed":  {[]given{{0, dstack.ReplicaReady, running}, {1, dstack.ReplicaRestarting, exited}}, &one, "", "replica 1 does not run, it is restarting: it says why"},
		"the given one is unknown":  {[]given{{0, dstack.ReplicaReady, running}}, &three, "", "web has no replica 3; there is: replica 0"},
	} {
		details := store.RunDetails{Run: dstack.Run{Name: "web"}, Reports: map[dstack.AttemptID]dstack.Report{}}
		for _, g := range c.replicas {
			r, report := replica(g.num, g.status, g.state)
			details.Replicas = append(details.Replicas, r)
			details.Reports[r.Attempt] = report
		}
		got, err := chooseExecReplica(details, c.num)
		if got.Attempt != c.want || (err == nil) != (c.part == "") || err != nil && !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %q, %v", name, got.Attempt, err)
		}
	}
}

func TestExecInput_RefusesMoreThanTheWindow(t *testing.T) {
	in := newExecInput()
	if !in.add(make([]byte, api.ExecWindow)) || in.add([]byte("x")) {
		t.Fatal("the window is not kept")
	}
	buffer := make([]byte, consumedStep)
	if n, consumed, err := in.read(buffer); n != consumedStep || consumed != consumedStep || err != nil {
		t.Errorf("%d, %d, %v", n, consumed, err)
	}
	if !in.add(make([]byte, consumedStep)) || in.add([]byte("x")) {
		t.Error("the window does not move")
	}
	in.close()
	left := 0
	for {
		n, _, err := in.read(buffer)
		if left += n; err != nil {
			break
		}
	}
	if left != api.ExecWindow {
		t.Errorf("%d bytes are left", left)
	}
}
