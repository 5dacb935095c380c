package e2e

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// TestCloud_ServerKilled kills the server at random moments while machines are rented and given back. No machine may be
// forgotten, and none may be rented twice.
func TestCloud_ServerKilled(t *testing.T) {
	s := newAWSSet(t)
	histories := 2
	if isLongRun() {
		histories = 20
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(uint64(seed), 0))
	for i := range histories {
		name := "history-" + strconv.Itoa(i)
		dir := s.newFolder(s.serviceConfig(name, "spot_policy: on-demand", "idle_duration: 0s"))
		s.killWithin(6*time.Second, dice, func() { s.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d") })
		s.applyAndWait(dir)
		s.expectStatus(s.serviceURL(name, "/who"), 200)
		s.waitForMachines(20*time.Second, 1)
		s.killWithin(3*time.Second, dice, func() { s.runCLI("stop", name, "-y") })
		if v := s.findRun(name); !v.Status.IsFinished() {
			s.stopRun(name)
		}
		s.waitForMachines(60*time.Second, 0)
		s.expectOneLaunchEach()
	}
}
