package enginetest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// volumeTarget is a path that all engines can mount a volume at.
const volumeTarget = dstack.CodeFolder + "/kept/data"

// useVolumes returns the volumes of the engine.
func (h *harness) useVolumes() engine.Volumes {
	h.t.Helper()
	volumes, ok := h.Engine.(engine.Volumes)
	if !ok {
		h.t.Fatal("the engine keeps no volumes")
	}
	return volumes
}

// createVolume creates a volume, which is deleted at the end of the case, and returns it with a mount of it.
func (h *harness) createVolume(volumes engine.Volumes, v dstack.Volume) (dstack.Volume, dstack.Mount) {
	h.t.Helper()
	v.ID, v.Name, v.ProjectName = dstack.VolumeID(uuid.NewString()), "suite", "main"
	created, err := volumes.CreateVolume(h.ctx(), v)
	if err != nil {
		h.t.Fatalf("create a volume: %v", err)
	}
	h.kept = append(h.kept, created)
	return created, dstack.Mount{Kind: dstack.MountVolume, Source: created.ExternalID, Target: volumeTarget, IsKept: true}
}

// deleteKept deletes the volumes of the case.
func (h *harness) deleteKept(t *testing.T, e engine.Engine) {
	for _, v := range h.kept {
		if err := e.(engine.Volumes).DeleteVolume(h.ctx(), v); err != nil {
			t.Errorf("delete the volume %s: %v", v.ID, err)
		}
	}
}

func keepsCreatedVolume(h *harness) {
	if h.f.KeepsNoVolumes {
		return
	}
	v, m := h.createVolume(h.useVolumes(), dstack.Volume{})
	writer := h.newSpec("echo written by the first attempt > "+volumeTarget+"/file", withMounts(m), inCodeFolder)
	first := h.startAttempt(h.relative(writer))
	h.waitForReport(first, "ended", isExited)
	if err := h.Remove(h.ctx(), first); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
	h.reopen()
	if listed, err := h.useVolumes().ListVolumes(h.ctx()); err != nil || listed[v.ID].ExternalID != v.ExternalID || listed[v.ID].Name != "suite" {
		h.t.Errorf("a reopened engine lists %+v, %v", listed, err)
	}
	second := h.startAttempt(h.relative(h.newSpec("cat "+volumeTarget+"/file; cat app/hello.txt; echo", withMounts(m), inCodeFolder)))
	h.waitForReport(second, "ended", isExited)
	got := lineTexts(h.readAllLogs(second, time.Time{}))
	if want := []string{"written by the first attempt", "hello from the folder"}; !slices.Equal(got, want) {
		h.t.Errorf("the output of the second attempt is %q, want %q", got, want)
	}
}

// inCodeFolder makes an attempt run in the folder of its code.
func inCodeFolder(spec *dstack.AttemptSpec) { spec.CodeHash, spec.WorkingDir = codeHash, "." }

// relative replaces the path of the volume by one relative to the code folder: only containers have absolute ones.
func (h *harness) relative(spec dstack.AttemptSpec) dstack.AttemptSpec {
	spec.Script = strings.ReplaceAll(spec.Script, volumeTarget, "kept/data")
	for i, arg := range spec.Argv {
		spec.Argv[i] = strings.ReplaceAll(arg, volumeTarget, "kept/data")
	}
	return spec
}

func createsVolumeOnce(h *harness) {
	if h.f.KeepsNoVolumes {
		return
	}
	volumes := h.useVolumes()
	before, err := volumes.ListVolumes(h.ctx())
	if err != nil {
		h.t.Fatal(err)
	}
	v, _ := h.createVolume(volumes, dstack.Volume{SizeMiB: 64})
	if v.SizeMiB == 0 && v.Warning == "" {
		h.t.Error("nothing says that the size of the volume is not enforced")
	}
	again := v
	again.ExternalID, again.Warning, again.SizeMiB = "", "", 64
	if again, err = volumes.CreateVolume(h.ctx(), again); err != nil || again.ExternalID != v.ExternalID || again.SizeMiB != v.SizeMiB || again.Warning != v.Warning {
		h.t.Errorf("created again: %+v, %v; not %+v", again, err, v)
	}
	if after, err := volumes.ListVolumes(h.ctx()); err != nil || len(after) != len(before)+1 {
		h.t.Errorf("%d volumes before, now %+v, %v", len(before), after, err)
	}
}

func refusesLostVolume(h *harness) {
	if h.f.KeepsNoVolumes {
		return
	}
	volumes := h.useVolumes()
	v, m := h.createVolume(volumes, dstack.Volume{})
	for range 2 { // also when it does not exist
		if err := volumes.DeleteVolume(h.ctx(), v); err != nil {
			h.t.Fatal(err)
		}
	}
	if listed, err := volumes.ListVolumes(h.ctx()); err != nil || listed[v.ID].ID != "" {
		h.t.Errorf("still listed: %+v, %v", listed, err)
	}
	h.expectRefusal(h.newSpec("echo up", withMounts(m)), "does not exist on the machine any more")
	if listed, err := volumes.ListVolumes(h.ctx()); err != nil || listed[v.ID].ID != "" {
		h.t.Errorf("the attempt has made an empty volume: %+v, %v", listed, err)
	}
}

func keepsMountedVolume(h *harness) {
	if h.f.KeepsNoVolumes {
		return
	}
	volumes := h.useVolumes()
	v, m := h.createVolume(volumes, dstack.Volume{})
	id := h.startAttempt(h.newSpec("sleep 1000", withMounts(m)))
	h.waitForReport(id, "running", isRunning)
	if err := volumes.DeleteVolume(h.ctx(), v); dstack.KindOf(err) != dstack.Conflict {
		h.t.Errorf("deleted while an attempt mounts it: %v", err)
	}
	if listed, err := volumes.ListVolumes(h.ctx()); err != nil || listed[v.ID].ID != v.ID {
		h.t.Errorf("listed: %+v, %v", listed, err)
	}
}

func usesExternalVolume(h *harness) {
	if h.f.KeepsNoVolumes {
		return
	}
	volumes := h.useVolumes()
	dir := h.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "input"), []byte("written by the host\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	v, _ := h.createVolume(volumes, dstack.Volume{IsExternal: true, ExternalID: dir})
	m := dstack.Mount{Kind: dstack.MountHostPath, Source: dir, Target: volumeTarget}
	id := h.startAttempt(h.relative(h.newSpec("cat "+volumeTarget+"/input", withMounts(m), inCodeFolder)))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "written by the host")
	if err := volumes.DeleteVolume(h.ctx(), v); err != nil {
		h.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "input")); err != nil {
		h.t.Errorf("deleting the volume has deleted the data of the user: %v", err)
	}
	missing := filepath.Join(dir, "missing")
	_, err := volumes.CreateVolume(h.ctx(), dstack.Volume{ID: "external", Name: "missing", IsExternal: true, ExternalID: missing})
	if dstack.KindOf(err) != dstack.NotFound || !strings.Contains(err.Error(), missing) {
		h.t.Errorf("a missing folder: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		h.t.Error("the engine has created the folder")
	}
}

func leavesOutOptionalPath(h *harness) {
	missing := dstack.Mount{Kind: dstack.MountHostPath, Source: h.t.TempDir() + "/missing", Target: dstack.CodeFolder + "/optional", Optional: true}
	id := h.startAttempt(h.newSpec("echo up", withMounts(missing)))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "up")
}
