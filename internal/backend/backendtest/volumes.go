package backendtest

import (
	"dstack/internal/backend"
	"dstack/internal/dstack"
)

var volumeCases = []contractCase{
	{"a created volume is active in the end", func(h *harness) {
		v := h.startVolume()
		if v.ExternalID == "" || v.SizeMiB < 1024 || v.IsExternal || len(v.Attachments) > 0 {
			h.t.Errorf("volume %+v", v)
		}
	}},
	{"a volume creation that is repeated makes one volume", func(h *harness) {
		volumes := h.findVolumes()
		before := len(h.listVolumes())
		v := h.startVolume()
		h.check(volumes.CreateVolume(h.ctx(), v))
		if listed := h.listVolumes(); len(listed) != before+1 || listed[v.ID].ExternalID != v.ExternalID {
			h.t.Errorf("volumes %+v, want one more than %d", listed, before)
		}
	}},
	{"a restarted server finds its volumes", func(h *harness) {
		v := h.startVolume()
		h.reopen()
		if got := h.listVolumes()[v.ID]; got.ExternalID != v.ExternalID || got.Status != dstack.VolumeActive {
			h.t.Errorf("volume %+v, want %+v", got, v)
		}
	}},
	{"a deleted volume is gone in the end", func(h *harness) {
		volumes, v := h.findVolumes(), h.startVolume()
		for range 2 {
			h.check(volumes.DeleteVolume(h.ctx(), v))
		}
		h.waitFor("gone", func() bool {
			_, listed := h.listVolumes()[v.ID]
			return !listed
		})
		h.check(volumes.DeleteVolume(h.ctx(), v))
	}},
	{"a volume is attached once however often it is asked for", func(h *harness) {
		attacher, v := h.findAttacher(), h.startVolume()
		id, _ := h.startMachine()
		for range 2 {
			h.check(attacher.AttachVolume(h.ctx(), v, id))
		}
		if got := h.listVolumes()[v.ID]; len(got.Attachments) != 1 || !got.IsAttachedTo(id) {
			h.t.Errorf("volume %+v", got)
		}
	}},
	{"an attached volume cannot be deleted", func(h *harness) {
		attacher, v := h.findAttacher(), h.startVolume()
		id, _ := h.startMachine()
		h.check(attacher.AttachVolume(h.ctx(), v, id))
		h.expectKind(h.findVolumes().DeleteVolume(h.ctx(), v), dstack.Conflict)
		for range 2 {
			h.check(attacher.DetachVolume(h.ctx(), v, id))
		}
		if got := h.listVolumes()[v.ID]; len(got.Attachments) > 0 {
			h.t.Errorf("volume %+v", got)
		}
		h.check(h.findVolumes().DeleteVolume(h.ctx(), v))
	}},
	{"deleting a machine detaches its volumes", func(h *harness) {
		attacher, v := h.findAttacher(), h.startVolume()
		id, _ := h.startMachine()
		h.check(attacher.AttachVolume(h.ctx(), v, id))
		h.check(h.Delete(h.ctx(), id))
		h.waitUntilGone(id)
		h.waitFor("detached", func() bool { return len(h.listVolumes()[v.ID].Attachments) == 0 })
		if got, listed := h.listVolumes()[v.ID]; !listed || got.Status != dstack.VolumeActive {
			h.t.Errorf("volume %+v, listed %t", got, listed)
		}
	}},
	{"what does not exist cannot be attached", func(h *harness) {
		attacher, v := h.findAttacher(), h.startVolume()
		h.expectKind(attacher.AttachVolume(h.ctx(), v, "nobody"), dstack.NotFound)
		id, _ := h.startMachine()
		h.expectKind(attacher.AttachVolume(h.ctx(), dstack.Volume{ID: "nothing", Region: v.Region}, id), dstack.NotFound)
		h.check(attacher.DetachVolume(h.ctx(), v, "nobody"))
	}},
	{"an external volume is used and left", func(h *harness) {
		volumes := h.findVolumes()
		h.require(ExternalDisks, h.f.CreateDisk != nil)
		v := h.newVolume()
		v.IsExternal, v.ExternalID, v.SizeMiB = true, h.f.CreateDisk(h.t), 0
		h.check(volumes.CreateVolume(h.ctx(), v))
		listed := h.waitUntilActive(v.ID)
		if listed.ExternalID != v.ExternalID || !listed.IsExternal || listed.SizeMiB == 0 {
			h.t.Errorf("volume %+v", listed)
		}
		h.check(volumes.DeleteVolume(h.ctx(), v))
		again := h.newVolume() // the disk is still there
		again.IsExternal, again.ExternalID = true, v.ExternalID
		h.check(volumes.CreateVolume(h.ctx(), again))
	}},
	{"an external volume without a disk is refused", func(h *harness) {
		volumes, v := h.findVolumes(), h.newVolume()
		v.IsExternal, v.ExternalID = true, "no-such-disk"
		h.expectKind(volumes.CreateVolume(h.ctx(), v), dstack.NotFound)
	}},
}

// findVolumes returns the backend's volumes.
func (h *harness) findVolumes() backend.Volumes {
	h.t.Helper()
	volumes, ok := h.Backend.(backend.Volumes)
	h.require(Volumes, ok)
	return volumes
}

// findAttacher returns what attaches the backend's volumes.
func (h *harness) findAttacher() backend.VolumeAttacher {
	h.t.Helper()
	h.findVolumes()
	attacher, ok := h.Backend.(backend.VolumeAttacher)
	h.require(Attachments, ok)
	return attacher
}

// newVolume returns a volume to create. The case deletes it at its end.
func (h *harness) newVolume() dstack.Volume {
	h.t.Helper()
	region := h.f.Volume.Region
	if region == "" {
		region = h.findOffer(false).Region
	}
	v := dstack.Volume{
		ID: dstack.VolumeID(newID("volume")), Project: "suite", Name: "suite", Region: region, SizeMiB: 1024,
		Status: dstack.VolumeSubmitted, Configuration: h.f.Volume.Configuration,
	}
	h.volumes = append(h.volumes, v)
	return v
}

// startVolume creates a volume and waits until it is active.
func (h *harness) startVolume() dstack.Volume {
	h.t.Helper()
	volumes, v := h.findVolumes(), h.newVolume()
	h.check(volumes.CreateVolume(h.ctx(), v))
	return h.waitUntilActive(v.ID)
}

func (h *harness) waitUntilActive(id dstack.VolumeID) (v dstack.Volume) {
	h.t.Helper()
	h.waitFor("active", func() bool {
		v = h.listVolumes()[id]
		return v.Status == dstack.VolumeActive
	})
	return v
}

func (h *harness) listVolumes() map[dstack.VolumeID]dstack.Volume {
	h.t.Helper()
	listed, err := h.findVolumes().ListVolumes(h.ctx())
	h.check(err)
	return listed
}
