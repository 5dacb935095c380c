package e2e

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"dstack/internal/cloud/aws/ec2test"
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
		fault, inject := s.chooseFault(dice)
		inject()
		t.Logf("%s: %s", name, fault)
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

// chooseFault returns something that goes wrong with the API during a history.
func (s *awsSet) chooseFault(dice *rand.Rand) (name string, inject func()) {
	faults := []struct {
		name  string
		fault ec2test.Fault
	}{
		{"the answer to a launch is lost", ec2test.Fault{Action: "RunInstances", Cut: true, Done: true, Times: 1}},
		{"a launch is refused after it was done", ec2test.Fault{Action: "RunInstances", Done: true, Status: 500, Code: "InternalError", Times: 1}},
		{"launches are throttled", ec2test.Fault{Action: "RunInstances", Status: 503, Code: "RequestLimitExceeded", RetryAfter: 2 * time.Second, Times: 3}},
		{"a launch ends at once", ec2test.Fault{Action: "RunInstances", StateReason: "Server.InternalError", Message: "Internal error on launch", Times: 1}},
		{"listings fail", ec2test.Fault{Action: "DescribeInstances", Status: 503, Code: "Unavailable", Times: 6}},
		{"terminations fail", ec2test.Fault{Action: "TerminateInstances", Status: 503, Code: "Unavailable", Times: 9}},
		{"nothing goes wrong", ec2test.Fault{Action: "Nothing"}},
	}
	chosen := faults[dice.IntN(len(faults))]
	return chosen.name, func() { s.ec2.Inject(chosen.fault) }
}
