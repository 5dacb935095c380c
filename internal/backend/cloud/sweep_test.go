package cloud

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

func (r *rig) aliveRefs() (refs []string) {
	for _, m := range r.account.Alive() {
		refs = append(refs, m.Ref)
	}
	return refs
}

func (r *rig) expectRefs(when string, got []string, want ...string) {
	r.t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: %v, want %v", when, got, want)
	}
}

// What nothing needs is reported, and removed after an hour, also by a server that was restarted meanwhile. What has a row, and what
// belongs to others, stays.
func TestSweep_RemovesWhatNothingNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.isSlow = true
		r.store.volumes[dstack.VolumeID("used")] = true
		stop := r.open()
		r.create(newRequest("one", smallInNorth))
		r.waitFor("one", time.Minute, isRunning)
		ours := r.aliveRefs()[0]
		foreign := r.account.Leak("other installation", "one", smallInNorth).Ref
		left := r.account.Leak(installation, "unknown", smallInNorth).Ref
		keptDisk := r.account.LeakDisk(installation, "used", "north", "north-a")
		leftDisk := r.account.LeakDisk(installation, "unused", "north", "north-a")
		usersDisk := r.account.AddDisk("north", "north-a", 1024)
		r.account.LeakObject(installation, cloud.Leftover{Kind: "address", Ref: "eip-1", Region: "north", CreatedAt: time.Now()})
		r.account.LeakObject(installation, cloud.Leftover{Kind: "security group", Ref: "sg-1", Region: "north", IsShared: true})
		r.account.LeakObject("other installation", cloud.Leftover{Kind: "address", Ref: "eip-2", Region: "north"})

		time.Sleep(2*sweepInterval + time.Minute)
		var reported []string
		for _, l := range r.Leftovers() {
			reported = append(reported, l.Kind+" "+l.Ref)
		}
		r.expectRefs("reported", reported, "machine "+left, "disk "+leftDisk, "address eip-1")
		r.expectRefs("after 20 minutes", r.aliveRefs(), ours, foreign, left)
		stop()
		stop = r.open()
		time.Sleep(maxLeftoverAge)
		r.expectRefs("machines after an hour", r.aliveRefs(), ours, foreign)
		r.expectRefs("objects after an hour", r.account.Objects(), "sg-1", "eip-2")
		r.expectRefs("disks after an hour", r.account.DiskRefs(), keptDisk, leftDisk, usersDisk)
		time.Sleep(maxLeftDiskAge)
		r.expectRefs("disks after a day", r.account.DiskRefs(), keptDisk, usersDisk)
		r.expectRefs("machines after a day", r.aliveRefs(), ours, foreign)
		if left := r.Leftovers(); len(left) != 0 {
			t.Errorf("left: %+v", left)
		}
		stop()
	})
}

// The machine of an instance that is deleted is a leftover, and a second machine of an instance ends at once.
func TestSweep_DoublesAndDeletedInstances(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create(newRequest("one", smallInNorth))
		r.create(newRequest("two", smallInNorth))
		r.waitFor("one", time.Minute, isRunning)
		r.waitFor("two", time.Minute, isRunning)
		double := r.account.Leak(installation, "two", smallInNorth).Ref
		if m, _ := r.machine("two"); m.Ref == double {
			t.Error("the double is taken for the machine")
		}
		r.store.mu.Lock()
		r.store.gone["one"] = true
		r.store.mu.Unlock()
		time.Sleep(sweepInterval + time.Minute)
		if slices.Contains(r.aliveRefs(), double) || len(r.aliveRefs()) != 2 {
			t.Errorf("alive: %v; the double is %s", r.aliveRefs(), double)
		}
		time.Sleep(maxLeftoverAge + sweepInterval)
		if m := r.account.Alive(); len(m) != 1 || m[0].Instance != "two" {
			t.Errorf("alive: %+v", m)
		}
	})
}

// A listing that is incomplete removes nothing, and neither does an account that cannot be used.
func TestSweep_IncompleteListings(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		left := r.account.Leak(installation, "unknown", smallInNorth).Ref
		for _, faults := range []cloudtest.Faults{{Regions: []string{"south"}}, {All: cloudtest.NewUnauthorizedError()}} {
			r.account.SetFaults(faults)
			time.Sleep(3 * time.Hour)
			r.expectRefs("meanwhile", r.aliveRefs(), left)
		}
		r.account.SetFaults(cloudtest.Faults{})
		time.Sleep(2*time.Hour + 2*sweepInterval)
		r.expectRefs("at the end", r.aliveRefs())
	})
}
