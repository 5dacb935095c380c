package placement

import (
	"testing"
	"time"

	"dstack/internal/dstack"
)

func TestExclusions_Split(t *testing.T) {
	now := time.Now()
	cheap := dstack.Offer{Key: "cloud", Region: "north", Type: "cheap"}
	cheap.Zone = "north-a"
	zoneB, spot, south, other, dear := cheap, cheap, cheap, cheap, cheap
	zoneB.Zone, spot.Spot, south.Region, other.Key, dear.Type = "north-b", true, "south", "other", "dear"
	owned := cheap
	owned.OwnedInstance = "this"
	all := []dstack.Offer{cheap, zoneB, spot, south, other, dear, owned}
	fail := func(scope dstack.FailureScope, types ...string) func(e *Exclusions) {
		return func(e *Exclusions) {
			e.Exclude(cheap, dstack.MachineFailure{Message: "none left", Scope: scope, Types: types}, now)
		}
	}
	quota := func(e *Exclusions) {
		e.Exclude(cheap, dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"chea*"}}, now)
	}
	throttled := func(e *Exclusions) {
		e.Exclude(cheap, dstack.MachineFailure{Cause: dstack.FailureNoCapacity, RetryAfter: 20 * time.Minute}, now)
	}
	for _, c := range []struct {
		name    string
		exclude func(e *Exclusions)
		at      time.Time
		want    int // rejected
	}{
		{"nothing is excluded", func(*Exclusions) {}, now, 0},
		{"the type in its zone", fail(dstack.ScopeZone), now, 1},
		{"the type in its region", fail(dstack.ScopeRegion), now, 2},
		{"types of the region", fail(dstack.ScopeTypes, "dear", "chea*"), now, 3},
		{"a place", fail(dstack.ScopePlace), now, 4},
		{"a whole backend", fail(dstack.ScopeBackend), now, 5},
		{"zones that have room", func(e *Exclusions) {
			e.Exclude(cheap, dstack.MachineFailure{Zones: []string{"north-b"}}, now)
		}, now, 1},
		{"zones that have room, elsewhere", func(e *Exclusions) {
			e.Exclude(cheap, dstack.MachineFailure{Zones: []string{"north-c"}}, now)
		}, now, 2},
		{"an owned machine", func(e *Exclusions) { e.Exclude(owned, dstack.MachineFailure{}, now) }, now, 0},
		{"until the time is over", fail(dstack.ScopeBackend), now.Add(ExcludeTime), 0},
		{"a quota for longer", quota, now.Add(ExcludeTime), 2},
		{"a quota until the time is over", quota, now.Add(quotaExcludes), 0},
		{"as long as the backend asks", throttled, now.Add(19 * time.Minute), 1},
		{"not longer", throttled, now.Add(20 * time.Minute), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Exclusions{}
			c.exclude(e)
			allowed, rejected := e.Split(all, c.at)
			if len(rejected) != c.want || len(allowed) != len(all)-c.want {
				t.Errorf("rejected %+v, allowed %+v", rejected, allowed)
			}
			if c.want == 0 && c.at.After(now) && len(e.recent)+len(e.patterns) > 0 {
				t.Errorf("still remembered: %v", e.recent)
			}
		})
	}
	e := &Exclusions{}
	e.ExcludeForRun("run", owned, "the disk is full", now)
	if allowed, rejected := e.SplitForRun("run", all, now); len(allowed) != 6 || len(rejected) != 1 || rejected[0].Reason != "failed lately: the disk is full; it is left out for 5m" {
		t.Errorf("rejected %+v", rejected)
	}
	if allowed, _ := e.SplitForRun("other", all, now); len(allowed) != 7 {
		t.Errorf("a machine is left out for another run: %+v", allowed)
	}
	if allowed, _ := e.SplitForRun("run", all, now.Add(ExcludeTime)); len(allowed) != 7 || len(e.forRun) > 0 {
		t.Errorf("a machine is left out for too long: %+v", allowed)
	}
	e.Exclude(cheap, dstack.MachineFailure{Message: "none left"}, now)
	if _, rejected := e.Split(all, now.Add(90*time.Second)); len(rejected) != 1 || rejected[0].Reason != "failed lately: none left; it is left out for 4m" {
		t.Errorf("rejected %+v", rejected)
	}
}

func TestLeaveOut(t *testing.T) {
	rented, here, away := dstack.Offer{Type: "l4"}, dstack.Offer{Type: "box", OwnedInstance: "i1"}, dstack.Offer{Type: "gpu-1", OwnedInstance: "i2"}
	allowed, rejected := LeaveOut([]dstack.Offer{rented, here, away}, map[dstack.InstanceID]dstack.Reason{"i2": "host gpu-1 has not answered for 10s"})
	if len(allowed) != 2 || len(rejected) != 1 || rejected[0].Offer.Type != "gpu-1" || rejected[0].Reason != "has not answered for 10s" {
		t.Errorf("allowed %+v, rejected %+v", allowed, rejected)
	}
}
