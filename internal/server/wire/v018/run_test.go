package v018

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

var t0 = time.Date(2024, 8, 21, 10, 0, 0, 0, time.UTC)

func testTime(seconds float64) time.Time {
	return t0.Add(time.Duration(seconds * float64(time.Second)))
}

// newRestartedRun returns a run with one ready replica, whose first attempt
// crashed after 7 seconds and whose second began 10 seconds after t0.
func newRestartedRun() store.RunDetails {
	return store.RunDetails{
		Run: dstack.Run{Name: "web", Revision: 1, Status: dstack.RunActive},
		Replicas: []dstack.Replica{{ID: "r0", Status: dstack.ReplicaReady, Revision: 1, Instance: "box", Attempt: "a1", AttemptAt: testTime(10),
			PastAttempts: []dstack.Attempt{{ID: "a0", StartedAt: testTime(2), EndedAt: testTime(9), EndState: dstack.AttemptExited}}}},
		Instances: map[dstack.InstanceID]dstack.Instance{"box": {ID: "box", Offer: dstack.Offer{Price: 0.5}}},
	}
}

func TestBuildRun_Submissions(t *testing.T) {
	past := []dstack.Attempt{{ID: "a0", StartedAt: testTime(1), EndedAt: testTime(2), EndState: dstack.AttemptExited, Reason: "exited"}}
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
		{"restarting", dstack.Replica{Attempt: "a0", Status: dstack.ReplicaRestarting, PastAttempts: past, Since: testTime(2)}, "", dstack.Report{}, 1, "failed", "container_exited_with_error", true},
		{"no capacity", dstack.Replica{ID: "r0", Status: dstack.ReplicaFailed, FinishedAt: testTime(3)}, dstack.EndNoCapacity, dstack.Report{}, 1, "failed", "failed_to_start_due_to_no_capacity", true},
		{"the engine refused the start", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaFailed, FinishedAt: testTime(3)}, dstack.EndFailed, dstack.Report{State: dstack.AttemptRefused}, 1, "failed", "creating_container_error", true},
		{"never ready", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaFailed, FinishedAt: testTime(3)}, dstack.EndFailed, dstack.Report{State: dstack.AttemptRunning}, 1, "failed", "waiting_runner_limit_exceeded", true},
		{"stopped", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminated, FinishedAt: testTime(3)}, dstack.EndStopped, dstack.Report{}, 1, "terminated", "terminated_by_user", true},
		{"aborted", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminated, FinishedAt: testTime(3)}, dstack.EndAborted, dstack.Report{}, 1, "aborted", "aborted_by_user", true},
		{"terminated because the run failed", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminated, FinishedAt: testTime(3)}, dstack.EndFailed, dstack.Report{}, 1, "terminated", "terminated_by_server", true},
		{"replaced or scaled down", dstack.Replica{Attempt: "a1", Status: dstack.ReplicaTerminating}, dstack.EndNone, dstack.Report{}, 1, "terminating", "scaled_down", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			details := store.RunDetails{Run: dstack.Run{Ending: c.ending}, Replicas: []dstack.Replica{c.replica},
				Reports: map[dstack.AttemptID]dstack.Report{"a1": c.report}}
			all := BuildRun(wire.RunAnswer{Details: details, Now: t0}).Jobs[0].JobSubmissions
			if len(all) != c.n {
				t.Fatalf("%d submissions, want %d", len(all), c.n)
			}
			last := all[len(all)-1]
			if last.Status != c.status || valueOf(last.TerminationReason) != c.reason || (last.FinishedAt != nil) != c.finished {
				t.Errorf("%s, %q, finished %v", last.Status, valueOf(last.TerminationReason), last.FinishedAt)
			}
			if last.ID == "" {
				t.Error("the submission has no ID")
			}
		})
	}
}

func TestBuildRun_CostIsPriceTimesHours(t *testing.T) {
	run := BuildRun(wire.RunAnswer{Details: newRestartedRun(), Now: testTime(10 + 7200)}) // 7s of the first attempt, 2h of the second
	if run.Cost != 1.001 {
		t.Errorf("cost %v", run.Cost)
	}
}

func TestBuildRun_OneJobPerNumberAcrossRevisions(t *testing.T) {
	details := newRestartedRun()
	details.Replicas = append([]dstack.Replica{{ID: "old", Attempt: "old", Status: dstack.ReplicaTerminated}}, details.Replicas...)
	details.Replicas = append(details.Replicas, dstack.Replica{ID: "r1", Num: 1, Revision: 1, Status: dstack.ReplicaWaiting})
	jobs := BuildRun(wire.RunAnswer{Details: details, Now: t0}).Jobs
	if len(jobs) != 2 || len(jobs[0].JobSubmissions) != 3 {
		t.Fatalf("%d jobs, %d submissions", len(jobs), len(jobs[0].JobSubmissions))
	}
	for i, s := range jobs[0].JobSubmissions {
		if s.SubmissionNum != i {
			t.Errorf("submission %d has the number %d", i, s.SubmissionNum)
		}
	}
}

// Clients look at the latest submission. It belongs to a replica that serves or
// starts, not to a failed or draining replica.
func TestBuildRun_LatestSubmission(t *testing.T) {
	one := func(id string, template int, s dstack.ReplicaStatus) dstack.Replica {
		return dstack.Replica{ID: dstack.ReplicaID(id), Attempt: dstack.AttemptID(id), TemplateRevision: template, Revision: template, Status: s}
	}
	for _, c := range []struct {
		name     string
		run      dstack.Run
		replicas []dstack.Replica // in the order in which they were submitted
		want     dstack.AttemptID
	}{
		{"after a rollback", dstack.Run{TemplateRevision: 1, ReadyAt: t0}, []dstack.Replica{one("old", 1, dstack.ReplicaReady), one("failed", 2, dstack.ReplicaFailed)}, "old"},
		{"during an update", dstack.Run{TemplateRevision: 2, StableRevision: 1}, []dstack.Replica{one("old", 1, dstack.ReplicaReady), one("new", 2, dstack.ReplicaStarting)}, "old"},
		{"after an update", dstack.Run{TemplateRevision: 2, ReadyAt: t0}, []dstack.Replica{one("old", 1, dstack.ReplicaDraining), one("new", 2, dstack.ReplicaReady)}, "new"},
		{"before the first replica was ready", dstack.Run{TemplateRevision: 1}, []dstack.Replica{one("first", 1, dstack.ReplicaFailed), one("next", 1, dstack.ReplicaStarting)}, "next"},
		{"scaled to zero", dstack.Run{TemplateRevision: 1, ReadyAt: t0}, []dstack.Replica{one("first", 1, dstack.ReplicaTerminated), one("next", 1, dstack.ReplicaTerminated)}, "next"},
	} {
		jobs := BuildRun(wire.RunAnswer{Details: store.RunDetails{Run: c.run, Replicas: c.replicas}, Now: t0}).Jobs
		if n := len(jobs[0].JobSubmissions); n != 2 || jobs[0].JobSubmissions[n-1].ID != c.want {
			t.Errorf("%s: %+v", c.name, jobs[0].JobSubmissions)
		}
	}
}

// Every combination of statuses has a status on the wire.
func TestBuildRun_EveryStatus(t *testing.T) {
	for _, run := range []dstack.RunStatus{dstack.RunSubmitted, dstack.RunActive, dstack.RunTerminating, dstack.RunTerminated, dstack.RunFailed, "paused"} {
		for _, replica := range []dstack.ReplicaStatus{dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaUnhealthy,
			dstack.ReplicaRestarting, dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed} {
			details := store.RunDetails{Run: dstack.Run{Name: "a-1", Status: run}, Replicas: []dstack.Replica{{ID: "r", Revision: 1, TemplateRevision: 1, Status: replica}}}
			if BuildRun(wire.RunAnswer{Details: details, Now: t0}).Status == "" {
				t.Errorf("a %s run with a %s replica has no status on the wire", run, replica)
			}
		}
	}
}

func valueOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Clients know the backend of hosts by another name, and no fleets of runs.
func TestBuildPlan_HidesWhatClientsDoNotKnow(t *testing.T) {
	answer := wire.PlanAnswer{Groups: []wire.GroupPlan{{Total: 1200, HighestPrice: 3,
		Placements: []dstack.Placement{{Offer: dstack.Offer{Backend: "ssh", Type: "gpu-1", OwnedInstance: "i"}}}}}}
	answer.Spec.Configuration.Fleets, answer.Spec.Profile.Fleets = []string{"lab"}, []string{"lab"}
	text, err := json.Marshal(BuildPlan(answer))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"backend":"remote"`, `"total_offers":1200`, `"max_price":3`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
	if strings.Contains(string(text), "fleets") {
		t.Errorf("fleets are in %s", text)
	}
}
