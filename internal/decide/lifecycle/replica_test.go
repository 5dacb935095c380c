package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var (
	up   = &dstack.Instance{ID: "i", Status: dstack.InstanceUp, LastResponseAt: now}
	gone = &dstack.Instance{ID: "i", Status: dstack.InstanceDeleted}
)

// facts is a replica in a status, of a run that was never ready.
func facts(status dstack.ReplicaStatus, change func(*lifecycle.ReplicaFacts)) lifecycle.ReplicaFacts {
	seen := lifecycle.ReplicaFacts{
		Replica: rep(0, 2, status), Run: aRun(1), Instance: up,
		Limits: lifecycle.Limits{StartTimeout: 10 * time.Minute, PlaceTimeout: time.Minute},
	}
	seen.Replica.SubmittedAt = now.Add(-time.Minute)
	if change != nil {
		change(&seen)
	}
	return seen
}

func TestReplica(t *testing.T) {
	running := &dstack.Report{State: dstack.AttemptRunning, StartedAt: now.Add(-30 * time.Second)}
	ready := &dstack.Report{State: dstack.AttemptRunning, Ready: true}
	exited := &dstack.Report{State: dstack.AttemptExited, ExitCode: 1, StartedAt: now.Add(-14 * time.Second), EndedAt: now, LastOutput: []string{"boom"}}
	refused := &dstack.Report{State: dstack.AttemptRefused, Error: "no such image", Permanent: true}
	absent := &dstack.Report{State: dstack.AttemptAbsent, At: now}
	stale := &dstack.Report{State: dstack.AttemptAbsent, At: now.Add(-time.Hour)}
	type F = *lifecycle.ReplicaFacts
	served := func(f F) { f.Run.ReadyAt = now.Add(-time.Hour) }
	retries := func(f F) {
		always := true
		f.Run.Spec.Configuration.Retry = &spec.Retry{Always: &always}
	}
	all := func(fs ...func(F)) func(F) {
		return func(f F) {
			for _, change := range fs {
				change(f)
			}
		}
	}
	reports := func(r *dstack.Report) func(F) { return func(f F) { f.Report = r } }
	crashes := func(n int, since time.Duration) func(F) {
		return func(f F) { f.Replica.Crashes, f.Replica.FirstCrashAt = n, now.Add(-since) }
	}

	for _, c := range []struct {
		name    string
		seen    lifecycle.ReplicaFacts
		to      dstack.ReplicaStatus
		reason  string
		attempt bool
	}{
		{"waits for a place", facts(dstack.ReplicaWaiting, func(f F) { f.Replica.Since = now }), dstack.ReplicaWaiting, "no machine is configured", false},
		{"takes the best place", facts(dstack.ReplicaWaiting, func(f F) { f.Placements = []dstack.Placement{{}, {}} }), dstack.ReplicaStarting, "", true},
		{"fails without one", facts(dstack.ReplicaWaiting, func(f F) {
			f.Rejections = []dstack.Rejection{{Offer: dstack.Offer{Type: "box"}, Reason: "it has no GPU"}}
		}), dstack.ReplicaFailed, "no machine suits: box: it has no GPU", false},
		{"keeps waiting while its run serves", facts(dstack.ReplicaWaiting, served), dstack.ReplicaWaiting, "", false},
		{"keeps waiting while it may retry", facts(dstack.ReplicaWaiting, retries), dstack.ReplicaWaiting, "", false},

		{"keeps starting until its engine reports", facts(dstack.ReplicaStarting, nil), dstack.ReplicaStarting, "", false},
		{"shows the pull", facts(dstack.ReplicaStarting, reports(&dstack.Report{State: dstack.AttemptPulling, Progress: "pulling 62%"})), dstack.ReplicaStarting, "pulling 62%", false},
		{"says that the port is closed", facts(dstack.ReplicaStarting, reports(running)), dstack.ReplicaStarting, "port 8000 does not accept", false},
		{"is ready when the port accepts", facts(dstack.ReplicaStarting, reports(ready)), dstack.ReplicaReady, "", false},
		{"fails when the port never opens", facts(dstack.ReplicaStarting, all(reports(running), func(f F) {
			f.Replica.Since, f.Limits.StartTimeout = now.Add(-time.Hour), 20*time.Second
		})), dstack.ReplicaFailed, "port 8000 did not open within 20s", false},
		{"a pull does not count as start time", facts(dstack.ReplicaStarting, all(reports(running), func(f F) {
			f.Replica.Since, f.Limits.StartTimeout = now.Add(-time.Hour), time.Minute
		})), dstack.ReplicaStarting, "", false},
		{"restarts after a crash", facts(dstack.ReplicaStarting, reports(exited)), dstack.ReplicaRestarting, "replica 0 exited with code 1 after 14s", false},
		{"fails after the third crash", facts(dstack.ReplicaStarting, all(reports(exited), crashes(2, time.Minute))), dstack.ReplicaFailed, "3 times in a row", false},
		{"restarts while it may retry", facts(dstack.ReplicaStarting, all(reports(exited), crashes(9, 50*time.Minute), retries)), dstack.ReplicaRestarting, "", false},
		{"until its window is over", facts(dstack.ReplicaStarting, all(reports(exited), crashes(9, 61*time.Minute), retries)), dstack.ReplicaFailed, "tried for 60m", false},
		{"never fails once its template has served", facts(dstack.ReplicaStarting, all(reports(exited), crashes(99, time.Hour), served)), dstack.ReplicaRestarting, "", false},
		{"fails at once when retrying cannot help", facts(dstack.ReplicaStarting, reports(refused)), dstack.ReplicaFailed, "no such image", false},
		{"waits for another place when its machine is gone", facts(dstack.ReplicaStarting, func(f F) { f.Instance = gone }), dstack.ReplicaWaiting, "machine is gone", false},

		{"stays ready", facts(dstack.ReplicaReady, reports(ready)), dstack.ReplicaReady, "", false},
		{"stays ready while its engine is silent", facts(dstack.ReplicaReady, nil), dstack.ReplicaReady, "", false},
		{"becomes unhealthy when its port closes", facts(dstack.ReplicaReady, reports(running)), dstack.ReplicaUnhealthy, "does not accept", false},
		{"restarts when it exits", facts(dstack.ReplicaReady, all(reports(exited), served)), dstack.ReplicaRestarting, "exited", false},
		{"restarts when it was removed", facts(dstack.ReplicaReady, all(reports(absent), served)), dstack.ReplicaRestarting, "removed from outside", false},

		{"waits for the end of the back-off", facts(dstack.ReplicaRestarting, func(f F) { f.Replica.RetryAt = now.Add(time.Second) }), dstack.ReplicaRestarting, "", false},
		{"not when the clock was set back", facts(dstack.ReplicaRestarting, func(f F) { f.Replica.RetryAt = now.Add(time.Hour) }), dstack.ReplicaStarting, "", true},
		{"then begins a new attempt", facts(dstack.ReplicaRestarting, reports(exited)), dstack.ReplicaStarting, "", true},
		{"but not while the last attempt runs", facts(dstack.ReplicaRestarting, reports(running)), dstack.ReplicaRestarting, "", false},

		{"ends when its engine does not have it", facts(dstack.ReplicaTerminating, reports(absent)), dstack.ReplicaTerminated, "", false},
		{"does not trust an older report", facts(dstack.ReplicaTerminating, reports(stale)), dstack.ReplicaTerminating, "", false},
		{"waits while it still runs", facts(dstack.ReplicaTerminating, reports(running)), dstack.ReplicaTerminating, "", false},
		{"ends with its machine", facts(dstack.ReplicaTerminating, func(f F) { f.Instance = gone }), dstack.ReplicaTerminated, "", false},
		{"ends at once when it never had an attempt", facts(dstack.ReplicaTerminating, func(f F) { f.Replica.Attempt, f.Replica.Instance = "", "" }), dstack.ReplicaTerminated, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, err := lifecycle.DecideReplica(c.seen, now)
			if err != nil {
				t.Fatal(err)
			}
			if step.To != c.to || !strings.Contains(string(step.Reason), c.reason) || step.NewAttempt != c.attempt {
				t.Errorf("got %+v", step)
			}
			if step.Due.Sub(now) > time.Minute { // the store takes what is due much later for due now
				t.Errorf("looks again in %s only", step.Due.Sub(now))
			}
			if step.To == dstack.ReplicaWaiting && step.Due.IsZero() {
				t.Error("nothing looks for a machine")
			}
		})
	}
}

func TestReplica_BackoffDoublesAndIsReset(t *testing.T) {
	crash := func(n int, readyFor time.Duration) time.Duration {
		seen := facts(dstack.ReplicaReady, func(f *lifecycle.ReplicaFacts) {
			f.Run.ReadyAt = now.Add(-time.Hour)
			f.Replica.Crashes, f.Replica.ReadyAt = n, now.Add(-readyFor)
			f.Report = &dstack.Report{State: dstack.AttemptExited}
		})
		step, err := lifecycle.DecideReplica(seen, now)
		if err != nil {
			t.Fatal(err)
		}
		return step.RetryAt.Sub(now)
	}
	for n, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if got := crash(n, time.Second); got != want {
			t.Errorf("after %d crashes: waits %s, want %s", n, got, want)
		}
	}
	if got := crash(50, time.Second); got != time.Minute {
		t.Errorf("after 50 crashes: waits %s, want at most a minute", got)
	}
	if got := crash(50, 2*time.Minute); got != time.Second {
		t.Errorf("after being ready for long: waits %s, want a second", got)
	}
}

func TestReplica_RecordsTheEndedAttempt(t *testing.T) {
	seen := facts(dstack.ReplicaStarting, func(f *lifecycle.ReplicaFacts) {
		f.Report = &dstack.Report{State: dstack.AttemptExited, ExitCode: 7, LastOutput: []string{"boom"}}
	})
	step, err := lifecycle.DecideReplica(seen, now)
	if err != nil || step.EndedAttempt == nil || step.EndedAttempt.ID != "try" || step.EndedAttempt.ExitCode != 7 || step.EndedAttempt.LastOutput[0] != "boom" {
		t.Errorf("got %+v, %v", step.EndedAttempt, err)
	}
}
