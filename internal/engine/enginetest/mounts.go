package enginetest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
)

func mountsHostPath(h *harness) {
	m := h.newHostPath(false)
	script := "cat " + m.Target + "/input; echo; printf 'written by the attempt' > " + m.Target + "/output"
	id := h.startAttempt(h.newSpec(script, withMounts(m)))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "written by the host")
	if err := h.Remove(h.ctx(), id); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(m.Source, "output")); err != nil || string(got) != "written by the attempt" {
		h.t.Errorf("the output on the host is %q, %v", got, err)
	}
}

func mountsReadOnly(h *harness) {
	m := h.newHostPath(true)
	script := "cat " + m.Target + "/input; echo; echo no > " + m.Target + "/output || echo cannot write"
	spec := h.newSpec(script, withMounts(m))
	if !h.f.Capabilities.Mounts {
		h.expectRefusal(spec, m.Source, "cannot be read-only")
		return
	}
	id := h.startAttempt(spec)
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "written by the host", "cannot write")
	if _, err := os.Stat(filepath.Join(m.Source, "output")); err == nil {
		h.t.Error("the attempt has written to a read-only mount")
	}
}

func refusesMissingPath(h *harness) {
	m := h.newHostPath(false)
	m.Source = filepath.Join(m.Source, "missing")
	if !h.f.Capabilities.Mounts {
		m.Target = m.Source
	}
	h.expectRefusal(h.newSpec("echo up", withMounts(m)), m.Source, "does not exist")
	if _, err := os.Stat(m.Source); err == nil {
		h.t.Error("the engine has created the host path")
	}
}

func keepsVolume(h *harness) {
	m := dstack.Mount{Kind: dstack.MountVolume, Source: "enginetest-" + uuid.NewString(), Target: "/data/volume"}
	writer := h.newSpec("echo written by the first attempt > /data/volume/file", withMounts(m))
	if h.f.KeepsNoVolumes {
		h.expectRefusal(writer, m.Source, "claims")
		return
	}
	if !h.f.Capabilities.Mounts {
		h.expectRefusal(writer, m.Source, "no volumes")
		return
	}
	h.volumes = append(h.volumes, m.Source)
	first := h.startAttempt(writer)
	h.waitForReport(first, "ended", isExited)
	if err := h.Remove(h.ctx(), first); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
	h.reopen()
	m.ReadOnly = true
	script := "cat /data/volume/file; (echo no > /data/volume/file) 2> /dev/null || echo cannot write; cat /data/volume/file"
	second := h.startAttempt(h.newSpec(script, withMounts(m)))
	h.waitForReport(second, "ended", isExited)
	got := lineTexts(h.readAllLogs(second, time.Time{}))
	const content = "written by the first attempt"
	if want := []string{content, "cannot write", content}; !slices.Equal(got, want) {
		h.t.Errorf("the output of the second attempt is %q, want %q", got, want)
	}
}

func refusesInvalidMount(h *harness) {
	host := h.newHostPath(false)
	for name, mounts := range map[string][]dstack.Mount{
		"relative target":       {{Kind: dstack.MountHostPath, Source: host.Source, Target: "data"}},
		"root as target":        {{Kind: dstack.MountHostPath, Source: host.Source, Target: "/x/.."}},
		"code folder as target": {{Kind: dstack.MountHostPath, Source: host.Source, Target: "/workflow/"}},
		"relative host path":    {{Kind: dstack.MountHostPath, Source: "data", Target: "/data"}},
		"path as volume":        {{Kind: dstack.MountVolume, Source: "/data", Target: "/data"}},
		"no volume":             {{Kind: dstack.MountVolume, Target: "/data"}},
		"unknown kind":          {{Kind: "disk", Source: "data", Target: "/data"}},
		"same target":           {host, {Kind: dstack.MountHostPath, Source: host.Source, Target: host.Target + "/"}},
	} {
		spec := h.newSpec("echo up", withMounts(mounts...))
		spec.CodeHash = codeHash
		if r := h.expectRefusal(spec, "cannot mount"); h.t.Failed() {
			h.t.Fatalf("with %s: %+v", name, r)
		}
	}
}

func withMounts(mounts ...dstack.Mount) func(*dstack.AttemptSpec) {
	return func(spec *dstack.AttemptSpec) { spec.Mounts = mounts }
}

// newHostPath returns a mount of a new folder of the host, which has a file named input.
// The target is the folder itself if the engine supports no other target.
func (h *harness) newHostPath(readOnly bool) dstack.Mount {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "input"), []byte("written by the host"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	m := dstack.Mount{Kind: dstack.MountHostPath, Source: dir, Target: dir, ReadOnly: readOnly}
	if h.f.Capabilities.Mounts {
		m.Target = "/data/host"
	}
	return m
}

// expectRefusal starts an attempt and checks that it is refused permanently, with an error
// that contains all of the texts.
func (h *harness) expectRefusal(spec dstack.AttemptSpec, texts ...string) dstack.Report {
	h.t.Helper()
	r := h.waitForReport(h.startAttempt(spec), "over", isOver)
	if r.State != dstack.AttemptRefused || !r.Permanent {
		h.t.Errorf("the attempt is not refused permanently: %+v", r)
	}
	for _, text := range texts {
		if !strings.Contains(r.Error, text) {
			h.t.Errorf("the error %q does not contain %q", r.Error, text)
		}
	}
	return r
}
