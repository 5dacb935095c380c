package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

const volumeFile = "type: volume\nname: my-new-volume\nbackend: local\nsize: 1GB\n"

// serviceWithVolume is the example of the documentation of 0.18.10, with a line in the volume for each start.
func serviceWithVolume(path, log string) string {
	return fmt.Sprintf("type: service\nname: http-server-service\ncommands:\n- echo started >> %s\n- python3 -m http.server $PORT\nport: auto\n"+
		"volumes:\n- name: my-new-volume\n  path: %s\n", log, path)
}

// The data of a volume survives the run, its container and the server, and nobody deletes it while a run uses it.
func TestVolumes(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		log := "/volume_data/log"
		dir := h.newFolder(serviceWithVolume("/volume_data", log))
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y").expectError(2, "there is no volume my-new-volume in project main")
		v := h.applyVolume(volumeFile)
		if v.State != dstack.VolumeActive || v.Warning == "" && v.EnforcedMiB == 0 {
			t.Errorf("%+v", v)
		}
		if again := h.applyVolume(volumeFile); again.ID != v.ID {
			t.Errorf("applied again: %+v", again)
		}
		h.tryVolume(strings.Replace(volumeFile, "1GB", "2GB", 1)).expectError(1, "size is 1GB, not 2GB")
		if engine == "process" {
			h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y").expectError(4, "plain processes, which have no files outside of their folder",
				"/volume_data is outside")
			log = "data/log"
			dir = h.newFolder(serviceWithVolume("/workflow/data", log))
		}
		h.applyAndWait(dir)
		h.runCLI("volume", "delete", "my-new-volume", "-y").expectError(1, "it is used by http-server-service")
		h.runCLI("volume", "list", "-v").expectExit(0).expectText("my-new-volume", "http-server-service", "not enforced")
		h.stopRun("http-server-service")
		h.killServer()
		h.startServer()
		h.applyAndWait(dir, "--name", "again")
		if got := h.runCLI("exec", "again", "--", "cat", log).expectExit(0).out; strings.ReplaceAll(got, "\r", "") != "started\nstarted\n" {
			t.Errorf("after two runs the volume has %q", got)
		}
		h.stopRun("again")
		h.tryDeletionByPublishedClients()
		if engine == "docker" {
			if out, err := exec.Command("docker", "volume", "inspect", *v.VolumeID).CombinedOutput(); err == nil {
				t.Errorf("Docker still has the volume: %s", out)
			}
		}
	})
}

// tryVolume applies a volume.
func (h *harness) tryVolume(text string) *result {
	h.t.Helper()
	dir := h.t.TempDir()
	h.writeFile(filepath.Join(dir, "volume.dstack.yml"), text)
	return h.runCLIIn(dir, "apply", "-f", "volume.dstack.yml", "-y", "-o", "json")
}

func (h *harness) applyVolume(text string) (v api.Volume) {
	h.t.Helper()
	h.tryVolume(text).expectExit(0).decode(&v)
	return v
}

// tryDeletionByPublishedClients deletes the volume by the commands of the published clients where they are installed, and
// by our own.
func (h *harness) tryDeletionByPublishedClients() {
	h.t.Helper()
	if h.engine == "docker" {
		old := newPublishedClient(h)
		old.run(old.ownHome, "volume", "list").expectExit(0).expectText("my-new-volume", "local", "active")
		newest := newNewestClient(h)
		newest.run(newest.ownHome, "volume", "list", "-v").expectExit(0).expectText("my-new-volume", "active")
		newest.run(newest.ownHome, "volume", "get", "my-new-volume", "--json").expectExit(0).expectText(`"name": "my-new-volume"`)
		h.writeFile(filepath.Join(old.ownHome, "volume.dstack.yml"), strings.Replace(volumeFile, "size", "region: local\nsize", 1))
		old.run(old.ownHome, "apply", "-f", "volume.dstack.yml", "-y").expectExit(0) // it deletes the volume and creates it again
		newest.run(newest.ownHome, "volume", "delete", "my-new-volume", "-y").expectExit(0).expectText("deleted")
		old.run(old.ownHome, "volume", "delete", "my-new-volume", "-y").expectText("does not exist")
		return
	}
	h.runCLI("volume", "delete", "my-new-volume", "-y").expectExit(0).expectText("my-new-volume is deleted")
	h.runCLI("volume", "list").expectExit(0).expectText("no volumes in project main")
}
