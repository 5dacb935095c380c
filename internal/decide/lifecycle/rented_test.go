package lifecycle_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// rentedInstance returns a spot machine of a cloud that answered a moment ago.
func rentedInstance(status dstack.InstanceStatus, change ...func(i *dstack.Instance)) dstack.Instance {
	i := dstack.Instance{ID: "i", Backend: "aws", Status: status, Since: now.Add(-time.Minute), LastResponseAt: now, CheckedAt: now, IdleTime: time.Minute,
		Offer: dstack.Offer{Backend: "aws", Key: "aws", Region: "us-east-1", Zone: "us-east-1a", Type: "g6.xlarge", Spot: true, IsRemote: true,
			Engine: dstack.EngineCapabilities{Name: "docker", Containers: true}}}
	for _, f := range change {
		f(&i)
	}
	return i
}

// hasServed returns a run whose present template has served.
func hasServed(run dstack.Run) dstack.Run {
	run.ReadyAt = now.Add(-time.Hour)
	return run
}

func silentFor(d time.Duration) func(i *dstack.Instance) {
	return func(i *dstack.Instance) { i.SilentSince = now.Add(-d) }
}

func TestInstance_Rented(t *testing.T) {
	some := []lifecycle.PlacedReplica{{Replica: rep(0, 2, dstack.ReplicaReady)}}
	alive, stopping := &dstack.Machine{State: dstack.MachineRunning}, &dstack.Machine{State: dstack.MachineStopping}
	never := func(i *dstack.Instance) { i.LastResponseAt = time.Time{} }
	emptySince := func(d time.Duration) func(i *dstack.Instance) {
		return func(i *dstack.Instance) { i.EmptySince = now.Add(-d) }
	}
	since := func(d time.Duration) func(i *dstack.Instance) {
		return func(i *dstack.Instance) { i.Since = now.Add(-d) }
	}
	for _, c := range []struct {
		name     string
		instance dstack.Instance
		machine  *dstack.Machine
		replicas []lifecycle.PlacedReplica
		to       dstack.InstanceStatus
		do       lifecycle.Action
		reason   string
	}{
		{"it is requested", rentedInstance(dstack.InstanceCreating), nil, some, dstack.InstanceCreating, lifecycle.CreateMachine,
			"spot machine g6.xlarge in us-east-1a is requested"},
		{"it boots", rentedInstance(dstack.InstanceCreating), &dstack.Machine{State: dstack.MachinePending}, some, dstack.InstanceCreating, lifecycle.NoAction,
			"spot machine g6.xlarge in us-east-1a boots"},
		{"its silence of 9 seconds is nothing", rentedInstance(dstack.InstanceUp, silentFor(9*time.Second)), alive, some, dstack.InstanceUp, lifecycle.SyncEngine, ""},
		{"after 10 it is away", rentedInstance(dstack.InstanceUp, silentFor(10*time.Second)), alive, some, dstack.InstanceAway, lifecycle.NoAction,
			"Docker on spot machine g6.xlarge in us-east-1a has not answered for 10s"},
		{"not before it has answered", rentedInstance(dstack.InstanceUp, never, silentFor(time.Minute)), alive, some, dstack.InstanceUp, lifecycle.SyncEngine, ""},
		{"which it must in time", rentedInstance(dstack.InstanceUp, never, silentFor(5*time.Minute)), alive, some, dstack.InstanceDeleting, lifecycle.NoAction,
			"its engine did not answer for 5m"},
		{"it never boots", rentedInstance(dstack.InstanceCreating, since(20*time.Minute)), nil, some, dstack.InstanceDeleting, lifecycle.NoAction,
			"did not come up in time"},
		{"away, it is asked", rentedInstance(dstack.InstanceAway, silentFor(time.Minute)), alive, some, dstack.InstanceAway, lifecycle.SyncEngine, "Docker on"},
		{"away for 5 minutes, it is deleted", rentedInstance(dstack.InstanceAway, silentFor(5*time.Minute)), alive, some, dstack.InstanceDeleting, lifecycle.NoAction,
			"its engine did not answer for 5m"},
		{"away, and its cloud says that it ended", rentedInstance(dstack.InstanceAway, silentFor(time.Minute)),
			&dstack.Machine{State: dstack.MachineFailed, Failure: &dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: "spot capacity was reclaimed"}},
			some, dstack.InstanceDeleting, lifecycle.NoAction, "its machine failed: spot capacity was reclaimed"},
		{"idle for less than its idle time", rentedInstance(dstack.InstanceUp, emptySince(59*time.Second)), alive, nil, dstack.InstanceUp, lifecycle.SyncEngine, ""},
		{"idle for its idle time", rentedInstance(dstack.InstanceUp, emptySince(time.Minute)), alive, nil, dstack.InstanceDeleting, lifecycle.NoAction, "idle for 60s"},
		{"idle without limit", rentedInstance(dstack.InstanceUp, emptySince(time.Hour), func(i *dstack.Instance) { i.IdleTime = -1 }), alive, nil,
			dstack.InstanceUp, lifecycle.SyncEngine, ""},
		{"days after its deletion was requested, it is requested again", rentedInstance(dstack.InstanceDeleting, since(72*time.Hour)), stopping, nil,
			dstack.InstanceDeleting, lifecycle.DeleteMachine, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := lifecycle.InstanceFacts{Instance: c.instance, Listed: true, Machine: c.machine, Replicas: c.replicas}
			step, err := lifecycle.DecideInstance(seen, now)
			if err != nil || step.To != c.to || step.Action != c.do || !strings.HasPrefix(string(step.Reason), c.reason) {
				t.Errorf("got %+v, %v", step, err)
			}
		})
	}
}

// A deletion is repeated at first each second, then more and more rarely, so that it does not use up what the cloud allows.
func TestInstance_ADeletionIsRepeatedMoreAndMoreRarely(t *testing.T) {
	for age, want := range map[time.Duration]time.Duration{0: time.Second, 40 * time.Second: 10 * time.Second, time.Hour: time.Minute} {
		i := rentedInstance(dstack.InstanceDeleting, func(i *dstack.Instance) { i.Since = now.Add(-age) })
		step, err := lifecycle.DecideInstance(lifecycle.InstanceFacts{Instance: i, Listed: true, Machine: &dstack.Machine{State: dstack.MachineStopping}}, now)
		if err != nil || step.Action != lifecycle.DeleteMachine || step.Due.Sub(now) != want {
			t.Errorf("after %s: %+v, %v", age, step, err)
		}
	}
}

// What a failure of a machine, or of its creation, says of other offers.
func TestInstanceStep_Failed(t *testing.T) {
	refused := func(kind dstack.Kind, cause ...dstack.MachineFailure) error {
		err := &dstack.Error{Kind: kind, Message: "refused"}
		if len(cause) > 0 {
			err.Cause = &cause[0]
		}
		return err
	}
	quota := dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"g6.*"}, Message: "16 vCPUs"}
	named := func(f dstack.MachineFailure) *dstack.MachineFailure { f.Message = "refused"; return &f }
	for _, c := range []struct {
		name    string
		failure error
		want    *dstack.MachineFailure
	}{
		{"nothing failed", nil, nil},
		{"no capacity", refused(dstack.NoCapacity), &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Message: "refused"}},
		{"a quota", refused(dstack.NoCapacity, quota), named(quota)},
		{"wrong credentials", refused(dstack.Unauthorized), &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend, Message: "refused"}},
		{"a missing right", refused(dstack.Forbidden), &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend, Message: "refused"}},
		{"a region without the image", refused(dstack.NotFound, dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopePlace}),
			&dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopePlace, Message: "refused"}},
		{"it does not answer", refused(dstack.Unavailable), nil},
		{"it limits the rate of requests", refused(dstack.Unavailable, dstack.MachineFailure{RetryAfter: time.Minute}), nil},
		{"the token was used", refused(dstack.Conflict), nil},
	} {
		step := lifecycle.InstanceStep{To: dstack.InstanceCreating, Action: lifecycle.CreateMachine, Due: now.Add(time.Second)}
		got := step.AfterFailure(lifecycle.InstanceFacts{Instance: rentedInstance(dstack.InstanceCreating)}, c.failure, now)
		if !reflect.DeepEqual(got.Failed, c.want) {
			t.Errorf("%s: %+v", c.name, got.Failed)
		}
		if wantsWait := c.name == "it limits the rate of requests"; wantsWait != got.Due.Equal(now.Add(time.Minute)) {
			t.Errorf("%s: due at %s", c.name, got.Due)
		}
	}
	broken := lifecycle.InstanceFacts{Instance: rentedInstance(dstack.InstanceUp), Listed: true, Machine: &dstack.Machine{State: dstack.MachineFailed}}
	if step, err := lifecycle.DecideInstance(broken, now); err != nil || step.Failed == nil || step.Failed.Cause != dstack.FailureBroken {
		t.Errorf("a machine that failed: %+v, %v", step, err)
	}
	broken.Instance.Status = dstack.InstanceDeleting
	if step, err := lifecycle.DecideInstance(broken, now); err != nil || step.Failed != nil {
		t.Errorf("a repeated deletion: %+v, %v", step, err)
	}
}

// A spot machine that is taken back drains, and its reason says when it ends. What was announced stays announced.
func TestInstance_IsTakenBack(t *testing.T) {
	seen := lifecycle.InstanceFacts{Instance: rentedInstance(dstack.InstanceUp), Listed: true,
		Machine: &dstack.Machine{State: dstack.MachineRunning, TakenBackAt: now.Add(2 * time.Minute)}}
	step, err := lifecycle.DecideInstance(seen, now)
	if err != nil {
		t.Fatal(err)
	}
	next := step.Apply(seen, true, nil, now)
	if !next.IsDraining || !next.TakenBackAt.Equal(now.Add(2*time.Minute)) {
		t.Fatalf("got %+v", next)
	}
	seen.Instance, seen.Machine = next, &dstack.Machine{State: dstack.MachineRunning}
	step, _ = lifecycle.DecideInstance(seen, now)
	if next = step.Apply(seen, true, nil, now); !next.IsDraining || !strings.HasPrefix(string(next.Reason), "aws takes the spot machine g6.xlarge in us-east-1a back at ") {
		t.Errorf("got %+v", next)
	}
}

// The replica of a machine that is taken back is replaced at once. It leaves when another one serves, or shortly before the end.
func TestRun_ReplacesReplicasOfAMachineThatIsTakenBack(t *testing.T) {
	elsewhere := func(status dstack.ReplicaStatus) dstack.Replica {
		r := rep(1, 2, status)
		r.Instance = "other"
		return r
	}
	for _, c := range []struct {
		name          string
		left          time.Duration
		replicas      []dstack.Replica
		added, leaves int
	}{
		{"the only one serves on", 2 * time.Minute, []dstack.Replica{rep(0, 2, dstack.ReplicaReady)}, 1, 0},
		{"until its replacement is ready", 100 * time.Second, []dstack.Replica{rep(0, 2, dstack.ReplicaReady), elsewhere(dstack.ReplicaReady)}, 0, 1},
		{"or the end is near", 30 * time.Second, []dstack.Replica{rep(0, 2, dstack.ReplicaReady), elsewhere(dstack.ReplicaStarting)}, 0, 1},
	} {
		run := hasServed(aRun(1))
		run.DesiredReplicas = 1
		seen := lifecycle.RunFacts{Run: run, DesiredReplicas: 1, Replicas: c.replicas, Instances: map[dstack.InstanceID]dstack.Instance{
			"i": rentedInstance(dstack.InstanceUp, func(i *dstack.Instance) { i.IsDraining, i.TakenBackAt = true, now.Add(c.left) })}}
		step, err := lifecycle.DecideRun(seen, now)
		if err != nil || len(step.Add) != c.added || len(step.Drain) != c.leaves || len(step.Terminate) > 0 {
			t.Errorf("%s: %+v, %v", c.name, step, err)
		}
		if c.added > 0 && !strings.Contains(string(step.AddReason), "takes the spot machine g6.xlarge in us-east-1a back") {
			t.Errorf("%s: %q", c.name, step.AddReason)
		}
	}
	many := lifecycle.RunFacts{Run: hasServed(aRun(8)), DesiredReplicas: 8, Instances: map[dstack.InstanceID]dstack.Instance{
		"i": rentedInstance(dstack.InstanceUp, func(i *dstack.Instance) { i.IsDraining, i.TakenBackAt = true, now.Add(2*time.Minute) })}}
	for num := range 8 {
		many.Replicas = append(many.Replicas, rep(num, 2, dstack.ReplicaReady))
	}
	if step, err := lifecycle.DecideRun(many, now); err != nil || len(step.Add) != 8 || len(step.Drain) > 0 {
		t.Errorf("8 replicas: %+v, %v", step, err)
	}
}

// A draining replica is stopped before its machine is taken back, so that it can end by itself.
func TestReplica_IsStoppedBeforeItsMachineIsTakenBack(t *testing.T) {
	r := rep(0, 2, dstack.ReplicaDraining)
	r.Attempt, r.Instance, r.DrainDeadline = "a", "i", now.Add(5*time.Minute)
	for left, want := range map[time.Duration]dstack.ReplicaStatus{11 * time.Second: dstack.ReplicaDraining, 10 * time.Second: dstack.ReplicaTerminating} {
		i := rentedInstance(dstack.InstanceUp, func(i *dstack.Instance) { i.TakenBackAt = now.Add(left) })
		seen := lifecycle.ReplicaFacts{Replica: r, Run: hasServed(aRun(1)), Instance: &i, Report: &dstack.Report{State: dstack.AttemptRunning}}
		if step, err := lifecycle.DecideReplica(seen, now); err != nil || step.To != want {
			t.Errorf("%s before the end: %+v, %v", left, step, err)
		}
	}
}

// A replica whose machine is lost has an attempt that was interrupted, if it ran there.
func TestReplica_IsInterrupted(t *testing.T) {
	r := rep(0, 2, dstack.ReplicaReady)
	r.Attempt, r.Instance, r.AttemptAt = "a", "i", now.Add(-time.Minute)
	i := rentedInstance(dstack.InstanceDeleting, func(i *dstack.Instance) { i.Reason = "its machine failed: spot capacity was reclaimed" })
	seen := lifecycle.ReplicaFacts{Replica: r, Run: hasServed(aRun(1)), Instance: &i, Report: &dstack.Report{State: dstack.AttemptRunning}}
	step, err := lifecycle.DecideReplica(seen, now)
	if err != nil || step.To != dstack.ReplicaWaiting || step.EndedAttempt == nil || step.EndedAttempt.EndState != dstack.AttemptAbsent ||
		step.Reason != "its machine is gone: its machine failed: spot capacity was reclaimed" {
		t.Errorf("got %+v, %v", step, err)
	}
	seen.Report, seen.Replica.Status = nil, dstack.ReplicaStarting
	if step, err := lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaWaiting || step.EndedAttempt != nil {
		t.Errorf("it had never run there: %+v, %v", step, err)
	}
}

// A replica that is to stop does not wait for a machine that is still being rented: nothing runs there, and it costs money.
func TestReplica_StopsBeforeItsMachineIsUp(t *testing.T) {
	r := rep(0, 2, dstack.ReplicaTerminating)
	r.Attempt, r.Instance, r.AttemptAt = "a", "i", now.Add(-time.Minute)
	for _, c := range []struct {
		name     string
		instance dstack.Instance
		want     dstack.ReplicaStatus
	}{
		{"requested", rentedInstance(dstack.InstanceCreating, func(i *dstack.Instance) { i.LastResponseAt = time.Time{} }), dstack.ReplicaTerminated},
		{"given up", rentedInstance(dstack.InstanceDeleting, func(i *dstack.Instance) { i.LastResponseAt = time.Time{} }), dstack.ReplicaTerminated},
		{"up", rentedInstance(dstack.InstanceUp), dstack.ReplicaTerminating},
	} {
		step, err := lifecycle.DecideReplica(lifecycle.ReplicaFacts{Replica: r, Run: aRun(1), Instance: &c.instance}, now)
		if err != nil || step.To != c.want {
			t.Errorf("%s: %s, %v", c.name, step.To, err)
		}
	}
}

// How long a replica without a machine waits before it fails, by what its run retries.
func TestReplica_WaitsForCapacityAsItsRunSays(t *testing.T) {
	waits := func(ran bool, d time.Duration) dstack.Replica {
		r := rep(0, 2, dstack.ReplicaWaiting)
		r.SubmittedAt, r.Since = now.Add(-d), now.Add(-2*time.Minute)
		if ran {
			r.Attempt = "a"
			r.PastAttempts = []dstack.Attempt{{ID: "a", EndedAt: now.Add(-d), EndState: dstack.AttemptAbsent}}
		}
		return r
	}
	for _, c := range []struct {
		name    string
		replica dstack.Replica
		on      []string
		served  bool
		fails   bool
	}{
		{"without retry", waits(false, 2*time.Minute), nil, false, true},
		{"no-capacity within its duration", waits(false, 59*time.Minute), []string{"no-capacity"}, false, false},
		{"no-capacity after its duration, whatever was tried meanwhile", waits(false, time.Hour), []string{"no-capacity"}, false, true},
		{"an interruption without retry", waits(true, 2*time.Minute), nil, false, true},
		{"an interruption that is retried", waits(true, 59*time.Minute), []string{"interruption"}, false, false},
		{"an interruption after the duration", waits(true, time.Hour), []string{"interruption"}, false, true},
		{"interruption says nothing of a replica that never ran", waits(false, 2*time.Minute), []string{"interruption"}, false, true},
		{"error says nothing of capacity", waits(true, 2*time.Minute), []string{"error"}, false, true},
		{"a service that has served waits as long as it lives", waits(true, 48*time.Hour), nil, true, false},
	} {
		run := aRun(1)
		if c.served {
			run = hasServed(run)
		}
		if c.on != nil {
			run.Spec.Configuration.Retry = &spec.Retry{OnEvents: c.on, Duration: new(spec.Seconds(3600))}
		}
		step, err := lifecycle.DecideReplica(lifecycle.ReplicaFacts{Replica: c.replica, Run: run, Limits: lifecycle.Limits{PlaceTimeout: time.Minute}}, now)
		if err != nil || (step.To == dstack.ReplicaFailed) != c.fails {
			t.Errorf("%s: %+v, %v", c.name, step, err)
		}
	}
}

// The reason of a machine that boots says what it does, if its backend knows.
func TestInstanceCreating_SaysWhatTheMachineDoes(t *testing.T) {
	for progress, want := range map[string]string{"": " boots", "installs Docker": " installs Docker"} {
		seen := lifecycle.InstanceFacts{Instance: rentedInstance(dstack.InstanceCreating), Listed: true, Replicas: []lifecycle.PlacedReplica{{}},
			Machine: &dstack.Machine{State: dstack.MachinePending, Progress: progress}}
		step, err := lifecycle.DecideInstance(seen, now)
		if err != nil || !strings.HasSuffix(string(step.Reason), want) {
			t.Errorf("%q: %q, %v", progress, step.Reason, err)
		}
	}
}
