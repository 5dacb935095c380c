package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestServersShareADatabase starts three servers on one PostgreSQL database. Each answers for all, a change through one shows
// at the others at once, and one that is killed or frozen costs seconds only.
func TestServersShareADatabase(t *testing.T) {
	runParallel(t)
	if isLongRun() {
		t.Run("killed and frozen at random", testServersKilledAndFrozenAtRandom)
	}
	s := newServerSet(t, 3)
	dir := s.newServiceFolder("web", 2, "drain_timeout: 2s")
	first := s.all[0]
	s.user.applyAndWait(dir)
	for _, h := range s.all {
		h.expectStatus(h.serviceURL("web", "/"), 200)
		h.waitUntil(5*time.Second, "its command line shows the output of both replicas", func() error {
			if out := h.runCLI("logs", "web", "--tail", "3").out; !strings.Contains(out, "0 | tick") || !strings.Contains(out, "1 | tick") {
				return fmt.Errorf("it shows %q", out)
			}
			return nil
		})
		if out := h.runCLI("exec", "web", "--", "echo", "from", "inside").expectExit(0).out; strings.TrimSpace(out) != "from inside" {
			t.Errorf("exec prints %q", out)
		}
	}
	holder := s.findHolder()
	others := s.others(holder)
	before := s.expectRunning(5*time.Second, 2)
	watch := s.watchDoubles()

	// The server that works on the host is frozen in the middle of its work. Requests and the user go on with the others.
	loads := []*traffic{others[0].startTraffic(20, others[0].serviceURL("web", "/")), others[1].startTraffic(20, others[1].serviceURL("web", "/"))}
	holder.freeze()
	began := time.Now()
	first.writeFile(dir+"/service.dstack.yml", strings.Replace(first.readText(dir+"/service.dstack.yml"), "replicas: 2", "replicas: 3", 1))
	s.user.applyAndWait(dir)
	t.Logf("a change is done %s after the server was frozen", time.Since(began).Round(time.Millisecond))
	after := s.expectRunning(5*time.Second, 3)
	for _, name := range before {
		if !slices.Contains(after, name) {
			t.Errorf("the container %s was replaced", name)
		}
	}
	if next := s.findHolder(); next == holder {
		t.Error("the frozen server still holds the host")
	}
	holder.thaw()
	holder.waitUntil(10*time.Second, "the server notices that it was frozen", func() error {
		if !strings.Contains(holder.log.String(), "this server was frozen") {
			return fmt.Errorf("its log says nothing")
		}
		return nil
	})

	// Another one is killed.
	killed := s.findHolder()
	killed.killServer()
	for i, h := range others {
		if h == killed {
			loads[i].finish() // its requests end with it
		} else {
			loads[i].expectNoFailure("requests through a server that went on")
		}
	}
	began = time.Now()
	s.user.runCLI("stop", "web", "-y").expectExit(0)
	s.expectRunning(30*time.Second, 0)
	t.Logf("the run is stopped %s after the server was killed", time.Since(began).Round(time.Millisecond))
	watch.expectNone(t)
	killed.startServer()
	if v := killed.findRun("web"); !v.Status.IsFinished() {
		t.Errorf("the run is %s", v.Status)
	}
}
