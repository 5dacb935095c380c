package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/decide/status"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files")

var t0 = time.Date(2024, 8, 21, 10, 0, 0, 0, time.UTC)

func testTime(seconds float64) time.Time {
	return t0.Add(time.Duration(seconds * float64(time.Second)))
}

func testSpec(t testing.TB, yaml string) dstack.RunSpec {
	t.Helper()
	conf, err := spec.ParseService("service.dstack.yml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return dstack.RunSpec{RepoID: "web-12345678", RepoData: json.RawMessage(`{"repo_type":"local","repo_dir":"/web"}`),
		WorkingDir: ".", ConfigurationPath: "service.dstack.yml", Configuration: *conf,
		Profile: spec.Profile{Name: "(python)"}, SSHKeyPub: "ssh-rsa AAA"}
}

const llama = `
type: service
name: llama31
python: "3.10"
env: [A=1]
commands: [a, b]
port: 8000
model: {type: chat, name: m/x, format: openai}
resources: {gpu: 24GB}
retry: {on_events: [no-capacity]}
replicas: 2
`

func testOffer() dstack.Offer {
	return dstack.Offer{Backend: "local", Key: "local-docker", Region: "local", Type: "box", OwnedInstance: "local-1-docker",
		Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 32768, DiskMiB: 102400, GPUs: []dstack.GPU{{ID: "GPU-1", Name: "L4", MemoryMiB: 24576}}},
		Engine:   dstack.EngineCapabilities{Name: "docker", Containers: true}}
}

// testRunDetails returns a run with two replicas: the first is ready and has
// crashed once, the second waits for a machine.
func testRunDetails(t *testing.T) store.RunDetails {
	rs := testSpec(t, llama)
	name := "llama31"
	rs.RunName = &name
	return store.RunDetails{
		Run: dstack.Run{ID: "11111111-1111-4111-8111-111111111111", Project: "main", User: "admin", Name: name, Spec: rs,
			Revision: 1, DesiredReplicas: 2, Status: dstack.RunActive, SubmittedAt: t0, Since: testTime(1), ReadyAt: testTime(20)},
		Replicas: []dstack.Replica{
			{ID: "22222222-2222-4222-8222-222222222220", Num: 0, Revision: 1, Status: dstack.ReplicaReady, Since: testTime(20),
				Instance: "local-1-docker", Attempt: "33333333-3333-4333-8333-333333333331", AttemptNum: 1, AttemptAt: testTime(10), SubmittedAt: testTime(1),
				PastAttempts: []dstack.Attempt{{ID: "33333333-3333-4333-8333-333333333330", StartedAt: testTime(2), EndedAt: testTime(9), Reason: "replica 0 exited with code 1 after 7s",
					EndState: dstack.AttemptExited, ExitCode: 1, LastOutput: []string{"boom"}}}},
			{ID: "22222222-2222-4222-8222-222222222221", Num: 1, Revision: 1, Status: dstack.ReplicaWaiting, Since: testTime(1.5), SubmittedAt: testTime(1),
				Reason: "no machine suits: box: 0 of 1 GPUs free"},
		},
		Reports: map[dstack.AttemptID]dstack.Report{"33333333-3333-4333-8333-333333333331": {State: dstack.AttemptRunning, Ready: true, Endpoint: dstack.Endpoint{Address: "127.0.0.1:32768"}}},
		Instances: map[dstack.InstanceID]dstack.Instance{"local-1-docker": {ID: "local-1-docker", Backend: "local-docker", Offer: testOffer(),
			Status: dstack.InstanceUp}},
	}
}

// compareGolden compares the JSON of a value to a golden file.
func compareGolden(t *testing.T, name string, value any) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s differs (write it with -update); got:\n%s", file, got.Bytes())
	}
}

func TestGoldenFiles(t *testing.T) {
	local := route.Origin{Scheme: "http", Host: "127.0.0.1:3000"}
	urls := route.Site{Server: local, Main: "main"}.URLs(route.Reader{Origin: local, IsLocal: true})
	compareGolden(t, "run.json", v018.BuildRun(wire.RunAnswer{Details: testRunDetails(t), URLs: buildRunURLs(urls, testRunDetails(t).Run), Now: testTime(3600)}))
	compareGolden(t, "view.json", buildRunView(testRunDetails(t), urls))
	compareGolden(t, "plan.json", v018.BuildPlan(wire.PlanAnswer{Project: "main", User: "admin", Spec: testSpec(t, llama),
		Groups: []wire.GroupPlan{{Spec: testSpec(t, llama), Placements: []dstack.Placement{{Offer: testOffer(), Free: "1 of 1 GPUs free"}}}}}))
}

// newReplicas returns replicas of the current revision with the given statuses.
func newReplicas(statuses ...dstack.ReplicaStatus) []dstack.Replica {
	var all []dstack.Replica
	for i, s := range statuses {
		all = append(all, dstack.Replica{ID: "r", Num: i, Revision: 1, TemplateRevision: 1, Status: s})
	}
	return all
}

func TestRunStatus_InViewsAndOnTheWire(t *testing.T) {
	const waiting, starting, ready, restarting, terminating = dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaRestarting, dstack.ReplicaTerminating
	const unhealthy, draining = dstack.ReplicaUnhealthy, dstack.ReplicaDraining
	for _, c := range []struct {
		name     string
		status   dstack.RunStatus
		wasReady bool
		replicas []dstack.ReplicaStatus
		wire     string
		view     api.RunStatus
	}{
		{"just submitted", dstack.RunSubmitted, false, nil, "submitted", api.StatusWaiting},
		{"no replica created yet", dstack.RunActive, false, nil, "pending", api.StatusWaiting},
		{"the only replica has failed", dstack.RunActive, false, []dstack.ReplicaStatus{dstack.ReplicaFailed}, "pending", api.StatusFailing},
		{"waits for a machine", dstack.RunActive, false, []dstack.ReplicaStatus{waiting, waiting}, "submitted", api.StatusWaiting},
		{"between two revisions", dstack.RunActive, false, []dstack.ReplicaStatus{dstack.ReplicaTerminated}, "pending", api.StatusStarting},
		{"one starts", dstack.RunActive, false, []dstack.ReplicaStatus{waiting, starting}, "provisioning", api.StatusStarting},
		{"one ready", dstack.RunActive, true, []dstack.ReplicaStatus{ready, starting}, "running", api.StatusDegraded},
		{"all ready", dstack.RunActive, true, []dstack.ReplicaStatus{ready, ready}, "running", api.StatusReady},
		{"crashed before it was ever ready", dstack.RunActive, false, []dstack.ReplicaStatus{restarting, restarting}, "pending", api.StatusStarting},
		{"crashed after", dstack.RunActive, true, []dstack.ReplicaStatus{restarting, restarting}, "pending", api.StatusFailing},
		{"was ready, starts again", dstack.RunActive, true, []dstack.ReplicaStatus{starting, restarting}, "provisioning", api.StatusFailing},
		{"one is unhealthy", dstack.RunActive, true, []dstack.ReplicaStatus{ready, unhealthy}, "running", api.StatusDegraded},
		{"all are unhealthy", dstack.RunActive, true, []dstack.ReplicaStatus{unhealthy, unhealthy}, "running", api.StatusFailing},
		{"a surplus replica drains", dstack.RunActive, true, []dstack.ReplicaStatus{ready, ready, draining}, "running", api.StatusReady},
		{"stopping", dstack.RunTerminating, true, []dstack.ReplicaStatus{terminating, terminating}, "terminating", api.StatusStopping},
		{"stopped", dstack.RunTerminated, true, nil, "terminated", api.StatusStopped},
		{"failed", dstack.RunFailed, false, nil, "failed", api.StatusFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			details := store.RunDetails{Run: dstack.Run{Name: "a-1", Revision: 1, TemplateRevision: 1, DesiredReplicas: 2, Status: c.status}, Replicas: newReplicas(c.replicas...)}
			details.Run.Spec.Configuration.Replicas.Min = 2
			if c.wasReady {
				details.Run.ReadyAt = t0
			}
			if got := v018.BuildRun(wire.RunAnswer{Details: details, Now: t0}).Status; got != c.wire {
				t.Errorf("on the wire %s, want %s", got, c.wire)
			}
			if got := buildRunView(details, route.URLs{}).Status; got != c.view {
				t.Errorf("in the view %s, want %s", got, c.view)
			}
		})
	}
}

func TestRunStatus_ScalingAndUpdates(t *testing.T) {
	viewStatus := func(desired int, rs ...dstack.Replica) api.RunStatus {
		details := store.RunDetails{Run: dstack.Run{Name: "a-1", Revision: 2, TemplateRevision: 2, DesiredReplicas: desired, Status: dstack.RunActive, ReadyAt: t0}, Replicas: rs}
		details.Run.Spec.Configuration.Replicas.Max = 3
		return buildRunView(details, route.URLs{}).Status
	}
	replica := func(template int, s dstack.ReplicaStatus) dstack.Replica {
		return dstack.Replica{ID: "r", TemplateRevision: template, Status: s}
	}
	for name, c := range map[string]struct{ got, want api.RunStatus }{
		"sleeping":                               {viewStatus(0), api.StatusSleeping},
		"sleeping, the last replica drains":      {viewStatus(0, replica(2, dstack.ReplicaDraining)), api.StatusSleeping},
		"wakes":                                  {viewStatus(1, replica(2, dstack.ReplicaStarting)), api.StatusStarting},
		"scaled up":                              {viewStatus(1, replica(2, dstack.ReplicaReady)), api.StatusReady},
		"crashed after it woke":                  {viewStatus(1, dstack.Replica{TemplateRevision: 2, Status: dstack.ReplicaRestarting, Crashes: 1}), api.StatusFailing},
		"rolling out":                            {viewStatus(1, replica(1, dstack.ReplicaReady), replica(2, dstack.ReplicaStarting)), api.StatusUpdating},
		"rolled out, an outdated replica drains": {viewStatus(1, replica(1, dstack.ReplicaDraining), replica(2, dstack.ReplicaReady)), api.StatusReady},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
}

func TestRunStatus_StopRequested(t *testing.T) {
	for status, want := range map[dstack.RunStatus]api.RunStatus{dstack.RunSubmitted: api.StatusStopping, dstack.RunActive: api.StatusStopping,
		dstack.RunTerminated: api.StatusStopped, dstack.RunFailed: api.StatusFailed} {
		details := store.RunDetails{Run: dstack.Run{Name: "a-1", Revision: 1, Status: status, Stop: dstack.StopGraceful}, Replicas: newReplicas(dstack.ReplicaReady)}
		if got := buildRunView(details, route.URLs{}).Status; got != want {
			t.Errorf("%s: %s, want %s", status, got, want)
		}
		if wire := v018.BuildRun(wire.RunAnswer{Details: details, Now: t0}).Status; (wire == "terminating") != (want == api.StatusStopping) {
			t.Errorf("%s: on the wire %s", status, wire)
		}
	}
}

func TestBuildRunView_OmitsReplacedReplicas(t *testing.T) {
	details := testRunDetails(t)
	old := details.Replicas[0]
	old.ID, old.Attempt, old.PastAttempts, old.Status = "old", "oldattempt", nil, dstack.ReplicaTerminated
	details.Replicas = append([]dstack.Replica{old}, details.Replicas...)
	if v := buildRunView(details, route.URLs{}); len(v.Replicas) != 2 {
		t.Errorf("the replaced replica is shown: %+v", v.Replicas)
	}
}

func TestHashView_ChangesWithTheViewOnly(t *testing.T) {
	one := buildRunView(testRunDetails(t), route.URLs{})
	details := testRunDetails(t)
	details.Run.Version, details.Replicas[0].Version = 7, 9
	r := details.Reports["33333333-3333-4333-8333-333333333331"]
	r.At = testTime(99)
	details.Reports["33333333-3333-4333-8333-333333333331"] = r
	if two := buildRunView(details, route.URLs{}); two.Version != one.Version || one.Version == "" {
		t.Errorf("%q became %q, but the view is the same", one.Version, two.Version)
	}
	details.Replicas[1].Reason = "another"
	if three := buildRunView(details, route.URLs{}); three.Version == one.Version {
		t.Error("the view changed, but not the version")
	}
}

func TestViewStates_ContainEveryState(t *testing.T) {
	for _, state := range []status.State{status.Submitted, status.Waiting, status.Starting, status.Ready, status.Updating, status.Degraded,
		status.Failing, status.Sleeping, status.Disabled, status.Stopping, status.Stopped, status.Failed, status.Unknown} {
		if viewStates[state] == "" {
			t.Errorf("%s has no status in views", state)
		}
	}
}
