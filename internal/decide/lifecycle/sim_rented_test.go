package lifecycle_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// checkRented fails if a replica gets requests though its rented machine has ended, or has been silent, for long.
func (w *world) checkRented() {
	if w.account == nil {
		return
	}
	w.each(func() {
		for _, id := range sorted(w.routes()) {
			at := w.replicas[id].Instance
			i := w.instances[at]
			if i == nil || i.Offer.OwnedInstance != "" {
				continue
			}
			since := w.account.ended[at].at
			if m := w.account.machines[at]; m != nil {
				since = m.silentAt
				if !w.now.Before(m.silentUntil) {
					continue
				}
			}
			if since.Before(w.upSince) {
				since = w.upSince
			}
			if w.now.Sub(since) > w.patience() {
				w.t.Fatalf("replica %s gets requests, and its machine is lost since %s: %s", id, w.now.Sub(since), w.dump())
			}
		}
	})
}

// retryAll makes a run wait for capacity for a day.
func retryAll(rs *dstack.RunSpec) {
	rs.Configuration.Retry = &spec.Retry{OnEvents: []string{spec.EventNoCapacity, spec.EventInterruption, spec.EventError}, Duration: new(spec.Seconds(86400))}
}

// Whatever a cloud and the servers do, there is never a machine without a row, nor two for one replica. Once the faults
// stop, each run has as many machines as replicas; after it ended, none is left. `make sim` runs this for a long time.
func TestSim_RentedMachinesAreNeitherForgottenNorDoubled(t *testing.T) {
	simulate(t, 40, func(t *rapid.T) {
		w := emptyWorld(t)
		w.addAccount()
		idle := rapid.SampledFrom([]spec.Seconds{0, 30, 300}).Draw(t, "idle time")
		w.run.Spec.Configuration.TerminationIdleTime = &idle
		w.load = rapid.IntRange(0, 4).Draw(t, "load")
		rs := w.drawSpec(false)
		if rapid.Bool().Draw(t, "retries") {
			retryAll(&rs)
		}
		w.submit(rs)
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			for range rapid.IntRange(1, 120).Draw(t, "ticks") {
				w.tick()
			}
			if w.run.Status.IsFinished() || w.run.Status == dstack.RunTerminating {
				break
			}
			w.change()
		}
		w.stopFaults()
		settled := func() bool {
			return w.hasConverged() && (w.run.Status.IsFinished() || len(w.account.machines) == w.desired())
		}
		if !w.runUntil(4000, settled) {
			t.Fatalf("%d machines, the run did not converge: %s", len(w.account.machines), w.dump())
		}
		if !w.run.Status.IsFinished() {
			w.faults = true
			w.stop(rapid.SampledFrom([]dstack.StopRequest{dstack.StopGraceful, dstack.StopAbort}).Draw(t, "stop"))
			for range rapid.IntRange(0, 40).Draw(t, "ticks") {
				w.tick()
			}
			w.stopFaults()
		}
		w.length = 2 * time.Second
		if !w.runUntil(1500, func() bool { return w.run.Status.IsFinished() && w.isEmpty() && len(w.account.launches) == 0 }) {
			t.Fatalf("something is left behind: %s", w.dump())
		}
	})
}

// The server is killed once, at any point before it does or saves something: the service comes up all the same, with one
// machine for each replica, and nothing is left after it is stopped.
func TestSim_AKilledServerForgetsNoMachine(t *testing.T) {
	simulate(t, 60, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		w.addAccount()
		w.run.Spec.Configuration.TerminationIdleTime = new(spec.Seconds(30))
		w.crashAt = rapid.IntRange(1, 600).Draw(t, "killed at")
		w.submit(w.specOf("good 1", 1, 1, fixed(2)))
		w.runUntil(60, func() bool { return w.ready() == 2 })
		if m := w.account.machines[w.mine()[0].Instance]; m != nil {
			m.takenBackAt = w.now.Add(2 * time.Minute)
		}
		for range 300 {
			w.tick()
		}
		if w.ready() != 2 || w.unfinished() != 2 || len(w.account.machines) != 2 || w.web.failed > 0 {
			t.Fatalf("%d machines, %d requests failed: %s", len(w.account.machines), w.web.failed, w.dump())
		}
		w.stop(dstack.StopGraceful)
		if !w.runUntil(800, w.isEmpty) {
			t.Fatalf("something is left behind: %s", w.dump())
		}
		if w.account.made > 4 { // two, one instead of the one that is taken back, and one whose row may not have been written
			t.Fatalf("%d machines were rented: %s", w.account.made, w.dump())
		}
	})
}

// A spot machine that is taken back has its replica replaced before it ends, and no request fails. Without a notice, a
// replacement is asked for within 15 seconds.
func TestSim_ASpotMachineIsTakenBack(t *testing.T) {
	simulate(t, 15, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		w.addAccount()
		wanted := rapid.IntRange(1, 3).Draw(t, "replicas")
		w.submit(w.specOf("good 1", 1, 1, fixed(wanted)))
		if !w.runUntil(200, func() bool { return w.ready() == wanted }) {
			t.Fatalf("it did not start: %s", w.dump())
		}
		lost := w.mine()[0].Instance
		m := w.account.machines[lost]
		hasNotice := rapid.Bool().Draw(t, "with a notice")
		if hasNotice {
			m.takenBackAt = w.now.Add(2 * time.Minute)
		} else {
			m.silentAt, m.silentUntil = w.now, w.now.Add(time.Hour)
		}
		made := w.account.made
		for range 34 { // 17 seconds: the next look at the machine included
			w.tick()
		}
		if w.account.made != made+1 {
			t.Fatalf("%d machines were rented instead: %s", w.account.made-made, w.dump())
		}
		if hasNotice && !strings.Contains(string(w.instances[lost].Reason), "takes the spot machine g6.xlarge in east-a back at") {
			t.Fatalf("the reason of its machine is %q", w.instances[lost].Reason)
		}
		if !hasNotice {
			w.account.end(lost, true)
		}
		for range 300 {
			w.tick()
			if hasNotice && len(w.routes()) < wanted {
				t.Fatalf("%d replicas serve: %s", len(w.routes()), w.dump())
			}
		}
		if w.ready() != wanted || w.unfinished() != wanted || len(w.account.machines) != wanted || hasNotice && w.web.failed > 0 {
			t.Fatalf("%d machines, %d requests failed: %s", len(w.account.machines), w.web.failed, w.dump())
		}
	})
}

// A zone that is full costs one try, a quota one for all zones of the region: the next offers are tried.
func TestSim_TheNextZoneIsTried(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(c *account)
		zone    string
	}{
		"the cheapest first":           {func(*account) {}, "east-a"},
		"the next zone":                {func(c *account) { c.full["east-a"] = c.w.now.Add(time.Hour) }, "east-b"},
		"another region for the quota": {func(c *account) { c.quotaUntil = c.w.now.Add(time.Hour) }, "west-a"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 1, func(t *rapid.T) {
				w := emptyWorld(t)
				w.faults = false
				c.prepare(w.addAccount())
				rs := w.specOf("good 1", 1, 1, fixed(1))
				rs.Configuration.SpotPolicy = "spot"
				w.submit(rs)
				w.runUntil(200, func() bool { return w.ready() == 1 })
				if i := w.instances[w.mine()[0].Instance]; i == nil || i.Offer.Zone != c.zone || w.account.made != 1 {
					t.Fatalf("%d machines, on %+v: %s", w.account.made, i, w.dump())
				}
			})
		})
	}
}

// An idle machine is used by the next run, and given back once nobody needs it.
func TestSim_AnIdleMachineIsUsedAgain(t *testing.T) {
	simulate(t, 3, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		w.addAccount()
		for i := range 3 {
			if i > 0 {
				w.addTenant(fmt.Sprint("run", i))
			}
			w.run.Spec.Configuration.TerminationIdleTime = new(spec.Seconds(60))
			w.submit(w.specOf("good 1", 1, 1, fixed(1)))
			if !w.runUntil(200, func() bool { return w.ready() == 1 }) {
				t.Fatalf("it did not start: %s", w.dump())
			}
			w.stop(dstack.StopGraceful)
			if !w.runUntil(100, func() bool { return w.run.Status.IsFinished() }) {
				t.Fatalf("it did not end: %s", w.dump())
			}
		}
		if w.account.made != 1 {
			t.Fatalf("%d machines were rented: %s", w.account.made, w.dump())
		}
		if !w.runUntil(1000, w.isEmpty) {
			t.Fatalf("the machine is not given back: %s", w.dump())
		}
	})
}
