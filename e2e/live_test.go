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

// long says that the tests of services that live take the time that their
// promises speak of, instead of the short ones that show the same.
func long() bool { return os.Getenv("DSTACK_TEST_LONG") != "" }

// needEngine is onEngines for one engine.
func needEngine(t *testing.T, engine string, env ...string) *house {
	t.Helper()
	t.Parallel()
	if engine == "docker" {
		needBase(t)
	}
	return newHouse(t, engine, env...)
}

// becomes applies another configuration in a folder and waits until it is
// ready.
func (h *house) becomes(dir, config string, args ...string) api.RunView {
	h.t.Helper()
	h.write(filepath.Join(dir, "service.dstack.yml"), config)
	return h.apply(dir, args...)
}

// submits applies a configuration in a folder and returns at once.
func (h *house) submits(dir, config string) {
	h.t.Helper()
	h.write(filepath.Join(dir, "service.dstack.yml"), config)
	h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").exits(0)
}

// happened is what the events tell of a run.
func (h *house) happened(run string) []api.EventView {
	h.t.Helper()
	var all []api.EventView
	h.cli("events", run, "-o", "json").exits(0).read(&all)
	return all
}

// tells checks that there is an event of a kind, with words in its message,
// and returns the last one.
func (h *house) tells(run string, kind dstack.EventKind, from, to string, words ...string) api.EventView {
	h.t.Helper()
	all := h.happened(run)
	for _, e := range slices.Backward(all) {
		matches := e.Kind == kind && (from == "" || e.From == from) && (to == "" || e.To == to)
		for _, w := range words {
			matches = matches && strings.Contains(e.Message, w)
		}
		if matches {
			return e
		}
	}
	h.t.Errorf("no event of %s is of kind %s from %q to %q with %q:\n%s", run, kind, from, to, words, told(all))
	return api.EventView{}
}

func told(all []api.EventView) string {
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

// explained is why a run has as many replicas as it has.
func (h *house) explained(run string) api.Explanation {
	h.t.Helper()
	var e api.Explanation
	h.cli("explain", run, "-o", "json").exits(0).read(&e)
	return e
}

// revisions are a run's, newest first.
func (h *house) revisions(run string) []api.RevisionView {
	h.t.Helper()
	var all []api.RevisionView
	h.cli("history", run, "-o", "json").exits(0).read(&all)
	return all
}

// reaches waits until a run has as many replicas ready, and no more than
// these.
func (h *house) reaches(limit time.Duration, run string, ready int) {
	h.t.Helper()
	h.eventually(limit, fmt.Sprintf("%s has %d ready replicas, and no others", run, ready), func() error {
		v := h.look(run)
		if v.Ready != ready || v.DesiredReplicas != ready {
			return fmt.Errorf("%s: %d are wanted, %d ready: %s", v.Status, v.DesiredReplicas, v.Ready, replicasOf(v))
		}
		return h.runs(ready)
	})
}

// look is run for those who look again and again: it starts no command.
func (h *house) look(run string) api.RunView {
	h.t.Helper()
	var v api.RunView
	h.posts(api.PathView, api.RunViewRequest{RunName: run}, &v)
	return v
}

// posts calls the server's API in the project main.
func (h *house) posts(path string, in, out any) {
	h.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		h.t.Fatal(err)
	}
	path = strings.Replace(path, "{project_name}", "main", 1)
	a := h.expect("POST", h.url()+path, h.token, string(body), 200)
	if err := json.Unmarshal([]byte(a.body), out); err != nil {
		h.t.Fatalf("%s: %v: %s", path, err, a.body)
	}
}

func replicasOf(v api.RunView) string {
	var all []string
	for _, r := range v.Replicas {
		all = append(all, fmt.Sprintf("%d is %s of revision %d (%s)", r.Num, r.Status, r.Revision, r.Reason))
	}
	return strings.Join(all, "; ")
}

// runs checks that as many containers or processes are there.
func (h *house) runs(want int) error {
	running := h.workloads()
	if h.engine == "docker" {
		var err error
		if running, err = h.containers(); err != nil {
			return err
		}
	}
	if len(running) != want {
		return fmt.Errorf("%d replicas run, want %d: %v", len(running), want, running)
	}
	return nil
}

// ids are the present containers, in order.
func (h *house) ids() []string {
	h.t.Helper()
	names, err := h.containers()
	if err != nil {
		h.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// containerOf is the container of a replica, by what it says in X-Instance.
func (h *house) containerOf(instance string) string {
	h.t.Helper()
	for _, name := range h.ids() {
		if strings.HasPrefix(docker(h.t, "inspect", "-f", "{{.Id}}", name), instance) {
			return name
		}
	}
	h.t.Fatalf("no container is %q", instance)
	return ""
}

// instances asks until as many different replicas have answered.
func (h *house) instances(run string, n int) []string {
	h.t.Helper()
	var found []string
	h.eventually(20*time.Second, fmt.Sprintf("%d replicas of %s answer", n, run), func() error {
		s := h.shot("GET", h.service(run, "/who"), nil)
		if s.err == nil && !slices.Contains(found, s.instance) {
			found = append(found, s.instance)
		}
		if len(found) != n {
			return fmt.Errorf("%v answered: %v", found, s.err)
		}
		return nil
	})
	return found
}
