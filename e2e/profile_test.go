package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestProfileAndEnvFile checks values from profiles and from files of variables.
func TestProfileAndEnvFile(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		dir := h.newFolder(h.workloadConfig("profiled", "- COLOUR", "- SIZE=small"))
		apply := []string{"apply", "-f", "service.dstack.yml", "-y"}
		h.writeFile(filepath.Join(dir, ".env"), "# of this folder\nexport COLOUR='dark red' # not shown\nSIZE=\"large\\nand wide\"\n")
		h.runCLIIn(dir, apply...).expectError(2, "COLOUR", "apply with --env-file .env")
		apply = append(apply, "--env-file", ".env")

		h.writeFile(filepath.Join(h.home, ".dstack", "profiles.yml"), "profiles:\n- name: elsewhere\n  default: true\n  regions: [nowhere]\n")
		h.runCLIIn(dir, apply...).expectError(4, "no machine suits", "nowhere", "profile elsewhere")

		h.writeFile(filepath.Join(dir, ".dstack", "profiles.yml"), "profiles:\n- name: here\n  spot_policy: on-demand\n  retry: true\n  pool_nam: x\n")
		h.runCLIIn(dir, append(apply, "--profile", "here")...).expectError(2, ".dstack/profiles.yml:5:3", "did you mean `pool_name`?")

		h.writeFile(filepath.Join(dir, ".dstack", "profiles.yml"), "profiles:\n- name: here\n  spot_policy: on-demand\n  retry: true\n")
		r := h.runCLIIn(dir, append(apply, "--profile", "here", "-e", "SIZE=tiny", "--wait", "ready")...).expectExit(0)
		r.expectText("profile here", "COLOUR (from .env)", "SIZE (from -e)").expectNoText("dark red", "tiny", "nowhere")
		about := h.fetchInfo("profiled")
		for name, want := range map[string]string{"COLOUR": "dark red", "SIZE": "tiny"} {
			if got, _ := about.lookUpEnv(name); got != want {
				t.Errorf("the replica has %s=%q, want %q", name, got, want)
			}
		}
		r = h.runCLIIn(dir, append(apply, "--profile", "here", "--gpu", "16G")...)
		r.expectError(2, "--gpu: ")
		if strings.Contains(r.err, "service.dstack.yml") {
			t.Errorf("the error of a flag names the file:\n%s", r.err)
		}
	})
}
