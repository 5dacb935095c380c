package docker_test

import (
	"os/exec"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/enginetest"
)

// A container that is restarted by hand between two calls of ListReports has a new address;
// another container may have the old one.
func TestRunning_RestartedByHand(t *testing.T) {
	for name, publish := range map[string]bool{"container address": false, "published port": true} {
		t.Run(name, func(t *testing.T) {
			_, mine := openClean(t)
			e := openEngine(t, docker.Options{Installation: mine, PublishPorts: publish})
			t.Cleanup(func() { _ = e.Close() })
			spec := newSpec(image, "exec httpd -f -p 8000")
			if err := e.Start(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			before := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.Ready })
			id := listContainers(t, "dstack.attempt="+string(spec.Attempt))[0]
			run := func(args ...string) string {
				out, err := exec.Command("docker", args...).CombinedOutput()
				if err != nil {
					t.Fatalf("docker %v: %s", args, out)
				}
				return strings.TrimSpace(string(out))
			}
			run("kill", id)
			if !publish { // another container takes the address
				other := run("run", "-d", "--label", "dstack.installation="+string(mine), "--label", "dstack.attempt=other", image, "sleep", "60")
				defer run("rm", "-f", other)
			}
			run("start", id)
			after := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.Ready })
			if after.Address == before.Address {
				port := run("port", id)
				t.Errorf("the address is still %s; docker reports %s %s", after.Address, run("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", id), port)
			}
			if !after.StartedAt.After(before.StartedAt) {
				t.Errorf("started at %v, not after %v", after.StartedAt, before.StartedAt)
			}
		})
	}
}
