package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestProfileAndEnvFile: what neither the configuration nor the command line
// says comes from a profile and from files of variables, to the replica.
func TestProfileAndEnvFile(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		dir := h.folder(h.workload("profiled", "- COLOUR", "- SIZE=small"))
		apply := []string{"apply", "-f", "service.dstack.yml", "-y"}
		h.write(filepath.Join(dir, ".env"), "# of this folder\nexport COLOUR='dark red' # not shown\nSIZE=\"large\\nand wide\"\n")
		h.cliIn(dir, apply...).refuses(2, "COLOUR", "apply with --env-file .env")
		apply = append(apply, "--env-file", ".env")

		h.write(filepath.Join(h.home, ".dstack", "profiles.yml"), "profiles:\n- name: elsewhere\n  default: true\n  regions: [nowhere]\n")
		h.cliIn(dir, apply...).refuses(4, "no machine suits", "nowhere", "profile elsewhere")

		h.write(filepath.Join(dir, ".dstack", "profiles.yml"), "profiles:\n- name: here\n  spot_policy: on-demand\n  retry: true\n  pool_nam: x\n")
		h.cliIn(dir, append(apply, "--profile", "here")...).refuses(2, ".dstack/profiles.yml:5:3", "did you mean `pool_name`?")

		h.write(filepath.Join(dir, ".dstack", "profiles.yml"), "profiles:\n- name: here\n  spot_policy: on-demand\n  retry: true\n")
		r := h.cliIn(dir, append(apply, "--profile", "here", "-e", "SIZE=tiny", "--wait", "ready")...).exits(0)
		r.says("profile here", "COLOUR (from .env)", "SIZE (from -e)").saysNot("dark red", "tiny", "nowhere")
		about := h.about("profiled")
		for name, want := range map[string]string{"COLOUR": "dark red", "SIZE": "tiny"} {
			if got, _ := about.env(name); got != want {
				t.Errorf("the replica has %s=%q, want %q", name, got, want)
			}
		}
		r = h.cliIn(dir, append(apply, "--profile", "here", "--no-retry", "--pool", "gpus")...)
		r.refuses(2, "--pool: not supported yet: pool_name")
		if strings.Contains(r.err, "service.dstack.yml") {
			t.Errorf("the file is blamed for a flag:\n%s", r.err)
		}
	})
}
