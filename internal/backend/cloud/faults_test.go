package cloud

import (
	"testing"
	"time"

	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

// A cloud that accepts calls and does not answer them holds up those that ask for its machines only shortly, and once.
func TestMachines_ACloudThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create(newRequest("one", smallInNorth))
		r.waitFor("one", time.Minute, isRunning)
		r.account.SetFaults(cloudtest.Faults{Hang: "ListMachines"})
		time.Sleep(defaultCalmListingAge + time.Second)
		for i, most := range []time.Duration{maxListingWait, 0, 0} {
			began := time.Now()
			_, err := r.Machines(t.Context())
			if took := time.Since(began); dstack.KindOf(err) != dstack.Unavailable || took > most {
				t.Errorf("call %d took %s: %v", i, took, err)
			}
			time.Sleep(time.Second)
		}
		r.account.SetFaults(cloudtest.Faults{})
		time.Sleep(listTimeout + failedListingAge)
		r.waitFor("one", time.Minute, isRunning)
	})
}

// What is left over is removed also while something is wrong with the account that does not concern it.
func TestSweep_AccountWithoutARight(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		left := r.account.Leak(installation, "unknown", smallInNorth).Ref
		r.account.SetFaults(cloudtest.Faults{Of: map[string]error{"CheckAccess": cloudtest.NewForbiddenError("ec2:CreatePlacementGroup")}})
		time.Sleep(time.Hour / 2)
		r.expectRefs("after half an hour", r.aliveRefs(), left)
		time.Sleep(maxLeftoverAge + 2*sweepInterval)
		r.expectRefs("at the end", r.aliveRefs())
	})
}
