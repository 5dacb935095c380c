package docker_test

import (
	"os/exec"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
)

// The data of a volume that another program or installation created is not this
// installation's.
func TestStart_ForeignVolume(t *testing.T) {
	e, mine := openClean(t)
	name := string(mine)
	for _, label := range []string{"other=x", "dstack.installation=other"} {
		if out, err := exec.Command("docker", "volume", "create", "--label", label, name).CombinedOutput(); err != nil {
			t.Fatalf("docker volume create: %s", out)
		}
		spec := newSpec(image, "echo up")
		spec.Mounts = []dstack.Mount{{Kind: dstack.MountVolume, Source: name, Target: "/data"}}
		r := enginetest.RunToEnd(t, e, spec)
		if r.State != dstack.AttemptRefused || !r.Permanent || !strings.Contains(r.Error, "did not create it") {
			t.Errorf("with the label %s: %+v", label, r)
		}
		if out, err := exec.Command("docker", "volume", "rm", name).CombinedOutput(); err != nil {
			t.Errorf("docker volume rm: %s", out)
		}
	}
}
