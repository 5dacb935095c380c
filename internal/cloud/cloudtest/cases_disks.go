package cloudtest

import (
	"fmt"
	"slices"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

var diskCases = []contractCase{
	{"a created disk is ready in the end", func(h *harness) {
		d := h.createDisk()
		if d.Ref == "" || d.Region != h.f.Offer.Region || d.Zone != h.f.Offer.Zone || d.SizeMiB < 5<<10 || d.IsExternal || d.Device == (cloud.DeviceSelector{}) {
			h.t.Errorf("disk %+v", d)
		}
	}},
	{"a creation of a disk that is repeated makes one disk", func(h *harness) {
		d := h.createDisk()
		again, err := h.disks().CreateDisk(h.ctx(), h.wantedDisk(d.Volume))
		h.check(err)
		if again.Ref != d.Ref || len(h.listDisks()) != 1 {
			h.t.Errorf("disk %+v, want %s; listed %+v", again, d.Ref, h.listDisks())
		}
	}},
	{"two installations do not see each other's disks", func(h *harness) {
		d := h.createDisk()
		other := h.f.Open(h.t, "other").(cloud.Disks)
		if list, err := other.ListDisks(h.ctx(), nil); err != nil || len(list) > 0 {
			h.t.Errorf("the other installation sees %+v, %v", list, err)
		}
		second, err := other.CreateDisk(h.ctx(), h.wantedDisk(d.Volume))
		h.check(err)
		if second.Ref == d.Ref {
			h.t.Errorf("both have the disk %s", d.Ref)
		}
	}},
	{"a disk is attached, detached, and deleted", func(h *harness) {
		d := h.createDisk()
		_, m := h.launch()
		for range 2 {
			h.check(h.disks().AttachDisk(h.ctx(), d, m))
		}
		h.waitForAttachment(d, m)
		h.check(h.disks().AttachDisk(h.ctx(), d, m))
		h.expectKind(h.disks().DeleteDisk(h.ctx(), d), dstack.Conflict)
		for range 2 {
			h.check(h.disks().DetachDisk(h.ctx(), d, m))
		}
		h.waitUntilReady(d)
		h.check(h.disks().DetachDisk(h.ctx(), d, m))
		for range 2 {
			h.check(h.disks().DeleteDisk(h.ctx(), d))
		}
		h.waitFor("deleted", func() bool { return len(h.listDisks()) == 0 })
		h.check(h.disks().DeleteDisk(h.ctx(), d))
		h.check(h.disks().DetachDisk(h.ctx(), d, m))
	}},
	{"a disk is not attached to two machines", func(h *harness) {
		d := h.createDisk()
		_, first := h.launch()
		_, second := h.launch()
		h.check(h.disks().AttachDisk(h.ctx(), d, first))
		h.waitForAttachment(d, first)
		h.expectKind(h.disks().AttachDisk(h.ctx(), d, second), dstack.Conflict)
		h.check(h.disks().DetachDisk(h.ctx(), d, second)) // it is not there
		h.waitForAttachment(d, first)
	}},
	{"the end of a machine frees its disk, and keeps it", func(h *harness) {
		d := h.createDisk()
		l, m := h.launch()
		h.check(h.disks().AttachDisk(h.ctx(), d, m))
		h.waitForAttachment(d, m)
		h.check(h.Terminate(h.ctx(), []cloud.Machine{m}))
		h.waitUntilEnded(l.Instance)
		h.waitUntilReady(d)
		_, next := h.launch()
		h.check(h.disks().AttachDisk(h.ctx(), d, next))
		h.waitForAttachment(d, next)
	}},
	{"a disk of the user is found and never deleted", func(h *harness) {
		h.disks()
		h.require(UserDisks, h.f.AddDisk != nil)
		mine := h.f.AddDisk(h.t)
		mine.IsExternal = true
		found, err := h.disks().CreateDisk(h.ctx(), mine)
		h.check(err)
		if found.Ref != mine.Ref || !found.IsExternal || found.Zone != h.f.Offer.Zone || found.SizeMiB <= 0 {
			h.t.Errorf("disk %+v, want %+v", found, mine)
		}
		if len(h.listDisks()) > 0 || len(h.listDisks(mine)) != 1 {
			h.t.Errorf("listed %+v, and when asked for %+v", h.listDisks(), h.listDisks(mine))
		}
		h.check(h.disks().DeleteDisk(h.ctx(), found))
		if len(h.listDisks(mine)) != 1 {
			h.t.Errorf("listed %+v", h.listDisks(mine))
		}
		absent := mine
		absent.Ref = unknownRef(mine.Ref)
		_, err = h.disks().CreateDisk(h.ctx(), absent)
		h.expectKind(err, dstack.NotFound)
		if list := h.listDisks(mine, absent); len(list) != 1 {
			h.t.Errorf("listed %+v with one that does not exist", list)
		}
	}},
}

func (h *harness) disks() cloud.Disks {
	h.t.Helper()
	d, ok := h.Provider.(cloud.Disks)
	h.require(Disks, ok)
	return d
}

func (h *harness) wantedDisk(v dstack.VolumeID) cloud.Disk {
	return cloud.Disk{Volume: v, Region: h.f.Offer.Region, Zone: h.f.Offer.Zone, SizeMiB: 10 << 10}
}

// createDisk makes a disk in the zone of the fixture's offer and waits until it is ready.
func (h *harness) createDisk() cloud.Disk {
	h.t.Helper()
	d, err := h.disks().CreateDisk(h.ctx(), h.wantedDisk(dstack.VolumeID(fmt.Sprintf("suite-%d", lastID.Add(1)))))
	h.check(err)
	return h.waitUntilReady(d)
}

func (h *harness) listDisks(external ...cloud.Disk) []cloud.Disk {
	h.t.Helper()
	list, err := h.disks().ListDisks(h.ctx(), external)
	h.check(err)
	return list
}

func (h *harness) findDisk(d cloud.Disk) (cloud.Disk, bool) {
	h.t.Helper()
	for _, other := range h.listDisks() {
		if other.Ref == d.Ref {
			return other, true
		}
	}
	return cloud.Disk{}, false
}

func (h *harness) waitUntilReady(d cloud.Disk) (ready cloud.Disk) {
	h.t.Helper()
	h.waitFor("ready", func() (ok bool) {
		ready, ok = h.findDisk(d)
		return ok && ready.State == cloud.DiskReady && len(ready.Attached) == 0
	})
	return ready
}

func (h *harness) waitForAttachment(d cloud.Disk, m cloud.Machine) {
	h.t.Helper()
	h.waitFor("attached", func() bool {
		got, _ := h.findDisk(d)
		return got.State == cloud.DiskInUse && slices.Contains(got.Attached, cloud.DiskMachine{Ref: m.Ref, IsReady: true})
	})
}

var listCases = []contractCase{
	{"a price list describes types", func(h *harness) {
		list, ok := h.Provider.(cloud.PriceList)
		h.require(PriceLists, ok)
		rows, err := list.ListTypes(h.ctx(), h.f.Offer.Region)
		h.check(err)
		found := map[bool]bool{}
		for _, r := range rows {
			if r.Type == "" || r.Region != h.f.Offer.Region || r.CPUs < 1 || r.MemoryMiB < 1 || r.Price <= 0 || r.Arch == "" {
				h.t.Errorf("row %+v", r)
			}
			if r.Type == h.f.Offer.Type && (r.Zone == "" || r.Zone == h.f.Offer.Zone) {
				found[r.Spot] = true
			}
		}
		if !found[false] || !found[true] {
			h.t.Errorf("of %d rows, there is an on-demand price of %s: %t, and a spot price: %t", len(rows), h.f.Offer.Type, found[false], found[true])
		}
	}},
	{"the zones of a type are known", func(h *harness) {
		list, ok := h.Provider.(cloud.Availability)
		h.require(Zones, ok)
		zones, err := list.ListZones(h.ctx(), h.f.Offer.Region)
		h.check(err)
		if !slices.Contains(zones[h.f.Offer.Type], h.f.Offer.Zone) {
			h.t.Errorf("%s is in the zones %v, want %s", h.f.Offer.Type, zones[h.f.Offer.Type], h.f.Offer.Zone)
		}
		_, err = list.ListQuotas(h.ctx(), h.f.Offer.Region)
		h.check(err)
	}},
	{"what is not used is a leftover, and can be deleted", func(h *harness) {
		list, ok := h.Provider.(cloud.Leftovers)
		h.require(Leftovers, ok && h.f.Leftover != nil)
		h.f.Leftover(h.t, h.Provider)
		left, err := list.ListLeftovers(h.ctx())
		h.check(err)
		if len(left) == 0 {
			h.t.Fatal("there is no leftover")
		}
		if others, err := h.f.Open(h.t, "other").(cloud.Leftovers).ListLeftovers(h.ctx()); err != nil || len(others) > 0 {
			h.t.Errorf("the other installation sees %+v, %v", others, err)
		}
		for _, l := range left {
			if l.Kind == "" || l.Ref == "" {
				h.t.Errorf("leftover %+v", l)
			}
			for range 2 {
				h.check(list.DeleteLeftover(h.ctx(), l))
			}
		}
		if left, err = list.ListLeftovers(h.ctx()); err != nil || len(left) > 0 {
			h.t.Errorf("leftovers %+v, %v", left, err)
		}
	}},
	{"an object that a machine uses is no leftover", func(h *harness) {
		list, ok := h.Provider.(cloud.Leftovers)
		h.require(Leftovers, ok && h.f.Leftover != nil)
		l := h.newLaunch()
		l.Group = "dstack-group"
		_, err := h.Launch(h.ctx(), l)
		h.check(err)
		h.waitUntilRunning(l.Instance)
		left, err := list.ListLeftovers(h.ctx())
		h.check(err)
		if len(left) > 0 {
			h.t.Errorf("leftovers %+v", left)
		}
	}},
}
