package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// createDisk submits a volume of a cloud.
func (r *rig) createDisk(name, region string) dstack.VolumeID {
	r.t.Helper()
	v := dstack.Volume{
		ID: dstack.VolumeID(uuid.NewString()), Project: r.project.ID, Name: name, User: "admin", Backend: "aws", Machine: "aws", Region: region,
		SizeMiB: 1024, Status: dstack.VolumeSubmitted, Configuration: spec.Volume{Name: spec.Text(name), Backend: "aws", Region: region, Size: new(spec.GB(1))},
	}
	if err := r.store.CreateVolume(r.t.Context(), v, time.Now()); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
	return v.ID
}

func (r *rig) stopRun(id dstack.RunID) {
	r.t.Helper()
	if err := r.store.StopRun(r.t.Context(), id, dstack.StopGraceful, "admin", time.Now()); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
}

// A disk is attached before the replica starts, stays for its successor, and is taken off when the run ends.
func TestPasses_ADiskFollowsItsReplica(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("aws", backendtest.Latency{Running: 100 * time.Millisecond})
	c.SetFaults(backendtest.Faults{Attach: &dstack.Error{Kind: dstack.Unavailable, Message: "the cloud limits the rate of requests"}})
	r.begin(lifecycle.Limits{})
	id := r.createDisk("data", "north")
	r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))

	run := r.submitLike(mountsData)
	r.until(run, "waiting for the disk", func(w store.RunDetails) bool {
		return len(w.Replicas) == 1 && strings.Contains(string(w.Replicas[0].Reason), "waits for the volume data: the cloud limits the rate of requests")
	})
	attached := r.untilVolume(id, "about to be attached", func(v dstack.Volume) bool { return len(v.Attachments) == 1 })
	if attached.Attachments[0].IsReady || attached.IsFormatted {
		t.Errorf("the disk is not attached yet: %+v", attached)
	}
	c.SetFaults(backendtest.Faults{})
	r.until(run, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
	attached = r.untilVolume(id, "attached", func(v dstack.Volume) bool { return v.IsFormatted })
	machine := attached.Attachments[0].Instance
	c.mu.Lock()
	eng := c.engines[machine]
	c.mu.Unlock()
	eng.with(func(e *fakeEngine) {
		want := []dstack.Mount{{Kind: dstack.MountHostPath, Source: attached.MountPoint(), Target: "/d"}}
		for _, a := range e.attempts {
			if !slices.Equal(a.spec.Mounts, want) {
				t.Errorf("the engine mounts %+v", a.spec.Mounts)
			}
		}
	})
	err := r.store.DeleteVolumes(t.Context(), r.project.ID, []string{"data"}, "admin", time.Now())
	if dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("a volume in use was deleted: %v", err)
	}

	r.stopRun(run)
	r.untilVolume(id, "detached", func(v dstack.Volume) bool { return len(v.Attachments) == 0 })
	listed, err := c.ListVolumes(t.Context())
	if err != nil || len(listed[id].Attachments) > 0 {
		t.Errorf("the cloud has %+v, %v", listed[id], err)
	}
	if err := r.store.DeleteVolumes(t.Context(), r.project.ID, []string{"data"}, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.wake()
	r.untilVolume(id, "gone", func(v dstack.Volume) bool { return v.ID == "" })
}

// A new revision waits for the disk until its predecessor gave it back: the disk is never on two machines.
func TestPasses_ADiskIsOnOneMachineAtATime(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("aws", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	id := r.createDisk("data", "north")
	r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))
	first := r.submitLike(mountsData, "first")
	r.until(first, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
	second := r.submitLike(func(s *spec.Service) {
		mountsData(s)
		s.Retry = &spec.Retry{OnEvents: []string{spec.EventNoCapacity}}
	}, "second")
	r.until(second, "waiting", func(w store.RunDetails) bool {
		return len(w.Replicas) == 1 && strings.Contains(string(w.Replicas[0].Reason), "first mounts it")
	})
	if machines := len(c.Existing()); machines != 1 {
		t.Errorf("%d machines are rented", machines)
	}
	r.stopRun(first)
	r.until(second, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
}

// A disk is free as soon as the machine that had it has ended, before the row of that machine is deleted.
func TestPasses_ADiskIsFreeWhenItsMachineHasEnded(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("aws", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	id := r.createDisk("data", "north")
	r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))
	run := r.submitLike(mountsData)
	r.until(run, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
	machine := r.untilVolume(id, "attached", func(v dstack.Volume) bool { return v.IsFormatted }).Attachments[0].Instance
	seen, err := r.store.InstanceFacts(t.Context(), machine)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	seen.Listed, seen.Machine = true, nil
	seen.Instance.Status, seen.Instance.LastResponseAt, seen.Instance.CheckedAt = dstack.InstanceDeleting, now, now
	if err := c.Delete(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	for _, unlisted := range []time.Duration{10 * time.Second, 21 * time.Second} {
		seen.Instance.UnlistedSince = now.Add(-unlisted)
		if err := r.passes.DetachFromEnded(t.Context(), c, seen, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		attached, err := r.store.AttachedVolumes(t.Context(), machine)
		if isFree := len(attached) == 0; err != nil || isFree != (unlisted > 20*time.Second) {
			t.Errorf("not listed for %s: attached %+v, %v", unlisted, attached, err)
		}
	}
}

// A disk in another zone than a machine is refused before anything is rented.
func TestPasses_ADiskPinsTheZone(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("aws", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	id := r.createDisk("data", "south")
	r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))
	run := r.submitLike(func(s *spec.Service) {
		mountsData(s)
		s.Retry = &spec.Retry{OnEvents: []string{spec.EventNoCapacity}}
	})
	r.until(run, "waiting", func(w store.RunDetails) bool {
		return len(w.Replicas) == 1 && strings.Contains(string(w.Replicas[0].Reason), "the volume data is in south of aws")
	})
	if machines := len(c.Existing()); machines != 0 {
		t.Errorf("%d machines are rented", machines)
	}
}
