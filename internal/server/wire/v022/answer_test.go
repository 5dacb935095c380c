package v022

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

var t0 = time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)

// newAnswer returns a run of the second revision, which changed no container, with one ready replica whose first attempt
// exited.
func newAnswer(t *testing.T, yaml string) wire.RunAnswer {
	t.Helper()
	service, err := spec.ParseService("x.yml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	name := "web"
	return wire.RunAnswer{Now: t0, URLs: wire.RunURLs{Service: "http://127.0.0.1:3000/proxy/services/main/web/", Models: "http://127.0.0.1:3000/v1"}, Details: store.RunDetails{
		Run: dstack.Run{ID: "run", Project: "main", Name: name, Revision: 2, TemplateRevision: 1, StableRevision: 1, Status: dstack.RunActive, DesiredReplicas: 1,
			Spec: dstack.RunSpec{RunName: &name, RepoID: VirtualRepo, RepoData: virtualRepoData, Configuration: *service, SSHKeyPub: "ssh-ed25519 AAAA"}},
		Replicas: []dstack.Replica{{ID: "r0", Revision: 1, TemplateRevision: 1, Status: dstack.ReplicaReady, Instance: "box", Attempt: "a1", AttemptAt: t0,
			PastAttempts: []dstack.Attempt{{ID: "a0", StartedAt: t0, EndedAt: t0, EndState: dstack.AttemptExited, ExitCode: 3, Reason: "replica 0 exited with code 3"}}}},
		Instances: map[dstack.InstanceID]dstack.Instance{"box": {ID: "box", Offer: dstack.Offer{Backend: "local", Region: "local", Type: "vm",
			Hardware: dstack.Hardware{CPUs: 2, Arch: "x86", GPUs: []dstack.GPU{{Maker: "AMD", Name: "MI300X"}, {Maker: "other"}}}}}},
	}}
}

const plainService = "type: service\nport: 8000\ncommands: ['true']\n"

func TestBuildRun_Attempts(t *testing.T) {
	answer := newAnswer(t, plainService)
	answer.URLs.SSH = wire.SSHAddress{Host: "example.com", Port: 2200}
	run := BuildRun(GetRun{}, answer)
	if run.DeploymentNum != 2 || run.StatusMessage != "running" || len(run.Jobs) != 1 || *run.Jobs[0].JobSpec.ServicePort != 8000 {
		t.Fatalf("%+v", run)
	}
	failed, ready := run.Jobs[0].JobSubmissions[0], run.Jobs[0].JobSubmissions[1]
	if failed.StatusMessage != "exited (3)" || *failed.ExitStatus != 3 || *failed.Error != "replica 0 exited with code 3" {
		t.Errorf("%+v", failed)
	}
	if ready.StatusMessage != "running" || ready.DeploymentNum != 2 || ready.ExitStatus != nil || run.LatestJobSubmission.ID != "a1" {
		t.Errorf("%+v", ready)
	}
	data := ready.JobProvisioningData
	if data.Backend != "dstack" || data.Username != "a1" || data.Hostname != "example.com" || data.SSHPort != 2200 || !data.Dockerized {
		t.Errorf("%+v", data)
	}
	if hw := data.InstanceType.Resources; *hw.CPUArch != "x86" || *hw.GPUs[0].Vendor != "amd" || hw.GPUs[1].Vendor != nil {
		t.Errorf("%+v", hw)
	}
}

func TestBuildRun_OutdatedReplica(t *testing.T) {
	answer := newAnswer(t, plainService)
	answer.Details.Run.TemplateRevision = 2
	if s := BuildRun(GetRun{}, answer).LatestJobSubmission; s.DeploymentNum != 1 {
		t.Errorf("deployment %d", s.DeploymentNum)
	}
}

// A replica that does not become ready, and one that is not ready any more, have the reason as their error.
func TestBuildRun_LateReplica(t *testing.T) {
	for _, c := range []struct {
		status dstack.ReplicaStatus
		after  time.Duration
		want   string
	}{
		{dstack.ReplicaStarting, 59 * time.Second, ""},
		{dstack.ReplicaStarting, time.Minute, "nothing listens on port 8000"},
		{dstack.ReplicaUnhealthy, 0, "nothing listens on port 8000"},
		{dstack.ReplicaReady, time.Hour, ""},
	} {
		answer := newAnswer(t, plainService)
		answer.Now = t0.Add(c.after)
		answer.Details.Replicas[0].Status, answer.Details.Replicas[0].Reason = c.status, "nothing listens on port 8000"
		got := BuildRun(GetRun{}, answer).LatestJobSubmission.Error
		if valueOr(got, "") != c.want {
			t.Errorf("%s after %s: %v", c.status, c.after, got)
		}
	}
}

func TestBuildRun_StatusMessages(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    func(*store.RunDetails)
		run, last string
	}{
		{"pulling", func(d *store.RunDetails) {
			d.Replicas[0].Status = dstack.ReplicaStarting
			d.Reports = map[dstack.AttemptID]dstack.Report{"a1": {State: dstack.AttemptPulling}}
		}, "pulling", "pulling"},
		{"starting again", func(d *store.RunDetails) { d.Replicas[0].Status = dstack.ReplicaRestarting }, "retrying", "failed"},
		{"scaled to zero", func(d *store.RunDetails) {
			d.Run.DesiredReplicas, d.Replicas[0].Status, d.Replicas[0].FinishedAt = 0, dstack.ReplicaTerminated, t0
		}, "pending", "terminated"},
		{"stopped", func(d *store.RunDetails) {
			d.Run.Status, d.Run.Ending, d.Replicas[0].Status, d.Replicas[0].FinishedAt = dstack.RunTerminated, dstack.EndStopped, dstack.ReplicaTerminated, t0
		}, "terminated", "stopped"},
		{"past its max_duration", func(d *store.RunDetails) {
			d.Run.Status, d.Run.Ending, d.Replicas[0].Status, d.Replicas[0].FinishedAt = dstack.RunTerminated, dstack.EndDuration, dstack.ReplicaTerminated, t0
		}, "terminated", "max duration exceeded"},
		{"aborted", func(d *store.RunDetails) {
			d.Run.Status, d.Run.Ending, d.Replicas[0].Status, d.Replicas[0].FinishedAt = dstack.RunTerminated, dstack.EndAborted, dstack.ReplicaTerminated, t0
		}, "terminated", "aborted"},
		{"no capacity", func(d *store.RunDetails) {
			d.Run.Status, d.Run.Ending, d.Run.Reason = dstack.RunFailed, dstack.EndNoCapacity, "no machine suits"
			d.Replicas[0] = dstack.Replica{ID: "r0", Status: dstack.ReplicaFailed, FinishedAt: t0}
		}, "failed", "no capacity"},
	} {
		answer := newAnswer(t, plainService)
		c.change(&answer.Details)
		run := BuildRun(GetRun{}, answer)
		if run.StatusMessage != c.run || run.LatestJobSubmission.StatusMessage != c.last {
			t.Errorf("%s: %q, %q", c.name, run.StatusMessage, run.LatestJobSubmission.StatusMessage)
		}
		if (run.Error != nil) != (c.name == "no capacity") {
			t.Errorf("%s: error %v", c.name, run.Error)
		}
	}
}

func TestBuildRuns_Limits(t *testing.T) {
	answers := []wire.RunAnswer{newAnswer(t, plainService)}
	for _, c := range []struct {
		in                ListRuns
		jobs, submissions int
	}{{ListRuns{}, 1, 2}, {ListRuns{JobSubmissionsLimit: new(1)}, 1, 1}, {ListRuns{IncludeJobs: new(false)}, 0, 0}} {
		run := BuildRuns(c.in, answers)[0]
		if len(run.Jobs) != c.jobs || c.jobs > 0 && len(run.Jobs[0].JobSubmissions) != c.submissions || run.LatestJobSubmission.ID != "a1" {
			t.Errorf("%+v: %+v", c.in, run.Jobs)
		}
	}
}

func TestBuildService_PathsAreRelative(t *testing.T) {
	for _, c := range []struct{ url, wantURL, wantModel string }{
		{"http://127.0.0.1:3000/proxy/services/main/web/", "/proxy/services/main/web/", "/v1"},
		{"https://web.example.com", "https://web.example.com", "http://127.0.0.1:3000/v1"},
	} {
		answer := newAnswer(t, plainService+"model: {type: chat, name: m, format: openai}\n")
		answer.URLs.Service = c.url
		service := BuildRun(GetRun{}, answer).Service
		if service.URL != c.wantURL || service.Model.BaseURL != c.wantModel {
			t.Errorf("%s: %+v, %+v", c.url, service, service.Model)
		}
	}
}

// TestBuildConfiguration_OnlyKnownFields checks that an answer has no field and no value that clients refuse.
func TestBuildConfiguration_OnlyKnownFields(t *testing.T) {
	answer := newAnswer(t, `type: service
port: auto
python: "3.8"
commands: ['true']
replicas: 1..2
scaling: {metric: concurrency, target: 3, window: 2m}
probes: [{type: http, url: /, body: x}]
model: {type: chat, name: m, format: tgi, bos_token: "<s>"}
backends: [local, aws]
retry_policy: {retry: true, duration: 1h}
termination_policy: dont-destroy
pool_name: p
instance_name: i
max_duration: 2h
drain_timeout: 5s
hold: {requests: 5}
resources: {gpu: "tpu:2", cpu: "arm:4.."}
`)
	text, err := json.Marshal(BuildRun(GetRun{}, answer).RunSpec.Configuration)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"python", "window", "bos_token", "retry_policy", "pool_name", "instance_name", "termination", "drain", "hold", `"body":"x"`, "local\"", "concurrency"} {
		if strings.Contains(string(text), word) {
			t.Errorf("%s is in %s", word, text)
		}
	}
	for _, part := range []string{`"backends":["dstack","aws"]`, `"retry":{"on_events":["no-capacity","interruption","error"],"duration":3600}`, `"max_duration":7200`, `"idle_duration":-1`,
		`"port":{"local_port":80,"container_port":8000}`, `"vendor":"google"`, `"cpu":{"arch":"arm","count":{"min":4,"max":null}}`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
}

func TestCPU_HasATypeOnlyWhereOneIsAskedFor(t *testing.T) {
	four := 4
	for want, c := range map[string]spec.Resources{`{"min":4,"max":null}`: {CPU: spec.Range[int]{Min: &four}},
		`{"arch":"arm","count":{"min":4,"max":null}}`: {CPUArch: "arm", CPU: spec.Range[int]{Min: &four}}} {
		if got, err := json.Marshal(buildCPU(c)); err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

// TestBuildPlan_ComesBackUnchanged: clients apply the run that the plan has.
func TestBuildPlan_ComesBackUnchanged(t *testing.T) {
	answer := newAnswer(t, `type: service
name: web
port: 8000
image: ghcr.io/a/b
commands: ['echo "<&>"']
env: [B=1, A=2]
replicas: 0..2
scaling: {metric: rps, target: 3, window: 5m}
probes: [{type: http, url: /health, interval: 5s, headers: [{name: X, value: y}]}]
rate_limits: [{prefix: /v1/, rps: 10, burst: 20}]
model: {type: chat, name: m, format: openai, prefix: /v2}
registry_auth: {username: a, password: b}
backends: [local]
retry: {on_events: [error], duration: 1h}
max_duration: off
max_price: 1.5
resources: {gpu: "nvidia:24GB..:1..2", cpu: "x86:4..8", memory: 16GB, disk: 200GB.., shm_size: 1GB}
`)
	want := answer.Details.Run.Spec
	want.Profile.Name = "default"
	text, err := json.Marshal(buildRunSpec(want))
	if err != nil {
		t.Fatal(err)
	}
	back, err := wire.Decode[RunSpec](text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := back.decode()
	if err != nil {
		t.Fatal(err)
	}
	before, _ := want.Configuration.SourceJSON()
	after, _ := got.Configuration.SourceJSON()
	if string(before) != string(after) {
		t.Errorf("sent back:\n%s\nwant:\n%s", after, before)
	}
	if got.SSHKeyPub != want.SSHKeyPub || got.Profile.Name != "default" {
		t.Errorf("%+v", got)
	}
}

func TestBuildPlan(t *testing.T) {
	answer := newAnswer(t, plainService)
	cheap, dear := dstack.Placement{Offer: dstack.Offer{Backend: "local", Price: 1}}, dstack.Placement{Offer: dstack.Offer{Backend: "gcp", Price: 2}}
	plan := wire.PlanAnswer{Spec: answer.Details.Run.Spec,
		Groups: []wire.GroupPlan{{Spec: answer.Details.Run.Spec, Placements: []dstack.Placement{cheap, dear}}}}
	got := BuildPlan(GetPlan{MaxOffers: new(1)}, plan)
	if job := got.JobPlans[0]; got.Action != "create" || got.CurrentResource != nil || len(job.Offers) != 1 || job.TotalOffers != 2 || job.Offers[0].Backend != "dstack" {
		t.Errorf("%+v", got)
	}
	plan.Existing = &answer
	got = BuildPlan(GetPlan{ReverseOffers: true}, plan)
	if job := got.JobPlans[0]; got.Action != "update" || got.CurrentResource.ID != "run" || job.Offers[0].Backend != "gcp" {
		t.Errorf("%+v", got)
	}
}

func TestBuildLogs_NextToken(t *testing.T) {
	events := api.LogEvents{Logs: []api.LogEvent{{Timestamp: api.NewTimestamp(t0)}, {Timestamp: api.NewTimestamp(t0.Add(time.Microsecond))}}}
	for limit, want := range map[int]string{2: "2026-11-28T10:00:00.000001Z", 3: ""} {
		in := PollLogs{}
		in.Limit = &limit
		if got := valueOr(BuildLogs(in, events).NextToken, ""); got != want {
			t.Errorf("limit %d: %q, want %q", limit, got, want)
		}
	}
}

func TestBuildAccounts(t *testing.T) {
	ann := api.User{ID: "u", Username: "ann", GlobalRole: dstack.RoleUser}
	project := BuildProject(api.Project{ProjectName: "main", Owner: ann, Backends: []api.Backend{{Name: "local"}},
		Members: []api.Member{{User: ann, ProjectRole: dstack.RoleUser}, {User: ann, ProjectRole: dstack.RoleAdmin}}})
	if project.Backends[0].Name != "dstack" || project.Members[0].Permissions.CanManageSecrets || !project.Members[1].Permissions.CanManageSecrets || !project.Owner.Active {
		t.Errorf("%+v", project)
	}
	if c := BuildCaller(Caller{User: ann, Token: "t"}); c.Creds.Token != "t" || c.SSHPrivateKey != nil || c.SSHPublicKey != nil {
		t.Errorf("%+v", c)
	}
	users := []api.User{ann, {Username: "anton"}, {Username: "bob"}}
	if got := BuildUsers(ListQuery{NamePattern: new("AN"), Limit: new(1), ReturnTotalCount: true}, users).(UserList); got.TotalCount != 2 || len(got.Users) != 1 {
		t.Errorf("%+v", got)
	}
	if got := BuildProjects(ListQuery{}, []api.Project{{ProjectName: "main"}}).([]Project); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestBuildEvents(t *testing.T) {
	one := 1
	events := BuildEvents(ListEvents{}, []EventAnswer{
		{Event: dstack.Event{ID: 300, Run: "r", RunName: "web", Kind: dstack.EventApplied, User: "ann", Message: "revision 1"}, UserID: "u"},
		{Event: dstack.Event{ID: 301, Run: "r", RunName: "web", Kind: dstack.EventReplica, Replica: &one, From: "waiting", To: "starting"}},
		{Event: dstack.Event{ID: 302, Kind: dstack.EventReplica, To: "waiting", Message: "replica 0 was created"}},
		{Event: dstack.Event{ID: 303, Kind: dstack.EventStop, To: "stop", User: "gone"}},
	})
	var messages, targets []string
	for _, e := range events {
		messages, targets = append(messages, e.Message), append(targets, e.Targets[0].Type+" "+e.Targets[0].Name)
	}
	if want := []string{"applied: revision 1", "status changed: waiting → starting", "replicas: waiting: replica 0 was created", "stop"}; !slices.Equal(messages, want) {
		t.Errorf("%q", messages)
	}
	if targets[0] != "run web" || targets[1] != "job web-1-0" || *events[0].ActorUserID != "u" || events[1].ActorUser != nil || !*events[3].IsActorUserDeleted {
		t.Errorf("%q %+v", targets, events)
	}
	if id, ok := parseEventID(events[0].ID); !ok || id != 300 {
		t.Errorf("%s: %d", events[0].ID, id)
	}
}

func TestBuildFleets(t *testing.T) {
	if got := BuildFleets(ListFleets{}, ProjectFleets{}); got == nil || len(got) != 0 {
		t.Errorf("without machines: %v", got)
	}
	local := []api.Instance{{Backend: "local", ProjectName: "main", Status: "busy", InstanceType: &api.InstanceType{Name: "vm"}}}
	host := dstack.Host{ID: "h", Name: "box", Check: dstack.HostCheck{Status: dstack.HostFailed, CheckedAt: time.Now(), Message: "no Docker", Hint: "install it"}}
	fleet := dstack.Fleet{ID: "f", Name: "boxes", ProjectName: "main", Hosts: []dstack.Host{host}, Configuration: spec.Fleet{SSH: &spec.SSHMachines{}}}
	got := BuildFleets(ListFleets{}, ProjectFleets{local, []wire.FleetAnswer{{Fleet: fleet}}})
	if len(got) != 2 || got[0].Name != "default" || got[0].Spec.Configuration.Nodes.Min != 1 || got[0].Instances[0].Backend != "dstack" {
		t.Fatalf("%+v", got)
	}
	if failed := got[1].Instances[0]; failed.Status != "terminated" || *failed.TerminationReason != "no Docker" || failed.Backend != "remote" || failed.InstanceType != nil {
		t.Errorf("%+v", failed)
	}
	if !IsLocalFleet(wire.FleetName{Name: "default"}, "main") || !IsLocalFleet(wire.FleetName{ID: got[0].ID}, "main") || IsLocalFleet(wire.FleetName{Name: "boxes"}, "main") {
		t.Error("the fleet of the server's own machines is not found, or another one is")
	}
	if _, err := DecodeGetFleet(GetFleet{}); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("neither name nor ID: %v", err)
	}
}

// Without jobs, a client says of a submitted service that it waits for requests, unless the message is another than the status.
func TestBuildRun_StatusMessageBeforeTheFirstReplica(t *testing.T) {
	for replicas, want := range map[int]string{0: "submitted", 1: "starting"} {
		answer := newAnswer(t, plainService)
		answer.Details.Run.Status, answer.Details.Run.DesiredReplicas, answer.Details.Replicas = dstack.RunSubmitted, replicas, nil
		if run := BuildRun(GetRun{}, answer); run.Status != "submitted" || run.StatusMessage != want || len(run.Jobs) != 0 {
			t.Errorf("%d replicas: %s, %q, %d jobs", replicas, run.Status, run.StatusMessage, len(run.Jobs))
		}
	}
}

// Fleets stay in the plan, which clients submit; the backend of hosts has the name that
// they know.
func TestBuildPlan_FleetsAndHosts(t *testing.T) {
	answer := wire.PlanAnswer{Groups: []wire.GroupPlan{{Total: 1200, HighestPrice: 3,
		Placements: []dstack.Placement{{Offer: dstack.Offer{Backend: "ssh", Type: "gpu-1", OwnedInstance: "i"}}}}}}
	answer.Spec.Configuration.Fleets = []string{"lab"}
	text, err := json.Marshal(BuildPlan(GetPlan{}, answer))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"fleets":["lab"]`, `"backend":"remote"`, `"total_offers":1200`, `"max_price":3`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
}
