package reconcile_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

var _ engine.Volumes = (*fakeEngine)(nil)

func (e *fakeEngine) CreateVolume(_ context.Context, v dstack.Volume) (dstack.Volume, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.silent {
		return v, errSilent
	}
	if e.kept == nil {
		e.kept = map[dstack.VolumeID]dstack.Volume{}
	}
	v.ExternalID, v.SizeMiB, v.Warning = "fake-"+v.Name, 0, "may grow"
	e.kept[v.ID] = v
	return v, nil
}

func (e *fakeEngine) DeleteVolume(_ context.Context, v dstack.Volume) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.silent:
		return errSilent
	case e.mounted:
		return &dstack.Error{Kind: dstack.Conflict, Message: "a container mounts it"}
	}
	delete(e.kept, v.ID)
	return nil
}

func (e *fakeEngine) ListVolumes(context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.silent {
		return nil, errSilent
	}
	listed := map[dstack.VolumeID]dstack.Volume{}
	for id, v := range e.kept {
		listed[id] = v
	}
	return listed, nil
}

// createVolume submits a volume on the machine of the rig.
func (r *rig) createVolume(name string) dstack.VolumeID {
	r.t.Helper()
	v := dstack.Volume{
		ID: dstack.VolumeID(uuid.NewString()), Project: r.project.ID, Name: name, User: "admin", Backend: "local", Instance: "this", Machine: "box",
		Host: "here", Region: "local", SizeMiB: 1024, Status: dstack.VolumeSubmitted, Configuration: spec.Volume{Name: spec.Text(name), Backend: "local", Size: new(spec.GB(1))},
	}
	if err := r.store.CreateVolume(r.t.Context(), v, time.Now()); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
	return v.ID
}

// untilVolume waits until a volume is as wanted.
func (r *rig) untilVolume(id dstack.VolumeID, what string, ok func(dstack.Volume) bool) (v dstack.Volume) {
	r.t.Helper()
	r.waitFor(what, func() (done bool) {
		v, _ = r.store.Volume(r.t.Context(), id)
		return ok(v)
	})
	return v
}

// checkVolume makes a volume due, as it is each minute.
func (r *rig) checkVolume(id dstack.VolumeID) {
	r.t.Helper()
	if err := r.store.MarkDue(r.t.Context(), store.Volumes, string(id), time.Now()); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
}

func hasStatus(status dstack.VolumeStatus) func(dstack.Volume) bool {
	return func(v dstack.Volume) bool { return v.Status == status }
}

func mountsData(s *spec.Service) { s.Volumes = []spec.Mount{{Name: "data", Path: "/d"}} }

func TestPasses_AVolumeLives(t *testing.T) {
	r := newRig(t)
	r.engine.with(func(e *fakeEngine) { e.silent = true })
	r.begin(lifecycle.Limits{})
	id := r.createVolume("data")
	waiting := r.untilVolume(id, "waiting for the machine", func(v dstack.Volume) bool { return v.Failures > 0 })
	if waiting.Status != dstack.VolumeProvisioning || !strings.Contains(string(waiting.Reason), "waits for box") {
		t.Errorf("%+v", waiting)
	}
	r.engine.with(func(e *fakeEngine) { e.silent = false })
	active := r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))
	if active.ExternalID != "fake-data" || active.Warning != "may grow" || active.Reason != "" {
		t.Errorf("%+v", active)
	}

	run := r.submitLike(mountsData)
	w := r.until(run, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
	want := []dstack.Mount{{Kind: dstack.MountVolume, Source: "fake-data", Target: "/d", IsKept: true}}
	if got := r.attemptSpec(w).Mounts; !slices.Equal(got, want) {
		t.Errorf("the engine mounts %+v", got)
	}

	r.engine.with(func(e *fakeEngine) { e.kept = nil })
	r.checkVolume(id)
	if lost := r.untilVolume(id, "failed", hasStatus(dstack.VolumeFailed)); !strings.Contains(string(lost.Reason), "its data is lost") {
		t.Errorf("%+v", lost)
	}
	r.engine.with(func(e *fakeEngine) { e.kept = map[dstack.VolumeID]dstack.Volume{id: active} })
	r.checkVolume(id)
	r.untilVolume(id, "found again", hasStatus(dstack.VolumeActive))
}

// A deletion waits until nothing mounts the volume any more.
func TestPasses_ADeletedVolumeGoes(t *testing.T) {
	r := newRig(t)
	r.engine.with(func(e *fakeEngine) { e.mounted = true })
	r.begin(lifecycle.Limits{})
	id := r.createVolume("data")
	r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))
	if err := r.store.DeleteVolumes(t.Context(), r.project.ID, []string{"data"}, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.wake()
	r.untilVolume(id, "waiting", func(v dstack.Volume) bool { return strings.Contains(string(v.Reason), "a container mounts it") })
	r.engine.with(func(e *fakeEngine) { e.mounted = false })
	r.untilVolume(id, "gone", func(v dstack.Volume) bool { return v.ID == "" })
	r.engine.with(func(e *fakeEngine) {
		if len(e.kept) > 0 {
			t.Errorf("the engine still has %+v", e.kept)
		}
	})
}

// A replica waits for a volume that is not active yet, and says so.
func TestPasses_AReplicaWaitsForItsVolume(t *testing.T) {
	r := newRig(t)
	r.engine.with(func(e *fakeEngine) { e.silent = true })
	r.begin(lifecycle.Limits{})
	id := r.createVolume("data")
	run := r.submitLike(func(s *spec.Service) {
		mountsData(s)
		s.Retry = &spec.Retry{OnEvents: []string{spec.EventNoCapacity}}
	})
	r.until(run, "waiting", func(w store.RunDetails) bool {
		return len(w.Replicas) == 1 && strings.Contains(string(w.Replicas[0].Reason), "the volume data is not ready on box yet")
	})
	r.engine.with(func(e *fakeEngine) { e.silent = false })
	r.untilVolume(id, "active", hasStatus(dstack.VolumeActive))
	r.until(run, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
}

// A volume that its backend has, and no machine, is created by it, looked at until it is bound, mounted as a claim and deleted.
func TestPasses_AVolumeOfAClusterLives(t *testing.T) {
	r := newRig(t)
	cluster := backendtest.NewFake(backendtest.FakeOptions{
		Latency: backendtest.Latency{Running: 200 * time.Millisecond},
		Offers: []dstack.Offer{{
			Backend: "kubernetes", Region: "cluster", Type: "k1", OwnedInstance: "node", Key: "kubernetes", IsRemote: true, IsManaged: true,
			Hardware: dstack.Hardware{CPUs: 2, MemoryMiB: 4096, DiskMiB: 10240}, Engine: containers,
		}},
		NewEngine: func(dstack.InstanceID) engine.Engine { return r.engine },
	})
	cluster.SetFaults(backendtest.Faults{List: errSilent})
	r.set.Add("main", "kubernetes", cluster)
	r.begin(lifecycle.Limits{})
	v := dstack.Volume{ID: dstack.VolumeID(uuid.NewString()), Project: r.project.ID, Name: "data", User: "admin", Backend: "kubernetes", Machine: "kubernetes",
		Region: "cluster", SizeMiB: 1024, Status: dstack.VolumeSubmitted, Configuration: spec.Volume{Name: "data", Backend: "kubernetes", Size: new(spec.GB(1))}}
	if err := r.store.CreateVolume(t.Context(), v, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.wake()
	r.untilVolume(v.ID, "waiting for the cluster", func(v dstack.Volume) bool {
		return strings.Contains(string(v.Reason), "waits for the cluster kubernetes")
	})
	cluster.SetFaults(backendtest.Faults{})
	active := r.untilVolume(v.ID, "active", hasStatus(dstack.VolumeActive))
	if active.ExternalID != "disk-"+string(v.ID) {
		t.Errorf("%+v", active)
	}
	run := r.submitLike(mountsData)
	w := r.until(run, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 })
	want := []dstack.Mount{{Kind: dstack.MountClaim, Source: active.ExternalID, Target: "/d", OneNode: true}}
	if got := r.attemptSpec(w).Mounts; w.Replicas[0].Instance != "node" || !slices.Equal(got, want) {
		t.Errorf("on %s the engine mounts %+v", w.Replicas[0].Instance, got)
	}
	cluster.SetFaults(backendtest.Faults{List: errSilent})
	r.checkVolume(v.ID)
	if away := r.untilVolume(v.ID, "not answering", func(v dstack.Volume) bool { return v.Failures > 0 }); away.Status != dstack.VolumeActive {
		t.Errorf("a cluster that does not answer loses nothing: %+v", away)
	}
}
