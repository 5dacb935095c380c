package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// isLongRun reports whether the tests of running services use realistic times
// instead of short ones.
func isLongRun() bool { return os.Getenv("DSTACK_TEST_LONG") != "" }

// newParallelHarness starts a server for a test that runs in parallel with others
// and needs one engine.
func newParallelHarness(t *testing.T, engine string, env ...string) *harness {
	t.Helper()
	runParallel(t)
	if engine == "docker" {
		needBaseImage(t)
	}
	return newHarness(t, engine, env...)
}

// applyChange writes another configuration to a folder, applies it and waits until
// it is ready.
func (h *harness) applyChange(dir, config string, args ...string) api.RunView {
	h.t.Helper()
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config)
	return h.applyAndWait(dir, args...)
}

// submitConfig writes a configuration to a folder and applies it without waiting.
func (h *harness) submitConfig(dir, config string) {
	h.t.Helper()
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config)
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
}

// listEvents returns the events of a run.
func (h *harness) listEvents(run string) []api.EventView {
	h.t.Helper()
	var all []api.EventView
	h.runCLI("events", run, "-o", "json").expectExit(0).decode(&all)
	return all
}

// expectEvent checks that there is an event of a kind, with words in its message,
// and returns the last such event.
func (h *harness) expectEvent(run string, kind dstack.EventKind, from, to string, words ...string) api.EventView {
	h.t.Helper()
	all := h.listEvents(run)
	for _, e := range slices.Backward(all) {
		matches := e.Kind == kind && (from == "" || e.From == from) && (to == "" || e.To == to)
		for _, w := range words {
			matches = matches && strings.Contains(e.Message, w)
		}
		if matches {
			return e
		}
	}
	h.t.Errorf("no event of %s has the kind %s from %q to %q with %q:\n%s", run, kind, from, to, words, formatEvents(all))
	return api.EventView{}
}

func formatEvents(all []api.EventView) string {
	var b strings.Builder
	for _, e := range all {
		replica := ""
		if e.Replica != nil {
			replica = fmt.Sprintf(" replica %d", *e.Replica)
		}
		fmt.Fprintf(&b, "%s %s r%d%s %s→%s %s\n", e.At.Format("15:04:05.000"), e.Kind, e.Revision, replica, e.From, e.To, e.Message)
	}
	return b.String()
}

// explainRun returns the explanation of a run's number of replicas.
func (h *harness) explainRun(run string) api.Explanation {
	h.t.Helper()
	var e api.Explanation
	h.runCLI("explain", run, "-o", "json").expectExit(0).decode(&e)
	return e
}

// listRevisions returns the revisions of a run, newest first.
func (h *harness) listRevisions(run string) []api.RevisionView {
	h.t.Helper()
	var all []api.RevisionView
	h.runCLI("history", run, "-o", "json").expectExit(0).decode(&all)
	return all
}

// waitForReplicas waits until exactly as many replicas as desired are ready, and no
// others run.
func (h *harness) waitForReplicas(limit time.Duration, run string, ready int) {
	h.t.Helper()
	h.waitUntil(limit, fmt.Sprintf("%s has exactly %d replicas, all ready", run, ready), func() error {
		v := h.fetchRun(run)
		if v.Ready != ready || v.DesiredReplicas != ready {
			return fmt.Errorf("%s: %d replicas are desired, %d ready: %s", v.Status, v.DesiredReplicas, v.Ready, formatReplicas(v))
		}
		return h.checkReplicaCount(ready)
	})
}

// fetchRun returns a run through the API. For polling it is faster than findRun,
// which runs a command.
func (h *harness) fetchRun(run string) api.RunView {
	h.t.Helper()
	var v api.RunView
	h.postJSON(api.PathView, api.RunViewRequest{RunName: run}, &v)
	return v
}

// postJSON calls the server's API in the project main.
func (h *harness) postJSON(path string, in, out any) {
	h.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		h.t.Fatal(err)
	}
	path = strings.Replace(path, "{project_name}", "main", 1)
	a := h.expectResponse("POST", h.serverURL()+path, h.token, string(body), 200)
	if err := json.Unmarshal([]byte(a.body), out); err != nil {
		h.t.Fatalf("%s: %v: %s", path, err, a.body)
	}
}

func formatReplicas(v api.RunView) string {
	var all []string
	for _, r := range v.Replicas {
		all = append(all, fmt.Sprintf("%d is %s of revision %d (%s)", r.Num, r.Status, r.Revision, r.Reason))
	}
	return strings.Join(all, "; ")
}

// checkReplicaCount returns an error unless want containers or processes run.
func (h *harness) checkReplicaCount(want int) error {
	running := h.listWorkloads()
	if h.engine == "docker" {
		var err error
		if running, err = h.listContainers(); err != nil {
			return err
		}
	}
	if len(running) != want {
		return fmt.Errorf("%d replicas run, want %d: %v", len(running), want, running)
	}
	return nil
}

// listContainerNames returns the names of the containers, sorted.
func (h *harness) listContainerNames() []string {
	h.t.Helper()
	names, err := h.listContainers()
	if err != nil {
		h.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// findContainer returns the container of a replica by its X-Instance header.
func (h *harness) findContainer(instance string) string {
	h.t.Helper()
	for _, name := range h.listContainerNames() {
		if strings.HasPrefix(runDocker(h.t, "inspect", "-f", "{{.Id}}", name), instance) {
			return name
		}
	}
	h.t.Fatalf("no container has the ID %q", instance)
	return ""
}

// waitForInstances sends requests until n different replicas have answered, and
// returns their X-Instance headers.
func (h *harness) waitForInstances(run string, n int) []string {
	h.t.Helper()
	var found []string
	h.waitUntil(20*time.Second, fmt.Sprintf("%d replicas of %s answer", n, run), func() error {
		s := h.measureRequest("GET", h.serviceURL(run, "/who"), nil)
		if s.err == nil && !slices.Contains(found, s.instance) {
			found = append(found, s.instance)
		}
		if len(found) != n {
			return fmt.Errorf("the replicas that answered are %v: %w", found, s.err)
		}
		return nil
	})
	return found
}
