package cloudtest

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// Fixture describes a cloud to be tested. A hook that is nil means that the fixture lacks the feature of its name.
type Fixture struct {
	// Open opens a provider of one account. The fixture closes what it opens with t.Cleanup.
	Open func(t *testing.T, installation dstack.Installation) cloud.Provider
	// Offer is a machine that there is, in a zone, on demand. Another is one in the same zone of another type.
	Offer, Another dstack.Offer
	// Timeout limits how long the cloud may take for each step.
	Timeout time.Duration
	// Wait lets time pass between two looks at the cloud; nil: a millisecond of real time.
	Wait func()

	Refuse     func(t *testing.T, f Refusal)         // makes launches fail until it is called with NotRefused
	LoseAnswer func(t *testing.T)                    // the next launch is done, and its answer is lost
	EndNext    func(t *testing.T)                    // the next launch is answered well, and its machine ends: no capacity
	Preempt    func(t *testing.T, m cloud.Machine)   // takes a spot machine back
	FailRegion func(t *testing.T) (restore func())   // one region does not answer
	Hang       func(t *testing.T) (restore func())   // nothing answers
	AddDisk    func(t *testing.T) (d cloud.Disk)     // a disk of the user, in the zone of Offer
	Count      func(t *testing.T) (machines int)     // machines of the account that cost money, listed or not
	UserData   func(t *testing.T, ref string) []byte // what a machine was given
	Foreign    func(t *testing.T) (m cloud.Machine)  // makes a running machine without marks
	Secondary  func(t *testing.T) (l cloud.Launch)   // a launch in another region; only its Offer counts
	Leftover   func(t *testing.T, p cloud.Provider)  // leaves an object that is not used

	// Lacks are the features that the cloud does not have. The cases that need them do not apply.
	Lacks []Feature
}

// Refusal is why a cloud refuses a launch.
type Refusal string

// The refusals.
const (
	NotRefused      Refusal = ""
	NoCapacity      Refusal = "no capacity in the zone"
	NoQuota         Refusal = "a quota"
	NotAuthorized   Refusal = "wrong credentials"
	NotAllowed      Refusal = "a missing right"
	TooManyLaunches Refusal = "too many requests"
)

// Feature is something that some clouds, or their stand-ins, do not have.
type Feature string

// Every feature that a cloud may lack.
const (
	Refusals     Feature = "refused launches"
	LostAnswers  Feature = "lost answers"
	LateFailures Feature = "launches that fail after their answer"
	Spot         Feature = "spot machines"
	RegionFaults Feature = "regions that do not answer"
	Hangs        Feature = "calls without an answer"
	Disks        Feature = "disks"
	UserDisks    Feature = "disks of the user"
	UserData     Feature = "user data"
	Foreigners   Feature = "machines without marks"
	PriceLists   Feature = "price lists"
	Zones        Feature = "availability"
	Leftovers    Feature = "leftovers"
)

// notApplicable ends a case that needs a feature that the cloud lacks.
type notApplicable struct{ needs Feature }

// Run tests a cloud. It calls newFixture for each case.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	for _, c := range slices.Concat(machineCases, failureCases, diskCases, listCases) {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				switch p := recover().(type) {
				case nil:
				case notApplicable:
					t.Logf("does not apply: the cloud lacks %s", p.needs)
				default:
					panic(p)
				}
			}()
			f := newFixture(t)
			c.run(&harness{t: t, f: f, Provider: f.Open(t, "suite")})
		})
	}
}

type contractCase struct {
	name string
	run  func(h *harness)
}

// harness runs one case.
type harness struct {
	t *testing.T
	f Fixture
	cloud.Provider
}

func (h *harness) ctx() context.Context { return h.t.Context() }

func (h *harness) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) expectKind(err error, kind dstack.Kind) {
	h.t.Helper()
	if err == nil || dstack.KindOf(err) != kind {
		h.t.Errorf("the error is %v, want one of kind %s", err, kind)
	}
}

// require ends the case if the cloud does not have a feature: the case does not apply if the fixture says so, and fails
// otherwise.
func (h *harness) require(needs Feature, has bool) {
	h.t.Helper()
	switch lacks := slices.Contains(h.f.Lacks, needs); {
	case has && lacks:
		h.t.Fatalf("the fixture says that the cloud lacks %s, but it has them", needs)
	case lacks:
		panic(notApplicable{needs})
	case !has:
		h.t.Fatalf("the cloud has no %s, and its fixture does not say so", needs)
	}
}

var lastID atomic.Int64

// newLaunch returns a launch of the fixture's offer for a new instance.
func (h *harness) newLaunch() cloud.Launch { return h.newLaunchOf(h.f.Offer) }

func (h *harness) newLaunchOf(o dstack.Offer) cloud.Launch {
	id := dstack.InstanceID(fmt.Sprintf("suite-%d", lastID.Add(1)))
	if o.Hardware.DiskMiB == 0 {
		o.Hardware.DiskMiB = 100 << 10
	}
	return cloud.Launch{
		Instance: id, Offer: o, Token: cloud.NewToken("suite", id, o), Name: "dstack-" + string(id),
		UserData: "#!/bin/sh\necho '" + string(id) + " é' >&2\n", Labels: map[string]string{"dstack-run": "llama31"},
	}
}

// launch makes a machine and waits until it runs.
func (h *harness) launch() (cloud.Launch, cloud.Machine) {
	h.t.Helper()
	l := h.newLaunch()
	_, err := h.Launch(h.ctx(), l)
	h.check(err)
	return l, h.waitUntilRunning(l.Instance)
}

func (h *harness) waitUntilRunning(id dstack.InstanceID) (m cloud.Machine) {
	h.t.Helper()
	h.waitFor("running", func() (ok bool) {
		m, ok = h.find(id)
		return ok && m.State == cloud.MachineRunning
	})
	return m
}

// waitUntilEnded waits until a machine is not listed, or as ended.
func (h *harness) waitUntilEnded(id dstack.InstanceID) (m cloud.Machine) {
	h.t.Helper()
	h.waitFor("ended", func() (listed bool) {
		m, listed = h.find(id)
		return !listed || m.State == cloud.MachineEnded
	})
	return m
}

func (h *harness) list() []cloud.Machine {
	h.t.Helper()
	machines, err := h.ListMachines(h.ctx())
	h.check(err)
	return machines
}

// find returns the machine of an instance. Two of them fail the case.
func (h *harness) find(id dstack.InstanceID) (found cloud.Machine, listed bool) {
	h.t.Helper()
	refs := map[string]bool{}
	for _, m := range h.list() {
		if m.Instance == id {
			found, listed = m, true
			refs[m.Ref] = true
		}
	}
	if len(refs) > 1 {
		h.t.Fatalf("the instance %s has %d machines", id, len(refs))
	}
	return found, listed
}

// expectCount checks how many machines of the account cost money.
func (h *harness) expectCount(want int) {
	h.t.Helper()
	if got := h.f.Count(h.t); got != want {
		h.t.Errorf("%d machines cost money, want %d", got, want)
	}
}

// waitFor looks until a condition holds, for Fixture.Timeout at most.
func (h *harness) waitFor(what string, condition func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(h.f.Timeout); !condition(); h.wait() {
		if time.Now().After(deadline) {
			h.t.Fatalf("not %s within %s", what, h.f.Timeout)
		}
	}
}

func (h *harness) wait() {
	if h.f.Wait != nil {
		h.f.Wait()
		return
	}
	time.Sleep(time.Millisecond)
}
