package placement

import (
	"testing"
	"time"

	"dstack/internal/dstack"
)

func TestExclusions_Split(t *testing.T) {
	now := time.Now()
	cheap := dstack.Offer{Key: "cloud", Region: "north", Type: "cheap"}
	spot, south, other := cheap, cheap, cheap
	spot.Spot, south.Region, other.Key = true, "south", "other"
	owned := cheap
	owned.OwnedInstance = "this"
	all := []dstack.Offer{cheap, spot, south, other, owned}
	for _, c := range []struct {
		name    string
		exclude func(e *Exclusions)
		at      time.Time
		want    int // rejected
	}{
		{"nothing is excluded", func(*Exclusions) {}, now, 0},
		{"one offer", func(e *Exclusions) { e.Exclude(cheap, false, "none left", now) }, now, 1},
		{"a whole backend", func(e *Exclusions) { e.Exclude(cheap, true, "wrong key", now) }, now, 3},
		{"an owned machine", func(e *Exclusions) { e.Exclude(owned, false, "broken", now) }, now, 0},
		{"until the time is over", func(e *Exclusions) { e.Exclude(cheap, true, "none left", now) }, now.Add(ExcludeTime), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Exclusions{}
			c.exclude(e)
			allowed, rejected := e.Split(all, c.at)
			if len(rejected) != c.want || len(allowed) != len(all)-c.want {
				t.Errorf("rejected %+v, allowed %+v", rejected, allowed)
			}
			if !c.at.Before(now.Add(ExcludeTime)) && len(e.recent) > 0 {
				t.Errorf("still remembered: %v", e.recent)
			}
		})
	}
	e := &Exclusions{}
	e.ExcludeForRun("run", owned, "the disk is full", now)
	if allowed, rejected := e.SplitForRun("run", all, now); len(allowed) != 4 || len(rejected) != 1 || rejected[0].Reason != "failed lately: the disk is full" {
		t.Errorf("rejected %+v", rejected)
	}
	if allowed, _ := e.SplitForRun("other", all, now); len(allowed) != 5 {
		t.Errorf("a machine is left out for another run: %+v", allowed)
	}
	if allowed, _ := e.SplitForRun("run", all, now.Add(ExcludeTime)); len(allowed) != 5 || len(e.forRun) > 0 {
		t.Errorf("a machine is left out for too long: %+v", allowed)
	}
	e.Exclude(cheap, false, "none left", now)
	if _, rejected := e.Split(all, now); len(rejected) != 1 || rejected[0].Reason != "failed lately: none left" {
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
