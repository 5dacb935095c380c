package docker_test

import (
	"os/exec"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
)

// Somebody restarts a container by hand between two looks: it has another
// address, and the old one may be another's by now.
func TestRunning_RestartedByHand(t *testing.T) {
	for name, publish := range map[string]bool{"its own address": false, "a published port": true} {
		t.Run(name, func(t *testing.T) {
			_, mine := at(t)
			e := open(t, docker.Options{Installation: mine, Publish: publish})
			t.Cleanup(func() { _ = e.Close() })
			o := order(image, "exec httpd -f -p 8000")
			if err := e.Start(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			was := until(t, e, o.Attempt, func(r dstack.Report) bool { return r.Ready })
			id := dockerPS(t, "dstack.attempt="+string(o.Attempt))[0]
			run := func(args ...string) string {
				out, err := exec.Command("docker", args...).CombinedOutput()
				if err != nil {
					t.Fatalf("docker %v: %s", args, out)
				}
				return strings.TrimSpace(string(out))
			}
			run("kill", id)
			if !publish { // somebody takes its address
				other := run("run", "-d", "--label", "dstack.installation="+string(mine), "--label", "dstack.attempt=other", image, "sleep", "60")
				defer run("rm", "-f", other)
			}
			run("start", id)
			is := until(t, e, o.Attempt, func(r dstack.Report) bool { return r.Ready })
			if is.Address == was.Address {
				port := run("port", id)
				t.Errorf("still at %s; docker says %s %s", is.Address, run("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", id), port)
			}
			if !is.StartedAt.After(was.StartedAt) {
				t.Errorf("started at %v, as before", is.StartedAt)
			}
		})
	}
}
