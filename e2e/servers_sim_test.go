package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// testServersKilledAndFrozenAtRandom kills and freezes servers that share a database, while runs are applied, changed and
// stopped through the others. No replica may run twice, no run may be lost, and nothing may be left. It is part of make sim.
func testServersKilledAndFrozenAtRandom(t *testing.T) {
	s := newServerSet(t, 3)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	watch := s.watchDoubles()
	steady := s.newServiceFolder("steady", 2, "drain_timeout: 2s")
	s.user.applyAndWait(steady)
	before := s.expectRunning(5*time.Second, 2)
	for round := range 12 {
		victim := s.all[dice.IntN(len(s.all))]
		name := fmt.Sprintf("run-%d", round)
		dir := s.newServiceFolder(name, 1+dice.IntN(2), "drain_timeout: 2s")
		others := s.others(victim)
		load := others[0].startTraffic(10, others[0].serviceURL("steady", "/"))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.user.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m") // may fail: see below
		}()
		time.Sleep(time.Duration(dice.IntN(3000)) * time.Millisecond)
		frozenFor := time.Duration(0)
		if dice.IntN(2) == 0 {
			victim.killServer()
		} else {
			frozenFor = time.Duration(1+dice.IntN(60)) * time.Second
			victim.freeze()
			time.Sleep(frozenFor)
			victim.thaw()
		}
		<-ended
		load.expectNoFailure(fmt.Sprintf("round %d: requests through a server that went on", round))
		s.user.applyAndWait(dir) // a call whose answer was lost is repeated by the user, and changes nothing then
		if v := s.user.findRun(name); v.Ready != v.DesiredReplicas {
			t.Errorf("round %d: %d of %d replicas of %s are ready", round, v.Ready, v.DesiredReplicas, name)
		}
		s.user.runCLI("stop", name, "-y").expectExit(0)
		s.user.waitUntil(2*time.Minute, "the run has ended", func() error {
			if v := s.user.findRun(name); !v.Status.IsFinished() {
				return fmt.Errorf("it is %s", v.Status)
			}
			return nil
		})
		if !victim.isRunning() {
			victim.startServer()
		}
		if after := s.expectRunning(20*time.Second, 2); !slices.Equal(before, after) {
			t.Errorf("round %d: the containers were %s and are %s", round, strings.Join(before, " "), strings.Join(after, " "))
		}
		t.Logf("round %d: server %d, frozen for %s (0s: killed)", round, slices.Index(s.all, victim), frozenFor)
	}
	watch.expectNone(t)
}
