package e2e

import (
	"fmt"
	"testing"
	"time"

	"dstack/internal/cloud/aws/ec2test"
)

// TestCloud_ManyWithFaults asks for 50 machines at once while launches are throttled and answers are lost, descriptions lag,
// and the server is killed. The machines never boot. All of them are given back, none was rented twice.
func TestCloud_ManyWithFaults(t *testing.T) {
	if !isLongRun() {
		return
	}
	started, err := ec2test.Start(ec2test.Options{
		Steps: ec2test.Steps{Lag: 20 * time.Second, Terminated: 2 * time.Second},
		OnRun: func(ec2test.Instance) (string, error) { return "127.0.0.1:9", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.Close)
	s := &awsSet{ec2: started, harness: newStoppedHarness(t, "process", "AWS_EC2_METADATA_DISABLED=true")}
	s.configure()
	s.startServer()
	s.waitForPrices()
	s.ec2.SetQuota("us-east-1", "L-1216C47A", 1000)
	s.ec2.Inject(ec2test.Fault{Action: "RunInstances", Cut: true, Done: true, Times: 5})
	s.ec2.Inject(ec2test.Fault{Action: "RunInstances", Status: 500, Code: "InternalError", Done: true, Times: 5})
	s.ec2.Throttle("RunInstances", 30, time.Second)
	config := s.serviceConfig("many", "spot_policy: on-demand", "idle_duration: 0s", "replicas: 50")
	s.runCLIIn(s.newFolder(config), "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
	for range 3 {
		time.Sleep(1500 * time.Millisecond)
		s.killServer()
		s.startServer()
	}
	began := time.Now()
	s.waitUntil(90*time.Second, "50 machines were asked for", func() error {
		if n := len(s.ec2.Alive()); n < 50 {
			return fmt.Errorf("%d are: %d calls", n, s.ec2.CountCalls("RunInstances"))
		}
		return nil
	})
	t.Logf("50 machines after %s, %d calls of RunInstances, %d of DescribeInstances", time.Since(began).Round(time.Second),
		s.ec2.CountCalls("RunInstances"), s.ec2.CountCalls("DescribeInstances"))
	time.Sleep(5 * time.Second)
	s.expectOneLaunchEach()
	s.ec2.Inject(ec2test.Fault{Action: "TerminateInstances", Code: "Unavailable", Status: 503, Times: 20})
	s.runCLI("stop", "many", "-y", "--abort").expectExit(0)
	time.Sleep(time.Second)
	s.killServer()
	s.startServer()
	s.waitForMachines(60*time.Second, 0)
	s.expectOneLaunchEach()
}
