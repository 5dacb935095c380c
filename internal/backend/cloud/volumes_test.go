package cloud

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

// startOn rents a machine in a zone, and waits until it runs.
func (r *rig) startOn(id dstack.InstanceID, zone string) {
	r.t.Helper()
	offer := dstack.Offer{Backend: "aws", Key: "aws", Region: "north", Zone: zone, Type: "small", Hardware: dstack.Hardware{CPUs: 2, DiskMiB: 100 << 10}}
	if err := r.Create(r.t.Context(), backend.CreateRequest{Instance: id, Offer: offer}); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		machines, err := r.Machines(r.t.Context())
		if err == nil && machines[id].IsAlive() {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s does not run: %+v, %v", id, machines[id], err)
		}
	}
}

// newDiskVolume makes a volume in zone north-a.
func (r *rig) newDiskVolume(id string) dstack.Volume {
	r.t.Helper()
	v := dstack.Volume{ID: dstack.VolumeID(id), Name: id, Region: "north", Zone: "north-a", SizeMiB: 1024}
	if err := r.CreateVolume(r.t.Context(), v); err != nil {
		r.t.Fatal(err)
	}
	listed, err := r.ListVolumes(r.t.Context())
	if err != nil || listed[v.ID].ExternalID == "" || listed[v.ID].Zone != "north-a" || listed[v.ID].Price == 0 {
		r.t.Fatalf("%+v, %v", listed, err)
	}
	v.ExternalID = listed[v.ID].ExternalID
	return v
}

func TestVolumes_ADiskOfAnEndedMachineIsTakenOver(t *testing.T) {
	r := newRig(t)
	r.account.SetLatency(cloudtest.Latency{Attached: 5 * time.Millisecond})
	r.open()
	v := r.newDiskVolume("data")
	r.startOn("one", "north-a")
	r.startOn("two", "north-a")
	r.startOn("far", "north-b")
	if err := r.AttachVolume(t.Context(), v, "one"); err != nil {
		t.Fatal(err)
	}
	if err := r.AttachVolume(t.Context(), v, "two"); dstack.KindOf(err) != dstack.Conflict || !strings.Contains(err.Error(), "attached to another machine") {
		t.Errorf("while the first machine runs: %v", err)
	}
	if err := r.AttachVolume(t.Context(), v, "far"); dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "in north-a, and the machine in north-b") {
		t.Errorf("in another zone: %v", err)
	}
	if err := r.DeleteVolume(t.Context(), v); dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("deleted while it is attached: %v", err)
	}
	for _, m := range r.account.Alive() {
		if m.Instance == "one" {
			r.account.End(m.Ref, nil)
		}
	}
	if err := r.AttachVolume(t.Context(), v, "two"); err != nil {
		t.Errorf("after the first machine ended: %v", err)
	}
}

// Only a new disk of dstack's own may be formatted, and only before it was.
func TestVolumes_WhichDisksMayBeFormatted(t *testing.T) {
	r := newRig(t)
	r.open()
	r.startOn("one", "north-a")
	own, formatted := r.newDiskVolume("own"), r.newDiskVolume("formatted")
	formatted.IsFormatted = true
	external := dstack.Volume{ID: "external", Name: "external", Region: "north", IsExternal: true, ExternalID: r.account.AddDisk("north", "north-a", 2048)}
	for _, v := range []dstack.Volume{own, formatted, external} {
		if err := r.AttachVolume(t.Context(), v, "one"); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"may_format='yes'", "may_format='no'", "may_format='no'"} {
		if script := r.remote.scripts[i]; !strings.Contains(script, want) || !strings.Contains(script, "folder='/run/dstack/volumes/") {
			t.Errorf("the script %d begins %.300s", i, script)
		}
	}
	r.remote.change(func() { r.remote.answer = "wait the volume is still in use there" })
	if err := r.DetachVolume(t.Context(), own, "one"); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("a busy volume was taken off: %v", err)
	}
	if listed, err := r.ListVolumes(t.Context()); err != nil || !listed["own"].IsAttachedTo("one") {
		t.Errorf("%+v, %v", listed["own"], err)
	}
	r.remote.change(func() { r.remote.answer = "unmounted" })
	if err := r.DetachVolume(t.Context(), own, "one"); err != nil {
		t.Error(err)
	}
}
