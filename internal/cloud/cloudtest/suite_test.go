package cloudtest_test

import (
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

func TestAccount_FollowsTheContract(t *testing.T) {
	for _, c := range []struct {
		name    string
		latency cloudtest.Latency
	}{
		{"at once", cloudtest.Latency{}},
		{"late", cloudtest.Latency{Listed: 2 * time.Minute, Running: 3 * time.Minute, Ended: time.Minute, Attached: time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cloudtest.Run(t, func(*testing.T) cloudtest.Fixture { return newFixture(c.latency) })
		})
	}
}

// newFixture returns an account whose clock moves by ten seconds at each look.
func newFixture(latency cloudtest.Latency) cloudtest.Fixture {
	now := time.Now()
	a := cloudtest.NewAccount(cloudtest.AccountOptions{Latency: latency, Now: func() time.Time { return now }})
	small := cloudtest.Place{Region: "north", Zone: "north-a", Type: "small"}
	setLaunchFault := func(err error, isDone bool) {
		faults := cloudtest.Faults{LaunchAnyway: isDone}
		if err != nil {
			faults.Launch = map[cloudtest.Place]error{{}: err}
		}
		a.SetFaults(faults)
	}
	return cloudtest.Fixture{
		Open:    func(_ *testing.T, i dstack.Installation) cloud.Provider { return a.Open(i) },
		Offer:   dstack.Offer{Region: "north", Zone: "north-a", Type: "small"},
		Another: dstack.Offer{Region: "north", Zone: "north-a", Type: "large"},
		Timeout: 5 * time.Second,
		Wait:    func() { now = now.Add(10 * time.Second) },
		Refuse: func(_ *testing.T, r cloudtest.Refusal) {
			setLaunchFault(map[cloudtest.Refusal]error{
				cloudtest.NoCapacity:      cloudtest.NewNoCapacityError(small),
				cloudtest.NoQuota:         cloudtest.NewQuotaError("north", "standard", "small"),
				cloudtest.NotAuthorized:   cloudtest.NewUnauthorizedError(),
				cloudtest.NotAllowed:      cloudtest.NewForbiddenError("Launch"),
				cloudtest.TooManyLaunches: cloudtest.NewThrottledError(time.Second),
			}[r], false)
		},
		LoseAnswer: func(*testing.T) { a.LoseNextAnswer() },
		EndNext: func(*testing.T) {
			a.SetFaults(cloudtest.Faults{EndLaunched: &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Message: "none is left"}})
		},
		Preempt: func(_ *testing.T, m cloud.Machine) {
			a.End(m.Ref, &dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: "the cloud took it back"})
		},
		FailRegion: func(*testing.T) func() {
			a.SetFaults(cloudtest.Faults{Regions: []string{"south"}})
			return func() { a.SetFaults(cloudtest.Faults{}) }
		},
		Hang: func(*testing.T) func() {
			a.SetFaults(cloudtest.Faults{HangAll: true})
			return func() { a.SetFaults(cloudtest.Faults{}) }
		},
		AddDisk: func(*testing.T) cloud.Disk {
			return cloud.Disk{Ref: a.AddDisk("north", "north-a", 20<<10), Region: "north", Zone: "north-a"}
		},
		Count:    func(*testing.T) int { return len(a.Alive()) },
		UserData: func(_ *testing.T, ref string) []byte { return []byte(a.LaunchOf(ref).UserData) },
		Foreign:  func(*testing.T) cloud.Machine { return a.Leak("", "", small) },
		Secondary: func(*testing.T) cloud.Launch {
			return cloud.Launch{Offer: dstack.Offer{Region: "south", Zone: "south-a", Type: "small"}}
		},
		Leftover: func(*testing.T, cloud.Provider) {
			a.LeakObject("suite", cloud.Leftover{Kind: "address", Ref: "address-1", Region: "north"})
		},
	}
}
