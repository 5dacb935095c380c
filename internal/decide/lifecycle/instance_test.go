package lifecycle_test

import (
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

func TestInstance(t *testing.T) {
	owned := dstack.Offer{Owned: "i"}
	alive := &dstack.Machine{Alive: true}
	some := []lifecycle.Placed{{Replica: rep(0, 1, dstack.ReplicaReady)}}
	hour := now.Add(-time.Hour)
	for _, c := range []struct {
		name string
		seen lifecycle.InstanceFacts
		to   dstack.InstanceStatus
		do   lifecycle.Act
	}{
		{"an owned machine is up at once", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Offer: owned}, Listed: true, Machine: alive}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a rented one is made", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Listed: true, Replicas: some}, dstack.InstanceCreating, lifecycle.CreateMachine},
		{"not twice while its backend is silent", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Replicas: some}, dstack.InstanceCreating, lifecycle.Nothing},
		{"one that never comes up is given back", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: hour}, Listed: true, Replicas: some}, dstack.InstanceDeleting, lifecycle.Nothing},
		{"one that nobody needs is given back", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Listed: true}, dstack.InstanceDeleting, lifecycle.Nothing},
		{"up, it is kept in step", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned}, Listed: true, Machine: alive}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a silent backend ends nothing", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp}, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a silent engine ends nothing", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned, Fails: 99, HeardAt: hour}, Listed: true, Machine: alive, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a rented machine that disappeared is over", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp}, Listed: true, Replicas: some}, dstack.InstanceDeleting, lifecycle.Nothing},
		{"deletion is repeated", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour}, Listed: true, Machine: alive}, dstack.InstanceDeleting, lifecycle.DeleteMachine},
		{"until the backend knows none for long", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: now}, Listed: true}, dstack.InstanceDeleting, lifecycle.Nothing},
		{"then it is gone", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour}, Listed: true}, dstack.InstanceDeleted, lifecycle.Nothing},
		{"never while the backend is silent", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour}}, dstack.InstanceDeleting, lifecycle.Nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, err := lifecycle.Instance(c.seen, now)
			if err != nil || step.To != c.to || step.Do != c.do {
				t.Errorf("got %+v, %v", step, err)
			}
		})
	}
}

func TestInstance_LooksCloselyOnlyWhileSomethingMoves(t *testing.T) {
	pace := func(replicas ...dstack.Replica) time.Duration {
		seen := lifecycle.InstanceFacts{
			Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: dstack.Offer{Owned: "i"}}, Listed: true, Machine: &dstack.Machine{Alive: true},
		}
		for _, r := range replicas {
			seen.Replicas = append(seen.Replicas, lifecycle.Placed{Replica: r})
		}
		step, err := lifecycle.Instance(seen, now)
		if err != nil {
			t.Fatal(err)
		}
		return step.Due.Sub(now)
	}
	fresh := rep(0, 1, dstack.ReplicaStarting)
	fresh.AttemptAt, fresh.Since = now, now
	idle, calm, quick := pace(), pace(rep(0, 1, dstack.ReplicaReady)), pace(rep(0, 1, dstack.ReplicaReady), fresh)
	if !(quick < 50*time.Millisecond && calm == time.Second && idle > 10*time.Second) {
		t.Errorf("starting %s, running %s, idle %s", quick, calm, idle)
	}
}

func TestSync(t *testing.T) {
	try := func(status dstack.ReplicaStatus, grace bool) []lifecycle.Placed {
		r := rep(0, 1, status)
		r.Grace = grace
		return []lifecycle.Placed{{Replica: r}}
	}
	is := func(o dstack.Outcome) []dstack.Report { return []dstack.Report{{Attempt: "try", Outcome: o}} }
	for _, c := range []struct {
		name   string
		placed []lifecycle.Placed
		heard  []dstack.Report
		want   []lifecycle.Verb
		grace  bool
	}{
		{"starts what is placed", try(dstack.ReplicaStarting, false), nil, []lifecycle.Verb{lifecycle.Start}, false},
		{"once", try(dstack.ReplicaStarting, false), is(dstack.OutcomePulling), nil, false},
		{"leaves what runs", try(dstack.ReplicaReady, false), is(dstack.OutcomeRunning), nil, false},
		{"does not run a lost attempt again", try(dstack.ReplicaReady, false), nil, nil, false},
		{"keeps what ended until its row knows", try(dstack.ReplicaReady, false), is(dstack.OutcomeExited), nil, false},
		{"then removes it", try(dstack.ReplicaRestarting, false), is(dstack.OutcomeExited), []lifecycle.Verb{lifecycle.Remove}, false},
		{"stops what is to end, gently", try(dstack.ReplicaTerminating, true), is(dstack.OutcomeRunning), []lifecycle.Verb{lifecycle.Stop}, true},
		{"or at once", try(dstack.ReplicaTerminating, false), is(dstack.OutcomeRunning), []lifecycle.Verb{lifecycle.Stop}, false},
		{"and then removes it", try(dstack.ReplicaTerminating, true), is(dstack.OutcomeExited), []lifecycle.Verb{lifecycle.Remove}, false},
		{"stops what nobody placed here", nil, is(dstack.OutcomeRunning), []lifecycle.Verb{lifecycle.Stop}, true},
		{"removes what nobody placed here", nil, is(dstack.OutcomeRefused), []lifecycle.Verb{lifecycle.Remove}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lifecycle.Sync(c.placed, c.heard)
			if len(got) != len(c.want) {
				t.Fatalf("got %+v", got)
			}
			for i, g := range got {
				if g.Do != c.want[i] || (g.Grace > 0) != c.grace {
					t.Errorf("got %+v", g)
				}
			}
		})
	}
}

// What nobody wants any more may outlive its replica by its time to end.
func TestDueAfter(t *testing.T) {
	late, soon := 30*time.Second, time.Second
	wanted := []lifecycle.Placed{{Replica: dstack.Replica{Attempt: "a", Status: dstack.ReplicaReady}}}
	for _, c := range []struct {
		name  string
		due   time.Duration
		heard []dstack.Report
		early bool
	}{
		{"nothing runs", late, nil, false},
		{"only what is wanted runs", late, []dstack.Report{{Attempt: "a"}}, false},
		{"something else is still ending", late, []dstack.Report{{Attempt: "a"}, {Attempt: "b"}}, true},
		{"it is due sooner anyhow", time.Millisecond, []dstack.Report{{Attempt: "b"}}, false},
	} {
		step := lifecycle.InstanceStep{Due: now.Add(c.due)}
		got := lifecycle.DueAfter(step, wanted, c.heard, now).Sub(now)
		if early := got < soon && got != c.due; early != c.early {
			t.Errorf("%s: due in %s", c.name, got)
		}
	}
}
