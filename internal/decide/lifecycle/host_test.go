package lifecycle_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// remote returns a host in a status that has been silent for a time; 0: it answers.
func remote(status dstack.InstanceStatus, silence time.Duration) dstack.Instance {
	i := dstack.Instance{ID: "i", Status: status, CheckedAt: now.Add(-time.Second),
		Offer: dstack.Offer{Type: "gpu-1", OwnedInstance: "i", IsRemote: true, Engine: dstack.EngineCapabilities{Name: "docker"}}}
	if silence > 0 {
		i.SilentSince, i.ConsecutiveFailures, i.LastError = now.Add(-silence), 1, "connection refused"
	}
	if status == dstack.InstanceAway {
		i.Reason = "host gpu-1 has not answered for 10s"
	}
	return i
}

func TestDecideInstance_Away(t *testing.T) {
	local := remote(dstack.InstanceUp, time.Minute)
	local.Offer.IsRemote = false
	unobserved := remote(dstack.InstanceUp, time.Hour)
	unobserved.CheckedAt = now.Add(-time.Hour)
	for _, c := range []struct {
		name     string
		instance dstack.Instance
		host     time.Duration // how long the connection has been silent
		to       dstack.InstanceStatus
		action   lifecycle.Action
		reason   string
		limit    time.Duration
	}{
		{"it answers", remote(dstack.InstanceUp, 0), 0, dstack.InstanceUp, lifecycle.SyncEngine, "", 10 * time.Second},
		{"silent for 4 s: the next call ends when it is away", remote(dstack.InstanceUp, 4*time.Second), 0, dstack.InstanceUp, lifecycle.SyncEngine,
			"its engine does not answer: connection refused", 6 * time.Second},
		{"its Docker is silent for 10 s", remote(dstack.InstanceUp, 10*time.Second), 0, dstack.InstanceAway, lifecycle.NoAction,
			"Docker on host gpu-1 has not answered for 10s: connection refused", 0},
		{"all of it is silent for 10 s", remote(dstack.InstanceUp, 10*time.Second), 10 * time.Second, dstack.InstanceAway, lifecycle.NoAction,
			"host gpu-1 has not answered for 10s: connection timed out", 0},
		{"it is asked while it is away", remote(dstack.InstanceAway, time.Hour), time.Hour, dstack.InstanceAway, lifecycle.SyncEngine,
			"host gpu-1 has not answered for 10s: connection timed out", 10 * time.Second},
		{"the server was stopped in the meantime", unobserved, 0, dstack.InstanceUp, lifecycle.SyncEngine, "its engine does not answer: connection refused", time.Second},
		{"the server's own machine", local, 0, dstack.InstanceUp, lifecycle.SyncEngine, "its engine does not answer: connection refused", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := lifecycle.InstanceFacts{Instance: c.instance, Listed: true, Machine: &dstack.Machine{State: dstack.MachineRunning}}
			if c.host > 0 {
				seen.Machine.SilentSince, seen.Machine.SilentReason = now.Add(-c.host), "connection timed out"
			}
			step, err := lifecycle.DecideInstance(seen, now)
			if err != nil || step.To != c.to || step.Action != c.action || string(step.Reason) != c.reason || step.AnswerTimeout != c.limit {
				t.Errorf("got %+v, %v", step, err)
			}
		})
	}
}

// Silence begins with the first question without an answer, or up to 5 seconds before that,
// where the backend noticed it earlier. An answer ends it, and brings the host back.
func TestInstanceStep_Silence(t *testing.T) {
	step := lifecycle.InstanceStep{To: dstack.InstanceUp, Action: lifecycle.SyncEngine, AskedAt: now}
	for _, c := range []struct {
		name    string
		earlier time.Duration // how long before the question the backend heard the host
		want    time.Duration
	}{
		{"the backend knows nothing", 0, 0},
		{"the backend noticed earlier", 3 * time.Second, 3 * time.Second},
		{"the backend was stopped", time.Hour, 5 * time.Second},
	} {
		seen := lifecycle.InstanceFacts{Instance: remote(dstack.InstanceUp, 0), Listed: true, Machine: &dstack.Machine{}}
		if c.earlier > 0 {
			seen.Machine.SilentSince = now.Add(-c.earlier)
		}
		if got := step.Apply(seen, false, errors.New("no answer"), now.Add(4*time.Second)); !got.SilentSince.Equal(now.Add(-c.want)) {
			t.Errorf("%s: silent since %s before the question", c.name, now.Sub(got.SilentSince))
		}
	}
	away := lifecycle.InstanceFacts{Instance: remote(dstack.InstanceAway, time.Hour), Listed: true, Machine: &dstack.Machine{IsDraining: true}}
	step.To, step.Reason = dstack.InstanceAway, "away"
	got := step.AfterAnswer(now).Apply(away, true, nil, now)
	if got.Status != dstack.InstanceUp || got.Reason != "" || !got.SilentSince.IsZero() || !got.IsDraining || !got.Since.Equal(now) {
		t.Errorf("after an answer: %+v", got)
	}
}

func TestDecideReplica_Away(t *testing.T) {
	const away = "host gpu-1 has not answered for 10s"
	exited := &dstack.Report{State: dstack.AttemptExited, ExitCode: 1}
	for _, c := range []struct {
		name    string
		status  dstack.ReplicaStatus
		silence time.Duration
		report  *dstack.Report
		to      dstack.ReplicaStatus
		reason  string
	}{
		{"a ready one gets no requests", dstack.ReplicaReady, 11 * time.Second, nil, dstack.ReplicaUnhealthy, away},
		{"an unhealthy one is not restarted", dstack.ReplicaUnhealthy, time.Hour, exited, dstack.ReplicaUnhealthy, away},
		{"a starting one is not given up", dstack.ReplicaStarting, time.Hour, exited, dstack.ReplicaStarting, away},
		{"a restarting one waits", dstack.ReplicaRestarting, time.Hour, exited, dstack.ReplicaRestarting, away},
		{"a draining one drains at first", dstack.ReplicaDraining, 11 * time.Second, nil, dstack.ReplicaDraining, ""},
		{"a draining one ends after 15 s", dstack.ReplicaDraining, 15 * time.Second, nil, dstack.ReplicaTerminating, ""},
		{"a terminating one is waited for at first", dstack.ReplicaTerminating, 11 * time.Second, nil, dstack.ReplicaTerminating, ""},
		{"a terminating one is not waited for after 15 s", dstack.ReplicaTerminating, 15 * time.Second, nil, dstack.ReplicaTerminated,
			"host gpu-1 does not answer: what still runs there is stopped when it comes back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := remote(dstack.InstanceAway, c.silence)
			seen := facts(c.status, func(f *lifecycle.ReplicaFacts) { f.Instance, f.Report = &host, c.report })
			seen.Replica.Instance, seen.Replica.Attempt, seen.Replica.DrainDeadline = "i", "a", now.Add(5*time.Minute)
			step, err := lifecycle.DecideReplica(seen, now)
			if err != nil || step.To != c.to || !strings.Contains(string(step.Reason), c.reason) || step.NewAttempt {
				t.Errorf("got %+v, %v", step, err)
			}
			if step.To == dstack.ReplicaTerminating && c.status == dstack.ReplicaDraining && !step.Due.Equal(now) {
				t.Error("it is not due at once")
			}
			if step.To == c.status && (step.Due.IsZero() || step.Due.After(now.Add(10*time.Second))) {
				t.Errorf("due in %s", step.Due.Sub(now))
			}
		})
	}
}

// A replica whose host was away for long is not restarted because of that time.
func TestDecideReplica_BackFromAway(t *testing.T) {
	host := remote(dstack.InstanceUp, 0)
	host.Since = now.Add(-time.Second)
	seen := facts(dstack.ReplicaUnhealthy, func(f *lifecycle.ReplicaFacts) {
		f.Instance, f.Report = &host, &dstack.Report{State: dstack.AttemptRunning}
		f.Replica.Since = now.Add(-24 * time.Hour)
	})
	if step, err := lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaUnhealthy {
		t.Errorf("its port is closed: %+v, %v", step, err)
	}
	seen.Report.Ready = true
	if step, err := lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaReady {
		t.Errorf("its port is open: %+v, %v", step, err)
	}
}

// A replica that a host cannot start because its disk is full is placed elsewhere. The
// server's own machine tries again.
func TestDecideReplica_FullDisk(t *testing.T) {
	host := remote(dstack.InstanceUp, 0)
	seen := facts(dstack.ReplicaStarting, func(f *lifecycle.ReplicaFacts) {
		f.Instance = &host
		f.Report = &dstack.Report{State: dstack.AttemptRefused, Error: "Docker's disk is full", OtherMachine: true}
	})
	step, err := lifecycle.DecideReplica(seen, now)
	if err != nil || step.To != dstack.ReplicaWaiting || step.LeftOut == nil || step.LeftOut.OwnedInstance != "i" || step.EndedAttempt == nil ||
		step.Reason != "Docker's disk is full" || !step.Due.Equal(now) {
		t.Errorf("got %+v, %v", step, err)
	}
	host.Offer.IsRemote = false
	if step, err := lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaRestarting || step.LeftOut != nil {
		t.Errorf("on the server's own machine: %+v, %v", step, err)
	}
}

// On a host, nothing starts while something runs there that no replica has. What its replicas
// still hold does not hold up the others.
func TestPlanEngineCommands_HoldsStarts(t *testing.T) {
	starts := rep(0, 1, dstack.ReplicaStarting)
	starts.Attempt = "new"
	ends := rep(1, 1, dstack.ReplicaTerminating)
	ends.Attempt = "known"
	placed := []lifecycle.PlacedReplica{{Replica: starts}, {Replica: ends}}
	left := dstack.Report{Attempt: "left", State: dstack.AttemptRunning}
	over := dstack.Report{Attempt: "left", State: dstack.AttemptExited}
	known := dstack.Report{Attempt: "known", State: dstack.AttemptRunning}
	local := remote(dstack.InstanceUp, 0)
	local.Offer.IsRemote = false
	for _, c := range []struct {
		name    string
		host    dstack.Instance
		reports []dstack.Report
		want    string
	}{
		{"something is left", remote(dstack.InstanceUp, 0), []dstack.Report{left}, "stop left, hold new"},
		{"it has ended", remote(dstack.InstanceUp, 0), []dstack.Report{over}, "remove left, start new"},
		{"a replica that is to end", remote(dstack.InstanceUp, 0), []dstack.Report{known}, "stop known, start new"},
		{"the server's own machine", local, []dstack.Report{left}, "stop left, start new"},
	} {
		var got []string
		for _, command := range lifecycle.PlanEngineCommands(c.host, placed, c.reports) {
			got = append(got, string(command.Command)+" "+string(command.Attempt))
			if isHold := command.Command == lifecycle.HoldAttempt; isHold != strings.Contains(command.Reason, "waits until host gpu-1 has stopped") {
				t.Errorf("%s: the reason is %q", c.name, command.Reason)
			}
		}
		if joined := strings.Join(got, ", "); joined != c.want {
			t.Errorf("%s: got %q, want %q", c.name, joined, c.want)
		}
	}
}

// A replica of a host that drains or was removed, and is away as well, leaves without a
// replacement that is ready.
func TestDecideRun_AForsakenHost(t *testing.T) {
	run := aRun(1)
	run.Status, run.ReadyAt, run.TemplateRevision = dstack.RunActive, now.Add(-time.Hour), 1
	r := rep(0, 1, dstack.ReplicaUnhealthy)
	r.Instance, r.TemplateRevision = "i", 1
	for _, c := range []struct {
		name   string
		change func(*dstack.Instance)
		leaves bool
		adds   int
	}{
		{"away for 11 s", func(i *dstack.Instance) { i.SilentSince = now.Add(-11 * time.Second) }, false, 0},
		{"away for a minute", func(*dstack.Instance) {}, false, 1},
		{"away and draining", func(i *dstack.Instance) { i.IsDraining = true }, true, 1},
		{"away and removed", func(i *dstack.Instance) { i.UnlistedSince = now.Add(-time.Minute) }, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := remote(dstack.InstanceAway, time.Minute)
			c.change(&host)
			seen := lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{r}, DesiredReplicas: 1,
				Instances: map[dstack.InstanceID]dstack.Instance{"i": host}}
			step, err := lifecycle.DecideRun(seen, now)
			if err != nil || len(step.Add) != c.adds || (len(step.Drain) == 1) != c.leaves || (step.AddReason != "") != (c.adds > 0) {
				t.Errorf("got %+v, %v", step, err)
			}
			if c.adds == 0 && !step.Due.Equal(now.Add(4*time.Second)) {
				t.Errorf("due in %s, want 4s", step.Due.Sub(now))
			}
		})
	}
}

// A replica that is not needed any more because the host of the one that it replaced answers
// again says so, and is not scaled down.
func TestDecideRun_ASpareReplica(t *testing.T) {
	const scaled = "scaled down: the configuration asks for 1 replica"
	for _, c := range []struct {
		name   string
		change func(*lifecycle.RunFacts)
		want   string
	}{
		{"the host answers again", func(*lifecycle.RunFacts) {}, "not needed any more: host gpu-1 answers again"},
		{"the replica on the host is not ready", func(f *lifecycle.RunFacts) { f.Replicas[0].Status = dstack.ReplicaUnhealthy },
			"not needed any more: another replica took its place while host gpu-1 did not answer"},
		{"the host was draining", func(f *lifecycle.RunFacts) { f.Instances = nil }, "not needed any more: the replica that it replaced is back"},
		{"the number falls now", func(f *lifecycle.RunFacts) { f.Run.DesiredReplicas = 2 }, scaled},
		{"the number fell after both had started", func(f *lifecycle.RunFacts) { f.Run.ScaledAt = now.Add(-time.Second) }, scaled},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := aRun(1)
			run.Status, run.ReadyAt, run.TemplateRevision, run.ScaledAt = dstack.RunActive, now.Add(-time.Hour), 1, now.Add(-time.Hour)
			back, spare := rep(0, 1, dstack.ReplicaReady), rep(1, 1, dstack.ReplicaReady)
			back.Instance, back.SubmittedAt, spare.SubmittedAt = "i", now.Add(-time.Hour), now.Add(-time.Minute)
			host := remote(dstack.InstanceUp, 0)
			host.Since = now.Add(-10 * time.Second)
			seen := lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{back, spare}, DesiredReplicas: 1,
				ScaleReason: "the configuration asks for 1 replica", Instances: map[dstack.InstanceID]dstack.Instance{"i": host}}
			c.change(&seen)
			step, err := lifecycle.DecideRun(seen, now)
			if err != nil || len(step.Drain) != 1 || string(step.StopReason) != c.want {
				t.Errorf("got %q for %v, %v", step.StopReason, step.Drain, err)
			}
		})
	}
}
