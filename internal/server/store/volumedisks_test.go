package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// A disk is on one machine at a time, from the intent until the machine gave it back or does not exist any more.
func TestVolumes_AttachmentsOfDisks(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		size := spec.GB(10)
		v := dstack.Volume{
			ID: dstack.VolumeID(uuid.NewString()), Project: h.project.ID, Name: "data", User: "alice", Backend: "aws", Machine: "aws", Region: "eu",
			SizeMiB: 10 << 10, Status: dstack.VolumeSubmitted,
			Configuration: spec.Volume{Name: "data", Backend: "aws", Region: "eu", Size: &size, LaterVolume: spec.LaterVolume{Zone: "eu-b"}},
		}
		h.noError(h.s.CreateVolume(t.Context(), v, t0))
		seen, err := h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		if seen.Zone != "eu-b" || seen.IsFormatted || len(seen.Attachments) != 0 {
			t.Errorf("a new volume is %+v", seen)
		}
		created := dstack.Volume{ExternalID: "vol-1", SizeMiB: 10 << 10, Zone: "eu-b", Price: 0.8}
		lease := h.claimVolume("host-1", t0)[0]
		h.noError(h.s.SaveVolumeStep(t.Context(), lease, seen, volume.Step{To: dstack.VolumeActive, Created: &created, Due: t0.Add(time.Minute)}, t0))

		h.noError(h.s.BeginAttachment(t.Context(), v, "one", t0))
		h.noError(h.s.BeginAttachment(t.Context(), v, "one", t0))
		h.wantKind(dstack.Conflict, h.s.BeginAttachment(t.Context(), v, "two", t0))
		h.noError(h.s.FinishAttachment(t.Context(), v, "one"))
		if err := h.s.FinishAttachment(t.Context(), v, "two"); err == nil {
			t.Error("a volume is mounted where it is not attached")
		}
		h.restart()
		on, err := h.s.AttachedVolumes(t.Context(), "one")
		h.noError(err)
		if len(on) != 1 || !on[0].IsFormatted || !on[0].Attachments[0].IsReady || on[0].Price != 0.8 || on[0].Zone != "eu-b" {
			t.Errorf("attached: %+v", on)
		}
		h.noError(h.s.EndAttachment(t.Context(), v.ID, "two", t0))
		h.wantKind(dstack.Conflict, h.s.BeginAttachment(t.Context(), v, "two", t0))
		h.noError(h.s.EndAttachment(t.Context(), v.ID, "one", t0))
		h.noError(h.s.BeginAttachment(t.Context(), v, "two", t0))
		seen, err = h.s.Volume(t.Context(), v.ID)
		h.noError(err)
		if !seen.IsFormatted || seen.Attachments[0].Instance != "two" || seen.Attachments[0].IsReady {
			t.Errorf("attached again: %+v", seen)
		}
	})
}
