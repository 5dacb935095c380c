package lifecycle_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// drawSpec draws a configuration that fits on the machines of the world. A
// broken configuration never becomes ready.
func (w *world) drawSpec(broken bool) dstack.RunSpec {
	command := fmt.Sprintf("good %d", len(w.revisions)+1)
	if broken {
		command = fmt.Sprintf("broken %d", len(w.revisions)+1)
	}
	gpus := 0
	if w.cloud != nil || w.account != nil || len(w.offer.Hardware.GPUs) > 0 {
		gpus = rapid.IntRange(0, 1).Draw(w.t, "GPUs each")
	}
	rs := w.specOf(command, rapid.IntRange(1, 2).Draw(w.t, "CPUs each"), gpus, spec.Replicas{})
	if n := w.capacity(rs); n >= 2 && rapid.IntRange(0, 2).Draw(w.t, "has groups") == 0 {
		w.drawGroups(&rs, n, broken)
		return rs
	}
	rs.Configuration.Replicas = w.drawRange(rs)
	return rs
}

// drawGroups divides a configuration into groups whose replicas fit at once. Of a broken one
// that can be rolled back, only the last group is broken.
func (w *world) drawGroups(rs *dstack.RunSpec, capacity int, broken bool) {
	names := rapid.Permutation([]string{spec.DefaultGroup, "a", "b"}).Draw(w.t, "names")[:rapid.IntRange(1, min(3, capacity)).Draw(w.t, "groups")]
	canRollBack := w.run.StableRevision > 0 || !w.run.ReadyAt.IsZero()
	c := &rs.Configuration
	for i, name := range names {
		g := spec.Group{Name: name, Resources: c.Resources, Commands: []string{rapid.SampledFrom([]string{"good a", "good b"}).Draw(w.t, "command")}}
		isLast := i == len(names)-1
		if broken && (isLast || !canRollBack) {
			g.Commands = c.Commands
		}
		g.Replicas.Max = rapid.IntRange(1, capacity-(len(names)-1-i)).Draw(w.t, "max replicas")
		g.Replicas.Min = rapid.IntRange(0, g.Replicas.Max).Draw(w.t, "min replicas")
		if broken { // a group without replicas is not tried
			g.Replicas.Min = max(g.Replicas.Min, 1)
		}
		capacity -= g.Replicas.Max
		c.Groups = append(c.Groups, g)
		c.Replicas.Min, c.Replicas.Max = c.Replicas.Min+g.Replicas.Min, c.Replicas.Max+g.Replicas.Max
	}
	c.Commands, c.Resources = nil, spec.Resources{}
}

// changeRanges changes how many replicas a configuration may have.
func (w *world) changeRanges(rs *dstack.RunSpec) {
	c := &rs.Configuration
	if len(c.Groups) == 0 {
		c.Replicas = w.drawRange(*rs)
		return
	}
	c.Groups, c.Replicas = slices.Clone(c.Groups), spec.Replicas{}
	for i, g := range c.Groups {
		c.Groups[i].Replicas.Min = rapid.IntRange(min(1, g.Replicas.Min), g.Replicas.Max).Draw(w.t, "min replicas")
		c.Replicas.Min, c.Replicas.Max = c.Replicas.Min+c.Groups[i].Replicas.Min, c.Replicas.Max+g.Replicas.Max
	}
}

// drawRange draws a range of replicas whose maximum fits at once.
func (w *world) drawRange(rs dstack.RunSpec) spec.Replicas {
	most := rapid.IntRange(1, w.capacity(rs)).Draw(w.t, "max replicas")
	return spec.Replicas{Min: rapid.IntRange(0, most).Draw(w.t, "min replicas"), Max: most}
}

// change makes a random change: to the load, the configuration or the machines.
func (w *world) change() {
	switch rapid.IntRange(0, 6).Draw(w.t, "change") {
	case 0, 1:
		w.load = rapid.IntRange(0, 4).Draw(w.t, "load")
	case 2:
		rs := w.run.Spec
		w.changeRanges(&rs)
		w.revise(rs, 0)
	case 3, 4:
		w.revise(w.drawSpec(rapid.Bool().Draw(w.t, "broken")), 0)
	case 5:
		old := w.revisions[rapid.IntRange(0, len(w.revisions)-1).Draw(w.t, "restores")]
		w.revise(old.Spec, old.Num)
	case 6:
		w.stopServer()
	}
}

// hasConverged reports whether a run serves as desired, or has ended and left no
// replica.
func (w *world) hasConverged() bool {
	if w.run.Status.IsFinished() {
		return w.unfinished() == 0
	}
	n := w.desired()
	return w.run.Status == dstack.RunActive && w.ready() == n && w.unfinished() == n && (n == 0 || !cannotWork(w.run.Spec))
}

// Once faults stop, a run reaches its desired replicas or has failed with a
// reason. After a stop it ends and leaves nothing behind. Before, the test
// changes it, scales it and causes faults at random. `make sim` runs this test
// for a long time.
func TestSim_ConvergesAndCleansUp(t *testing.T) {
	simulate(t, 50, func(t *rapid.T) {
		w := newWorld(t)
		conf := &w.run.Spec.Configuration
		conf.TerminationIdleTime = new(rapid.SampledFrom([]spec.Seconds{0, 30, 300}).Draw(t, "idle time"))
		if rapid.IntRange(0, 4).Draw(t, "limited") == 0 {
			conf.MaxDuration = &spec.MaxDuration{Seconds: spec.Seconds(rapid.IntRange(5, 200).Draw(t, "max duration"))}
		}
		w.load = rapid.IntRange(0, 4).Draw(t, "load")
		w.submit(w.drawSpec(false))
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			for range rapid.IntRange(1, 40).Draw(t, "ticks") {
				w.tick()
			}
			if w.run.Status.IsFinished() || w.run.Status == dstack.RunTerminating {
				break
			}
			w.change()
		}

		w.stopFaults()
		if !w.runUntil(3000, w.hasConverged) {
			t.Fatalf("the run did not converge: %s", w.dump())
		}
		if w.run.Status.IsFinished() && (w.run.Reason == "" || w.run.Ending == dstack.EndNone) {
			t.Fatalf("it ended without a reason: %+v", w.run)
		}
		if !w.run.Status.IsFinished() {
			w.faults = true
			w.stop(rapid.SampledFrom([]dstack.StopRequest{dstack.StopGraceful, dstack.StopAbort}).Draw(t, "stop"))
			for range rapid.IntRange(0, 20).Draw(t, "ticks") {
				w.tick()
			}
			w.stopFaults()
		}
		w.length = 2 * time.Second
		if !w.runUntil(1000, func() bool { return w.run.Status.IsFinished() && w.isEmpty() }) {
			t.Fatalf("something is left behind: %s", w.dump())
		}
		if w.run.Stop != dstack.StopNone && w.run.Status != dstack.RunTerminated {
			t.Fatalf("the run is %s, want terminated", w.run.Status)
		}
	})
}

// A run that can never become ready fails within a limited time, with a reason,
// and leaves nothing behind.
func TestSim_BrokenIsGivenUp(t *testing.T) {
	simulate(t, 50, func(t *rapid.T) {
		w := newWorld(t)
		rs := w.drawSpec(true)
		if rs.Configuration.Groups == nil {
			rs.Configuration.Replicas = fixed(max(1, rs.Configuration.Replicas.Min))
		}
		w.submit(rs)
		for range rapid.IntRange(0, 40).Draw(t, "ticks") {
			w.tick()
		}
		w.stopFaults()
		w.runUntil(2000, w.hasConverged)
		if w.run.Status != dstack.RunFailed || w.run.Reason == "" {
			t.Fatalf("the run is %s (%s), want failed with a reason", w.run.Status, w.run.Reason)
		}
		w.length = 2 * time.Second
		if !w.runUntil(1000, w.isEmpty) {
			t.Fatalf("something is left behind: %s", w.dump())
		}
	})
}

// Without faults, no change lowers the number of serving replicas or fails a
// request: good revisions are rolled out, broken revisions are rolled back.
func TestSim_UpdatesLowerNothing(t *testing.T) {
	simulate(t, 25, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		long, most := 300, 8
		if rapid.IntRange(0, 3).Draw(t, "rented machines") == 0 {
			w.cloud, long, most = newCloud(w), 600, 3
		} else {
			w.addOwned(20, 0, false)
		}
		wanted := rapid.IntRange(1, most).Draw(t, "replicas")
		w.submit(w.specOf("good 1", 1, 0, fixed(wanted)))
		for range 60 {
			w.tick()
		}
		good := w.run.Revision
		for range rapid.IntRange(1, 4).Draw(t, "updates") {
			command := rapid.SampledFrom([]string{"good", "broken"}).Draw(t, "update")
			w.revise(w.specOf(fmt.Sprintf("%s %d", command, len(w.revisions)+1), 1, 0, fixed(wanted)), 0)
			ticks := rapid.SampledFrom([]int{rapid.IntRange(1, 30).Draw(t, "ticks"), long}).Draw(t, "for")
			for range ticks {
				w.tick()
				if n := len(w.routes()); n < wanted {
					t.Fatalf("%d replicas serve, want %d: %s", n, wanted, w.dump())
				}
			}
			if !w.run.ReadyAt.IsZero() {
				good = w.run.Revision
			}
			if ticks == long && (w.run.Revision != good || cannotWork(w.run.Spec) || w.run.ReadyAt.IsZero()) {
				t.Fatalf("revision %d is the present one, the last good one is %d: %s", w.run.Revision, good, w.dump())
			}
		}
		for range long {
			w.tick()
		}
		if cannotWork(w.run.Spec) || w.ready() != wanted {
			t.Fatalf("%d ready of revision %d", w.ready(), w.run.Revision)
		}
		if w.web.failed > 0 || w.web.answered == 0 {
			t.Fatalf("%d requests failed, %d did not", w.web.failed, w.web.answered)
		}
	})
}

// Without faults, an update of one group never lowers the number of serving replicas, fails no
// request, and ends no replica of another group. Good updates are rolled out, broken ones are
// rolled back, and groups are added, removed and renamed.
func TestSim_UpdatesOfOneGroupLeaveTheOthersAlone(t *testing.T) {
	simulate(t, 40, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		w.addOwned(24, 0, false)
		groupsOf := func(commands map[string]string) dstack.RunSpec {
			rs := w.specOf("none", 1, 0, spec.Replicas{})
			c := &rs.Configuration
			for _, name := range sorted(commands) {
				c.Groups = append(c.Groups, spec.Group{Name: name, Replicas: fixed(2), Resources: c.Resources, Commands: []string{commands[name]}})
			}
			c.Commands, c.Resources, c.Replicas = nil, spec.Resources{}, fixed(2*len(commands))
			return rs
		}
		commands := map[string]string{"a": "good a", "b": "good b", "c": "good c"}
		w.submit(groupsOf(commands))
		for range 30 {
			w.tick()
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "updates") {
			lowest, changed := len(w.routes()), rapid.SampledFrom(sorted(commands)).Draw(t, "group")
			next := maps.Clone(commands)
			switch kind := rapid.SampledFrom([]string{"good", "broken", "rename", "add", "remove"}).Draw(t, "update"); kind {
			case "good", "broken":
				next[changed] = fmt.Sprintf("%s %d", kind, i)
			case "rename":
				next["renamed"+changed] = next[changed]
				delete(next, changed)
			case "add":
				next["added"], changed = "good added", "added"
			case "remove":
				if len(next) > 1 {
					delete(next, changed)
					lowest = min(lowest, 2*len(next))
				}
			}
			others := map[dstack.ReplicaID]bool{}
			for id, r := range w.replicas {
				others[id] = !r.Status.IsFinished() && r.Group != changed && next[r.Group] == commands[r.Group]
			}
			rs := groupsOf(next)
			w.revise(rs, 0)
			for range 120 {
				w.tick()
				if n := len(w.routes()); n < lowest {
					t.Fatalf("%d replicas serve, want %d: %s", n, lowest, w.dump())
				}
			}
			for id, isOther := range others {
				if r := w.replicas[id]; isOther && r.Status != dstack.ReplicaReady {
					t.Fatalf("replica %d of group %s is %s after an update of %s: %s", r.Num, r.Group, r.Status, changed, w.dump())
				}
			}
			if !cannotWork(rs) {
				commands = next
			}
			if w.run.ReadyAt.IsZero() || cannotWork(w.run.Spec) || w.ready() != 2*len(commands) || w.unfinished() != 2*len(commands) {
				t.Fatalf("the update did not end: %s", w.dump())
			}
		}
		if w.web.failed > 0 || w.web.answered == 0 {
			t.Fatalf("%d requests failed, %d did not", w.web.failed, w.web.answered)
		}
	})
}
