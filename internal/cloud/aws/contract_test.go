package aws_test

import (
	"cmp"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/aws"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

func TestProvider_FollowsTheContract(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps ec2test.Steps
	}{
		{"at once", ec2test.Steps{}},
		{"late", ec2test.Steps{
			Lag: time.Minute, Running: 2 * time.Minute, Terminated: time.Minute, Volume: time.Minute, Attach: time.Minute,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cloudtest.Run(t, func(t *testing.T) cloudtest.Fixture { return newFixture(t, c.steps) })
		})
	}
}

// newFixture returns an account whose clock moves by 20 seconds at each look.
func newFixture(t *testing.T, steps ec2test.Steps) cloudtest.Fixture {
	fake, err := ec2test.Start(ec2test.Options{Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	settings := aws.Settings{
		Credentials: aws.Credentials{AccessKey: ec2test.AccessKey, SecretKey: ec2test.SecretKey},
		Regions:     []string{"us-east-1", "us-west-2"}, DefaultVPCs: true, PublicIPs: true, Endpoint: fake.URL,
	}
	restore := func() {}
	return cloudtest.Fixture{
		Open: func(t *testing.T, i dstack.Installation) cloud.Provider {
			p := aws.Open(settings, i)
			t.Cleanup(p.Close)
			return p
		},
		Offer:   dstack.Offer{Region: "us-east-1", Zone: "us-east-1b", Type: "m7i.large"},
		Another: dstack.Offer{Region: "us-east-1", Zone: "us-east-1b", Type: "m7i.xlarge"},
		Timeout: 10 * time.Second,
		Wait:    func() { fake.Advance(20 * time.Second) },
		Refuse: func(_ *testing.T, r cloudtest.Refusal) {
			restore()
			restore = refuseLaunches(fake, r)
		},
		LoseAnswer: func(*testing.T) {
			fake.Inject(ec2test.Fault{Action: "RunInstances", Cut: true, Done: true, Times: 1})
		},
		EndNext: func(*testing.T) {
			fake.Inject(ec2test.Fault{Action: "RunInstances", StateReason: "Server.InsufficientInstanceCapacity", Message: "Insufficient capacity", Times: 1})
		},
		Preempt: func(_ *testing.T, m cloud.Machine) { fake.Interrupt(m.Ref) },
		FailRegion: func(*testing.T) func() {
			return fake.Inject(ec2test.Fault{Region: "us-west-2", Code: "InternalError", Status: 500})
		},
		Hang: func(*testing.T) func() { return fake.Inject(ec2test.Fault{Hang: true}) },
		AddDisk: func(*testing.T) cloud.Disk {
			return cloud.Disk{Ref: fake.AddVolume("us-east-1", "us-east-1b", 20), Region: "us-east-1", Zone: "us-east-1b"}
		},
		Count: func(*testing.T) int { return len(fake.Alive()) },
		UserData: func(t *testing.T, ref string) []byte {
			for _, i := range fake.Instances() {
				if i.ID == ref {
					return i.UserData
				}
			}
			t.Fatalf("there is no machine %s", ref)
			return nil
		},
		Foreign: func(*testing.T) cloud.Machine {
			return cloud.Machine{Ref: fake.AddInstance("us-east-1", "us-east-1b", "m7i.large", nil)}
		},
		Secondary: func(*testing.T) cloud.Launch {
			return cloud.Launch{Offer: dstack.Offer{Region: "us-west-2", Zone: "us-west-2a", Type: "m7i.large"}}
		},
		Leftover: func(t *testing.T, p cloud.Provider) { leaveGroup(t, p, fake) },
	}
}

// refuseLaunches makes the fake refuse launches until the returned function is called.
func refuseLaunches(fake *ec2test.Server, r cloudtest.Refusal) (restore func()) {
	switch r {
	case cloudtest.NoCapacity:
		place := ec2test.Place{Zone: "us-east-1b", Type: "m7i.large"}
		fake.SetCapacity(place, 0)
		return func() { fake.SetCapacity(place, 100) }
	case cloudtest.NoQuota:
		fake.SetQuota("us-east-1", "L-1216C47A", 1)
		return func() { fake.SetQuota("us-east-1", "L-1216C47A", 1000) }
	case cloudtest.NotAuthorized:
		fake.SetKey(ec2test.AccessKey, ec2test.Key{Secret: "another secret"})
		return func() { fake.SetKey(ec2test.AccessKey, ec2test.Key{Secret: ec2test.SecretKey}) }
	case cloudtest.NotAllowed:
		fake.SetKey(ec2test.AccessKey, ec2test.Key{Secret: ec2test.SecretKey, Denied: []string{"ec2:RunInstances"}})
		return func() { fake.SetKey(ec2test.AccessKey, ec2test.Key{Secret: ec2test.SecretKey}) }
	case cloudtest.NotRefused:
	case cloudtest.TooManyLaunches:
		return fake.Throttle("RunInstances", 0, time.Second)
	}
	return func() {}
}

// leaveGroup makes a machine of a cluster and ends it, so that its groups stay.
func leaveGroup(t *testing.T, p cloud.Provider, fake *ec2test.Server) {
	o := dstack.Offer{Region: "us-east-1", Zone: "us-east-1b", Type: "m7i.large", Hardware: dstack.Hardware{DiskMiB: 100 << 10}}
	m, err := p.Launch(t.Context(), cloud.Launch{
		Instance: "leftover", Offer: o, Token: cloud.NewToken("suite", "leftover", o), Name: "dstack-leftover", Group: "cluster",
	})
	if err == nil {
		err = p.Terminate(t.Context(), []cloud.Machine{m})
	}
	if err != nil {
		t.Fatal(err)
	}
	fake.Advance(10 * time.Minute)
	if len(fake.Alive()) > 0 {
		t.Fatal(cmp.Or(fake.Alive()[0].State, "the machine is left"))
	}
}
