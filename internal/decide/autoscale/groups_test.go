package autoscale_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// group is a group with a target of requests a second; 0: its number is fixed.
func group(name string, least, most int, target float64) spec.Group {
	g := spec.Group{Name: name, Replicas: spec.Replicas{Min: least, Max: most}}
	if target > 0 {
		g.Scaling = &spec.Scaling{Metric: spec.MetricRPS, Target: target}
	}
	return g
}

func concurrent(g spec.Group) spec.Group {
	g.Scaling.Metric = spec.MetricConcurrency
	return g
}

// decideGroups decides for groups that have these numbers of replicas now, all ready for long.
func decideGroups(groups []spec.Group, counts []int, load dstack.Load, now time.Time) []autoscale.GroupDecision {
	run := dstack.Run{Groups: map[string]dstack.GroupCount{}}
	run.Spec.Configuration.Groups = groups
	for i, g := range groups {
		run.Groups[g.Name] = dstack.GroupCount{Desired: counts[i], ScaledAt: now.Add(-time.Hour)}
	}
	return autoscale.DecideGroups(run, nil, load, now)
}

func TestDecideGroups(t *testing.T) {
	now := time.Unix(1e6, 0)
	rate := func(rps int) dstack.Load {
		return dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, Requests: 10 * rps}
	}
	held := dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, Held: 1}
	for _, c := range []struct {
		name   string
		groups []spec.Group
		counts []int
		load   dstack.Load
		want   []int
	}{
		{"one group scales as a service does", []spec.Group{group("a", 1, 9, 10)}, []int{1}, rate(40), []int{4}},
		{"two groups together have what the load requires", []spec.Group{group("a", 1, 9, 10), group("b", 1, 9, 10)}, []int{1, 1}, rate(40), []int{3, 1}},
		{"the next group takes what the first cannot", []spec.Group{group("a", 1, 2, 10), group("b", 0, 9, 10)}, []int{1, 0}, rate(40), []int{2, 2}},
		{"the last group is the first to shrink", []spec.Group{group("a", 1, 2, 10), group("b", 0, 9, 10)}, []int{2, 2}, rate(15), []int{2, 0}},
		{"the result does not depend on the present numbers", []spec.Group{group("a", 1, 9, 10), group("b", 1, 9, 10)}, []int{9, 9}, rate(40), []int{3, 1}},
		{"a fixed group takes as much as a replica of the scaled one", []spec.Group{group("a", 2, 2, 0), group("b", 0, 9, 10)}, []int{2, 1}, rate(35), []int{2, 2}},
		{"also when it comes last", []spec.Group{group("b", 0, 9, 10), group("a", 2, 2, 0)}, []int{1, 2}, rate(35), []int{2, 2}},
		{"targets differ", []spec.Group{group("large", 1, 2, 20), group("small", 0, 9, 5)}, []int{1, 0}, rate(50), []int{2, 2}},
		{"a light load needs no second group", []spec.Group{group("a", 1, 1, 0), group("b", 0, 4, 10)}, []int{1, 0}, rate(9), []int{1, 0}},
		{"a request wakes the first group of a sleeping service", []spec.Group{group("a", 0, 2, 10), group("b", 0, 2, 10)}, []int{0, 0}, held, []int{1, 0}},
		{"not a group that may have no replica", []spec.Group{group("a", 0, 0, 0), group("b", 0, 2, 10)}, []int{0, 0}, held, []int{0, 1}},
		{"no load lets all sleep", []spec.Group{group("a", 0, 2, 10), group("b", 0, 2, 10)}, []int{2, 1}, rate(0), []int{0, 0}},
		{"an unknown load changes nothing", []spec.Group{group("a", 0, 2, 10), group("b", 1, 2, 10)}, []int{2, 1}, dstack.Load{}, []int{2, 1}},
		{"metrics differ", []spec.Group{group("a", 1, 2, 10), concurrent(group("b", 0, 9, 4))}, []int{2, 0},
			dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, Requests: 400, Concurrency: 16}, []int{2, 2}},
		{"requests in flight keep what the other groups do not take", []spec.Group{group("a", 1, 1, 0), concurrent(group("b", 0, 9, 4))}, []int{1, 3},
			dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, InFlight: 12}, []int{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, d := range decideGroups(c.groups, c.counts, c.load, now) {
				if d.Group != c.groups[i].Name || d.DesiredReplicas != c.want[i] || d.Reason == "" {
					t.Errorf("group %d: %+v, want %d", i, d, c.want[i])
				}
			}
		})
	}
}

func TestDecideGroups_SaysWhatOthersTake(t *testing.T) {
	load := dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, Requests: 400}
	all := decideGroups([]spec.Group{group("a", 1, 1, 0), group("b", 0, 9, 10)}, []int{1, 1}, load, time.Unix(1e6, 0))
	if want := "40 requests a second over the last 10s, other groups take 10, target 10 a replica: ceil(30 / 10) = 3"; !strings.HasPrefix(all[1].Reason, want) {
		t.Errorf("got %q", all[1].Reason)
	}
	if all[0].Rule != autoscale.RuleFixed {
		t.Errorf("got %+v", all[0])
	}
}

// A group at zero obeys its delay while another group serves.
func TestDecideGroups_OnlyASleepingServiceWakesAtOnce(t *testing.T) {
	now := time.Unix(1e6, 0)
	load := dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, Requests: 400}
	run := dstack.Run{Groups: map[string]dstack.GroupCount{"a": {Desired: 1}, "b": {Desired: 0, ScaledAt: now.Add(-time.Minute)}}}
	late := group("b", 0, 9, 10)
	late.Scaling.ScaleUpDelay = 300
	run.Spec.Configuration.Groups = []spec.Group{group("a", 1, 1, 0), late}
	if d := autoscale.DecideGroups(run, nil, load, now)[1]; d.DesiredReplicas != 0 || d.Rule != autoscale.RuleUpDelay || !d.NextAt.Equal(now.Add(4*time.Minute)) {
		t.Errorf("got %+v", d)
	}
	run.Spec.Configuration.Groups[0] = group("a", 0, 0, 0)
	if d := autoscale.DecideGroups(run, nil, load, now)[1]; d.DesiredReplicas != 4 || d.Rule != autoscale.RuleWake {
		t.Errorf("got %+v", d)
	}
}

// A group whose replicas get no machine is replaced by a later one.
func TestDecideGroups_LaterGroupsReplaceReplicasWithoutAMachine(t *testing.T) {
	now := time.Unix(1e6, 0)
	run := dstack.Run{Groups: map[string]dstack.GroupCount{"spot": {Desired: 2}, "owned": {Desired: 0}}}
	run.Spec.Configuration.Groups = []spec.Group{group("spot", 0, 4, 10), group("owned", 0, 4, 10)}
	load := dstack.Load{Known: true, Window: 10 * time.Second, Watched: 10 * time.Second, Requests: 200}
	for waited, want := range map[time.Duration]int{time.Second: 0, 2 * time.Minute: 1} {
		replicas := []dstack.Replica{{Group: "spot", Status: dstack.ReplicaReady}, {Group: "spot", Status: dstack.ReplicaWaiting, Since: now.Add(-waited)}}
		all := autoscale.DecideGroups(run, replicas, load, now)
		if all[0].DesiredReplicas != 2 || all[1].DesiredReplicas != want {
			t.Errorf("after %s: %+v", waited, all)
		}
	}
}

// A service without groups has one decision, the same as without groups.
func TestDecideGroups_WithoutGroups(t *testing.T) {
	now := time.Unix(1e6, 0)
	run := dstack.Run{DesiredReplicas: 1, ScaledAt: now.Add(-time.Hour)}
	run.Spec.Configuration.Replicas, run.Spec.Configuration.Scaling = spec.Replicas{Min: 1, Max: 4}, &spec.Scaling{Metric: spec.MetricRPS, Target: 10}
	replicas := []dstack.Replica{{Status: dstack.ReplicaReady, ReadyAt: now.Add(-time.Minute)}, {Status: dstack.ReplicaStarting}}
	load := dstack.Load{Known: true, Window: time.Second, Watched: time.Second, Requests: 25}
	all := autoscale.DecideGroups(run, replicas, load, now)
	if want := autoscale.Decide(autoscale.BuildFacts(run, replicas, load), now); len(all) != 1 || all[0].Group != spec.DefaultGroup || all[0].Decision != want || want.DesiredReplicas != 3 {
		t.Errorf("got %+v, want %+v", all, want)
	}
}
