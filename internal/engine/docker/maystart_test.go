package docker_test

import (
	"context"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/enginetest"
)

var errTaken = &dstack.Error{Kind: dstack.Conflict, Message: "another server goes on with the machine"}

// A server that may not start an attempt any more starts no container, and takes nothing away from the server that goes on.
func TestStart_WhenAnotherServerGoesOn(t *testing.T) {
	for _, c := range []struct {
		name      string
		frozen    int    // the check in which the first server is frozen: 1 before it creates the container, 2 before it starts it
		meanwhile string // what the second server does: starts, removes
		notices   bool   // whether the first server's check fails when it wakes up
	}{
		{"frozen before it created the container", 1, "starts", true},
		{"frozen before it created the container, unnoticed", 1, "starts", false},
		{"frozen before it started the container", 2, "starts", true},
		{"frozen before it started the container, unnoticed", 2, "starts", false},
		{"frozen before it created a container that was removed", 1, "removes", true},
		{"frozen before it started a container that was removed, unnoticed", 2, "removes", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, mine := openClean(t)
			spec := newSpec(image, "exec sleep 60")
			asked, frozen, wake := atomic.Int64{}, make(chan struct{}), make(chan struct{})
			first := openEngine(t, docker.Options{Installation: mine, MayStart: func(context.Context, dstack.AttemptID) error {
				if int(asked.Add(1)) != c.frozen {
					return nil
				}
				close(frozen)
				<-wake
				if c.notices {
					return errTaken
				}
				return nil
			}})
			t.Cleanup(func() { _ = first.Close() })
			second := openEngine(t, docker.Options{Installation: mine})
			t.Cleanup(func() { _ = second.Close() })
			if err := first.Start(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			<-frozen
			if err := second.Start(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			enginetest.WaitForReport(t, second, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
			id := listContainers(t, "dstack.attempt="+string(spec.Attempt))[0]
			if c.meanwhile == "removes" {
				if err := second.Remove(t.Context(), spec.Attempt); err != nil {
					t.Fatal(err)
				}
			}
			close(wake)
			waitForStartup(t, first, spec.Attempt)
			left := listContainers(t, "dstack.attempt="+string(spec.Attempt))
			if c.meanwhile == "removes" {
				for _, l := range left {
					if status := statusOf(t, l); status != "created" {
						t.Errorf("a container that nobody wants is %s", status)
					}
				}
				return
			}
			if len(left) != 1 || left[0] != id || statusOf(t, id) != "running" {
				t.Errorf("the containers are %v, want only %s, running", left, id)
			}
		})
	}
}

// waitForStartup waits until an engine has ended its start of an attempt.
func waitForStartup(t *testing.T, e *docker.Engine, id dstack.AttemptID) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); e.IsStarting(id); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the start does not end")
		}
	}
}

func statusOf(t *testing.T, container string) string {
	t.Helper()
	out, err := exec.Command("docker", "inspect", "-f", "{{.State.Status}}", container).CombinedOutput()
	if err != nil {
		t.Fatalf("docker inspect: %s", out)
	}
	return strings.TrimSpace(string(out))
}
