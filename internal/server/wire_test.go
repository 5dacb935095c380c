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
	"dstack/internal/decide/status"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

var t0 = time.Date(2024, 8, 21, 10, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

func testSpec(t *testing.T, yaml string) dstack.RunSpec {
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

// testRunDetails is a run with one ready replica, that crashed once before, and
// one that waits.
func testRunDetails(t *testing.T) store.RunDetails {
	rs := testSpec(t, llama)
	name := "llama31"
	rs.RunName = &name
	return store.RunDetails{
		Run: dstack.Run{ID: "11111111-1111-4111-8111-111111111111", Project: "main", User: "admin", Name: name, Spec: rs,
			Revision: 1, DesiredReplicas: 2, Status: dstack.RunActive, SubmittedAt: t0, Since: at(1), ReadyAt: at(20)},
		Replicas: []dstack.Replica{
			{ID: "22222222-2222-4222-8222-222222222220", Num: 0, Revision: 1, Status: dstack.ReplicaReady, Since: at(20),
				Instance: "local-1-docker", Attempt: "33333333-3333-4333-8333-333333333331", AttemptNum: 1, AttemptAt: at(10), SubmittedAt: at(1),
				PastAttempts: []dstack.Attempt{{ID: "33333333-3333-4333-8333-333333333330", StartedAt: at(2), EndedAt: at(9), Reason: "replica 0 exited with code 1 after 7s",
					EndState: dstack.AttemptExited, ExitCode: 1, LastOutput: []string{"boom"}}}},
			{ID: "22222222-2222-4222-8222-222222222221", Num: 1, Revision: 1, Status: dstack.ReplicaWaiting, Since: at(1.5), SubmittedAt: at(1),
				Reason: "no machine suits: box: 0 of 1 GPUs free"},
		},
		Reports: map[dstack.AttemptID]dstack.Report{"33333333-3333-4333-8333-333333333331": {State: dstack.AttemptRunning, Ready: true, Endpoint: dstack.Endpoint{Address: "127.0.0.1:32768"}}},
		Instances: map[dstack.InstanceID]dstack.Instance{"local-1-docker": {ID: "local-1-docker", Backend: "local-docker", Offer: testOffer(),
			Status: dstack.InstanceUp}},
	}
}

func golden(t *testing.T, name string, value any) {
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
		t.Errorf("%s differs (write it anew with -update); got:\n%s", file, got.Bytes())
	}
}

func TestWire_GoldenShapes(t *testing.T) {
	names := newPublicURLs(Options{PublicURL: "http://127.0.0.1:3000"})
	golden(t, "run.json", wire.BuildRun(testRunDetails(t), names.runURLs(testRunDetails(t).Run), at(3600)))
	golden(t, "view.json", buildRunView(testRunDetails(t), names))
	c := &request{user: dstack.User{Name: "admin"}, project: dstack.Project{Name: "main"}}
	golden(t, "plan.json", runPlan{spec: testSpec(t, llama), placements: []dstack.Placement{{Offer: testOffer(), Free: "1 of 1 GPUs free"}}}.toWire(c))
}

func replicas(statuses ...dstack.ReplicaStatus) []dstack.Replica {
	var all []dstack.Replica
	for i, s := range statuses {
		all = append(all, dstack.Replica{ID: "r", Num: i, Revision: 1, TemplateRevision: 1, Status: s})
	}
	return all
}

func TestStatuses_OnTheWireAndInOurWords(t *testing.T) {
	const waiting, starting, ready, again, going = dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaRestarting, dstack.ReplicaTerminating
	const sick, draining = dstack.ReplicaUnhealthy, dstack.ReplicaDraining
	for _, c := range []struct {
		name     string
		status   dstack.RunStatus
		wasReady bool
		replicas []dstack.ReplicaStatus
		wire     string
		view     api.RunStatus
	}{
		{"just submitted", dstack.RunSubmitted, false, nil, "submitted", api.StatusWaiting},
		{"no replica made yet", dstack.RunActive, false, nil, "pending", api.StatusWaiting},
		{"its last hope has failed", dstack.RunActive, false, []dstack.ReplicaStatus{dstack.ReplicaFailed}, "pending", api.StatusFailing},
		{"waits for a machine", dstack.RunActive, false, []dstack.ReplicaStatus{waiting, waiting}, "submitted", api.StatusWaiting},
		{"between two revisions", dstack.RunActive, false, []dstack.ReplicaStatus{dstack.ReplicaTerminated}, "pending", api.StatusStarting},
		{"one starts", dstack.RunActive, false, []dstack.ReplicaStatus{waiting, starting}, "provisioning", api.StatusStarting},
		{"one ready", dstack.RunActive, true, []dstack.ReplicaStatus{ready, starting}, "running", api.StatusDegraded},
		{"all ready", dstack.RunActive, true, []dstack.ReplicaStatus{ready, ready}, "running", api.StatusReady},
		{"crashed before it was ever ready", dstack.RunActive, false, []dstack.ReplicaStatus{again, again}, "pending", api.StatusStarting},
		{"crashed after", dstack.RunActive, true, []dstack.ReplicaStatus{again, again}, "pending", api.StatusFailing},
		{"was ready, starts again", dstack.RunActive, true, []dstack.ReplicaStatus{starting, again}, "provisioning", api.StatusFailing},
		{"one answers no probe", dstack.RunActive, true, []dstack.ReplicaStatus{ready, sick}, "running", api.StatusDegraded},
		{"none does", dstack.RunActive, true, []dstack.ReplicaStatus{sick, sick}, "running", api.StatusFailing},
		{"one leaves", dstack.RunActive, true, []dstack.ReplicaStatus{ready, ready, draining}, "running", api.StatusReady},
		{"being stopped", dstack.RunTerminating, true, []dstack.ReplicaStatus{going, going}, "terminating", api.StatusStopping},
		{"stopped", dstack.RunTerminated, true, nil, "terminated", api.StatusStopped},
		{"failed", dstack.RunFailed, false, nil, "failed", api.StatusFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := store.RunDetails{Run: dstack.Run{Name: "a-1", Revision: 1, TemplateRevision: 1, DesiredReplicas: 2, Status: c.status}, Replicas: replicas(c.replicas...)}
			w.Run.Spec.Configuration.Replicas.Min = 2
			if c.wasReady {
				w.Run.ReadyAt = t0
			}
			if got := wire.BuildRun(w, wire.RunURLs{}, t0).Status; got != c.wire {
				t.Errorf("on the wire %s, want %s", got, c.wire)
			}
			if got := buildRunView(w, publicURLs{}).Status; got != c.view {
				t.Errorf("in our words %s, want %s", got, c.view)
			}
		})
	}
}

// A service that scales has as many replicas as are wanted now.
func TestStatuses_OfWhatScalesAndChanges(t *testing.T) {
	of := func(wanted int, rs ...dstack.Replica) api.RunStatus {
		w := store.RunDetails{Run: dstack.Run{Name: "a-1", Revision: 2, TemplateRevision: 2, DesiredReplicas: wanted, Status: dstack.RunActive, ReadyAt: t0}, Replicas: rs}
		w.Run.Spec.Configuration.Replicas.Max = 3
		return buildRunView(w, publicURLs{}).Status
	}
	one := func(shape int, s dstack.ReplicaStatus) dstack.Replica {
		return dstack.Replica{ID: "r", TemplateRevision: shape, Status: s}
	}
	for name, c := range map[string]struct{ got, want api.RunStatus }{
		"asleep":                      {of(0), api.StatusSleeping},
		"asleep, the last one leaves": {of(0, one(2, dstack.ReplicaDraining)), api.StatusSleeping},
		"wakes":                       {of(1, one(2, dstack.ReplicaStarting)), api.StatusStarting},
		"awake":                       {of(1, one(2, dstack.ReplicaReady)), api.StatusReady},
		"crashed after it woke":       {of(1, dstack.Replica{TemplateRevision: 2, Status: dstack.ReplicaRestarting, Crashes: 1}), api.StatusFailing},
		"a new revision takes over":   {of(1, one(1, dstack.ReplicaReady), one(2, dstack.ReplicaStarting)), api.StatusUpdating},
		"and has taken over":          {of(1, one(1, dstack.ReplicaDraining), one(2, dstack.ReplicaReady)), api.StatusReady},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
}

func TestStatuses_AWishToStopCountsAtOnce(t *testing.T) {
	for status, want := range map[dstack.RunStatus]api.RunStatus{dstack.RunSubmitted: api.StatusStopping, dstack.RunActive: api.StatusStopping,
		dstack.RunTerminated: api.StatusStopped, dstack.RunFailed: api.StatusFailed} {
		w := store.RunDetails{Run: dstack.Run{Name: "a-1", Revision: 1, Status: status, Stop: dstack.StopGraceful}, Replicas: replicas(dstack.ReplicaReady)}
		if got := buildRunView(w, publicURLs{}).Status; got != want {
			t.Errorf("%s: %s, want %s", status, got, want)
		}
		if wire := wire.BuildRun(w, wire.RunURLs{}, t0).Status; (wire == "terminating") != (want == api.StatusStopping) {
			t.Errorf("%s: on the wire %s", status, wire)
		}
	}
}

func TestSubmissions_StatusAndReason(t *testing.T) {
	past := []dstack.Attempt{{ID: "a0", StartedAt: at(1), EndedAt: at(2), EndState: dstack.AttemptExited, Reason: "exited"}}
	for _, c := range []struct {
		name           string
		replica        dstack.Replica
		ending         dstack.Ending
		report         dstack.Report
		n              int
		status, reason string
		finished       bool
	}{
		{"without an attempt", dstack.Replica{ID: "r0", Status: dstack.ReplicaWaiting}, "", dstack.Report{}, 1, "submitted", "", false},
		{"pulling", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaStarting}, "", dstack.Report{State: dstack.AttemptPulling}, 1, "pulling", "", false},
		{"starting", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaStarting, PastAttempts: past}, "", dstack.Report{State: dstack.AttemptRunning}, 2, "provisioning", "", false},
		{"between two attempts", dstack.Replica{Attempt: "a0", Status: dstack.ReplicaRestarting, PastAttempts: past, Since: at(2)}, "", dstack.Report{}, 1, "failed", "container_exited_with_error", true},
		{"no capacity", dstack.Replica{ID: "r0", Status: dstack.ReplicaFailed, FinishedAt: at(3)}, dstack.EndNoCapacity, dstack.Report{}, 1, "failed", "failed_to_start_due_to_no_capacity", true},
		{"refused", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaFailed, FinishedAt: at(3)}, dstack.EndFailed, dstack.Report{State: dstack.AttemptRefused}, 1, "failed", "creating_container_error", true},
		{"never opened its port", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaFailed, FinishedAt: at(3)}, dstack.EndFailed, dstack.Report{State: dstack.AttemptRunning}, 1, "failed", "waiting_runner_limit_exceeded", true},
		{"stopped", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminated, FinishedAt: at(3)}, dstack.EndStopped, dstack.Report{}, 1, "terminated", "terminated_by_user", true},
		{"aborted", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminated, FinishedAt: at(3)}, dstack.EndAborted, dstack.Report{}, 1, "aborted", "aborted_by_user", true},
		{"pulled down with another", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminated, FinishedAt: at(3)}, dstack.EndFailed, dstack.Report{}, 1, "terminated", "terminated_by_server", true},
		{"replaced", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminating}, dstack.EndNone, dstack.Report{}, 1, "terminating", "scaled_down", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := store.RunDetails{Run: dstack.Run{Ending: c.ending}, Replicas: []dstack.Replica{c.replica},
				Reports: map[dstack.AttemptID]dstack.Report{"a1": c.report}}
			all := wire.BuildRun(w, wire.RunURLs{}, t0).Jobs[0].JobSubmissions
			if len(all) != c.n {
				t.Fatalf("%d submissions, want %d", len(all), c.n)
			}
			last := all[len(all)-1]
			if last.Status != c.status || orEmpty(last.TerminationReason) != c.reason || (last.FinishedAt != nil) != c.finished {
				t.Errorf("%s, %q, finished %v", last.Status, orEmpty(last.TerminationReason), last.FinishedAt)
			}
			if last.ID == "" {
				t.Error("it has no id")
			}
		})
	}
}

func TestWireRun_CostIsPriceTimesHours(t *testing.T) {
	w := testRunDetails(t)
	i := w.Instances["local-1-docker"]
	i.Offer.Price = 0.5
	w.Instances["local-1-docker"] = i
	run := wire.BuildRun(w, wire.RunURLs{}, at(10+7200)) // 7s of the first attempt, 2h of the second
	if run.Cost != 1.001 {
		t.Errorf("cost %v", run.Cost)
	}
}

func TestJobs_OfManyRevisionsAreOneANumber(t *testing.T) {
	w := testRunDetails(t)
	old := w.Replicas[0]
	old.ID, old.Attempt, old.PastAttempts, old.Status = "old", "oldattempt", nil, dstack.ReplicaTerminated
	w.Replicas = append([]dstack.Replica{old}, w.Replicas...)
	jobs := wire.BuildRun(w, wire.RunURLs{}, t0).Jobs
	if len(jobs) != 2 || len(jobs[0].JobSubmissions) != 3 {
		t.Fatalf("%d jobs, %d submissions", len(jobs), len(jobs[0].JobSubmissions))
	}
	for i, s := range jobs[0].JobSubmissions {
		if s.SubmissionNum != i {
			t.Errorf("submission %d is numbered %d", i, s.SubmissionNum)
		}
	}
	if v := buildRunView(w, publicURLs{}); len(v.Replicas) != 2 {
		t.Errorf("the replaced replica is still shown: %+v", v.Replicas)
	}
}

func TestVersionOf_ChangesWithWhatIsShownAndOnlyThen(t *testing.T) {
	one := buildRunView(testRunDetails(t), publicURLs{})
	w := testRunDetails(t)
	w.Run.Version, w.Replicas[0].Version = 7, 9
	r := w.Reports["33333333-3333-4333-8333-333333333331"]
	r.At = at(99)
	w.Reports["33333333-3333-4333-8333-333333333331"] = r
	if two := buildRunView(w, publicURLs{}); two.Version != one.Version || one.Version == "" {
		t.Errorf("%q became %q, and nothing that is shown changed", one.Version, two.Version)
	}
	w.Replicas[1].Reason = "another"
	if three := buildRunView(w, publicURLs{}); three.Version == one.Version {
		t.Error("a change did not change the version")
	}
}

func TestAddress_OfServicesAndModels(t *testing.T) {
	for _, c := range []struct{ public, domain, project, service, models string }{
		{"http://127.0.0.1:3000", "", "main", "http://llama.localhost:3000", "http://gateway.localhost:3000"},
		{"http://127.0.0.1:3000", "", "Main", "http://llama.localhost:3000", "http://gateway.localhost:3000"},
		{"http://127.0.0.1:3000", "", "Other", "http://llama.other.localhost:3000", "http://gateway.other.localhost:3000"},
		{"https://dstack.example.com", "example.com", "main", "https://llama.example.com", "https://gateway.example.com"},
		{"", "", "main", "http://llama.localhost:3000", "http://gateway.localhost:3000"},
	} {
		a := newPublicURLs(Options{PublicURL: c.public, Domain: c.domain})
		if got := a.serviceURL(c.project, "llama"); got != c.service {
			t.Errorf("service %s, want %s", got, c.service)
		}
		if got := a.modelsURL(c.project); got != c.models {
			t.Errorf("models %s, want %s", got, c.models)
		}
	}
}

// Clients look at the latest submission: it is that of what serves, or of what
// comes, and not of what has failed or leaves.
func TestWireJobs_TheLastSubmissionIsTheOneThatCounts(t *testing.T) {
	one := func(id string, shape int, s dstack.ReplicaStatus) dstack.Replica {
		return dstack.Replica{ID: dstack.ReplicaID(id), Attempt: dstack.AttemptID(id), TemplateRevision: shape, Revision: shape, Status: s}
	}
	for _, c := range []struct {
		name     string
		run      dstack.Run
		replicas []dstack.Replica // in the order in which they were submitted
		want     dstack.AttemptID
	}{
		{"after a fall back", dstack.Run{TemplateRevision: 1, ReadyAt: t0}, []dstack.Replica{one("old", 1, dstack.ReplicaReady), one("failed", 2, dstack.ReplicaFailed)}, "old"},
		{"during an update", dstack.Run{TemplateRevision: 2, StableRevision: 1}, []dstack.Replica{one("old", 1, dstack.ReplicaReady), one("new", 2, dstack.ReplicaStarting)}, "old"},
		{"after an update", dstack.Run{TemplateRevision: 2, ReadyAt: t0}, []dstack.Replica{one("old", 1, dstack.ReplicaDraining), one("new", 2, dstack.ReplicaReady)}, "new"},
		{"at first", dstack.Run{TemplateRevision: 1}, []dstack.Replica{one("first", 1, dstack.ReplicaFailed), one("next", 1, dstack.ReplicaStarting)}, "next"},
		{"asleep", dstack.Run{TemplateRevision: 1, ReadyAt: t0}, []dstack.Replica{one("first", 1, dstack.ReplicaTerminated), one("next", 1, dstack.ReplicaTerminated)}, "next"},
	} {
		jobs := wire.BuildRun(store.RunDetails{Run: c.run, Replicas: c.replicas}, wire.RunURLs{}, t0).Jobs
		if n := len(jobs[0].JobSubmissions); n != 2 || jobs[0].JobSubmissions[n-1].ID != c.want {
			t.Errorf("%s: %+v", c.name, jobs[0].JobSubmissions)
		}
	}
}

// Every state has a status in views and, alone or by its furthest replica, a
// status on the wire: neither answers an empty word.
func TestStates_EveryStateHasAName(t *testing.T) {
	for _, state := range []status.State{status.Submitted, status.Waiting, status.Starting, status.Ready, status.Updating, status.Degraded,
		status.Failing, status.Sleeping, status.Disabled, status.Stopping, status.Stopped, status.Failed, status.Unknown} {
		if viewStates[state] == "" {
			t.Errorf("%s has no status in views", state)
		}
	}
	for _, run := range []dstack.RunStatus{dstack.RunSubmitted, dstack.RunActive, dstack.RunTerminating, dstack.RunTerminated, dstack.RunFailed, "paused"} {
		for _, replica := range []dstack.ReplicaStatus{dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaUnhealthy,
			dstack.ReplicaRestarting, dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed} {
			w := store.RunDetails{Run: dstack.Run{Name: "a-1", Status: run}, Replicas: replicas(replica)}
			if wire.BuildRun(w, wire.RunURLs{}, t0).Status == "" {
				t.Errorf("a %s run with a %s replica has no status on the wire", run, replica)
			}
		}
	}
}
