package store_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

func (h *fixture) newVolume(name string) dstack.Volume {
	size := spec.GB(10)
	return dstack.Volume{
		ID: dstack.VolumeID(uuid.NewString()), Project: h.project.ID, Name: name, User: "alice", Backend: "local-docker", Instance: "here",
		Machine: "box", Host: "host-1", Region: "local", SizeMiB: 10 << 10, Status: dstack.VolumeSubmitted,
		Configuration: spec.Volume{Name: spec.Text(name), Backend: "local", Size: &size},
	}
}

// claimVolume claims the only volume that is due.
func (h *fixture) claimVolume(host string, now time.Time) (leases []store.Lease) {
	h.t.Helper()
	leases, err := h.s.Claim(h.ctx(), store.Volumes, "host-1/1", host, now, time.Minute, 10)
	h.noError(err)
	return leases
}

func TestVolumes_FromCreationToDeletion(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		v := h.newVolume("data")
		h.noError(h.s.CreateVolume(t.Context(), v, t0))
		h.wantKind(dstack.Conflict, h.s.CreateVolume(t.Context(), h.newVolume("data"), t0))
		if leases := h.claimVolume("host-2", t0); len(leases) > 0 {
			t.Errorf("another host claims %+v, which it cannot reach", leases)
		}
		lease := h.claimVolume("host-1", t0)[0]
		seen, err := h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		if seen.ProjectName != "Main" || seen.Machine != "box" || *seen.Configuration.Size != 10 || !seen.CreatedAt.Equal(t0) || seen.Status != dstack.VolumeSubmitted {
			t.Errorf("got %+v", seen)
		}
		created := dstack.Volume{ExternalID: "dstack-data-1", Warning: "may grow"}
		h.noError(h.s.SaveVolumeStep(t.Context(), lease, seen, volume.Step{To: dstack.VolumeActive, Created: &created, Due: t0.Add(time.Minute)}, t0.Add(time.Second)))
		h.wantKind(dstack.Conflict, h.s.SaveVolumeStep(t.Context(), lease, seen, volume.Step{To: dstack.VolumeFailed}, t0))
		seen, err = h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		seen.Status, seen.Instance, seen.Machine = dstack.VolumeSubmitted, "there", "other"
		h.noError(h.s.ResubmitVolume(t.Context(), seen, t0.Add(time.Second)))
		h.wantKind(dstack.Conflict, h.s.ResubmitVolume(t.Context(), seen, t0))
		h.restart()

		rs := runSpec("web")
		rs.Configuration.Volumes = []spec.Mount{{Name: "other", OtherNames: []string{"data"}, Path: "/d"}}
		run := h.submitted(rs, t0)
		list, err := h.s.Volumes(t.Context(), h.project.ID)
		h.noError(err)
		if len(list) != 1 || !slices.Equal(list[0].Runs, []string{"web"}) || list[0].ExternalID != "dstack-data-1" || list[0].SizeMiB != 0 ||
			list[0].Warning != "may grow" || !list[0].Since.Equal(t0.Add(time.Second)) {
			t.Errorf("got %+v", list)
		}
		if plain, err := h.s.ReadVolumes(t.Context(), h.project.ID); err != nil || len(plain) != 1 || plain[0].Runs != nil {
			t.Errorf("got %+v, %v", plain, err)
		}
		err = h.s.DeleteVolumes(t.Context(), h.project.ID, []string{"data"}, "bob", t0)
		if h.wantKind(dstack.Conflict, err); !strings.Contains(err.Error(), "the run web uses it") {
			t.Error(err)
		}
		h.wantKind(dstack.NotFound, h.s.DeleteVolumes(t.Context(), h.project.ID, []string{"data", "nothing"}, "bob", t0))
		h.finish(run.ID, t0)
		h.wantKind(dstack.Conflict, h.s.DeleteProjects(t.Context(), []string{"main"}))
		h.noError(h.s.DeleteVolumes(t.Context(), h.project.ID, []string{"data"}, "bob", t0.Add(2*time.Second)))
		lease = h.claimVolume("host-1", t0.Add(2*time.Second))[0]
		seen, err = h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		if seen.Status != dstack.VolumeDeleting || seen.Reason != "deleted by bob" {
			t.Errorf("got %+v", seen)
		}
		if ids, err := h.s.VolumesOn(t.Context(), "there"); err != nil || !slices.Equal(ids, []dstack.VolumeID{v.ID}) {
			t.Errorf("on the machine: %v, %v", ids, err)
		}
		h.noError(h.s.SaveVolumeStep(t.Context(), lease, seen, volume.Step{To: dstack.VolumeDeleting, IsGone: true}, t0))
		_, err = h.s.Volume(t.Context(), v.ID)
		h.wantKind(dstack.NotFound, err)
		h.noError(h.s.CreateVolume(t.Context(), h.newVolume("data"), t0.Add(time.Minute)))
		h.noError(h.s.CreateVolume(t.Context(), h.newVolume("more"), t0.Add(time.Hour)))
		if all, err := h.s.VolumesOf(t.Context(), h.project.ID); err != nil || len(all) != 2 || all[0].Name != "more" {
			t.Errorf("newest first: %+v, %v", all, err)
		}
	})
}

// Which machines can mount a volume is kept with it, and leaves with it.
func TestVolumes_Reach(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		v := h.newVolume("data")
		v.Instance, v.Host, v.Configuration.Backend = "", "", "kubernetes"
		h.noError(h.s.CreateVolume(t.Context(), v, t0))
		for i, reach := range []dstack.Reach{
			{AccessModes: []string{"ReadWriteOnce"}},
			{AccessModes: []string{"ReadWriteOnce"}, IsLimited: true, Machines: []dstack.InstanceID{"k1"}, Place: "k1"},
		} {
			at := t0.Add(time.Duration(i) * time.Second)
			lease := h.claimVolume("host-1", at)[0]
			seen, err := h.s.Volume(t.Context(), v.ID)
			h.noError(err)
			step := volume.Step{To: dstack.VolumeActive, Created: &dstack.Volume{ExternalID: "c", Reach: reach}, Due: at.Add(time.Second)}
			h.noError(h.s.SaveVolumeStep(t.Context(), lease, seen, step, at))
			got, err := h.s.Volume(t.Context(), v.ID)
			if h.noError(err); !reflect.DeepEqual(got.Reach, reach) {
				t.Errorf("got %+v, not %+v", got.Reach, reach)
			}
		}
		at := t0.Add(2 * time.Second)
		lease := h.claimVolume("host-1", at)[0]
		seen, err := h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		h.noError(h.s.SaveVolumeStep(t.Context(), lease, seen, volume.Step{To: dstack.VolumeDeleting, IsGone: true}, at))
		_, err = h.s.Volume(t.Context(), v.ID)
		h.wantKind(dstack.NotFound, err)
	})
}

// A deletion that is requested while a pass works on the volume is not lost.
func TestDeleteVolumes_DuringAPass(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		v := h.newVolume("data")
		h.noError(h.s.CreateVolume(t.Context(), v, t0))
		lease := h.claimVolume("host-1", t0)[0]
		seen, err := h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		h.noError(h.s.DeleteVolumes(t.Context(), h.project.ID, []string{"data"}, "bob", t0))
		h.wantKind(dstack.Conflict, h.s.SaveVolumeStep(t.Context(), lease, seen, volume.Step{To: dstack.VolumeActive}, t0))
		h.noError(h.s.Release(t.Context(), lease, t0))
		if again := h.claimVolume("host-1", t0); len(again) != 1 {
			t.Errorf("the deletion is not due: %v", again)
		}
	})
}
