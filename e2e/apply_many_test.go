package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestApplyFolder applies the services of a folder, and changes one of them.
func TestApplyFolder(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	dir := h.newFolder(h.workloadConfig("first"))
	h.writeFile(filepath.Join(dir, "more", "a.dstack.yml"), h.workloadConfig("second"))
	h.writeFile(filepath.Join(dir, "more", "b.dstack.yml"), h.workloadConfig("third"))

	var views []api.RunView
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-f", "more/", "-y", "--wait", "ready", "-o", "json").expectExit(0).decode(&views)
	var got []string
	for _, v := range views {
		got = append(got, fmt.Sprint(v.Name, " ", v.Status, " ", v.Revision))
	}
	if want := "first ready 1, second ready 1, third ready 1"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %s", got, want)
	}
	// A change of one file does not touch the replicas of the others.
	h.writeFile(filepath.Join(dir, "more", "b.dstack.yml"), strings.Replace(h.workloadConfig("third"), "env:\n", "env:\n- CHANGED=1\n", 1))
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-f", "more", "-y", "-d", "--wait", "ready").expectExit(0).
		expectText("first runs already and nothing changed", "second runs already and nothing changed", "third   2         ready")

	// One that fails does not hide the others, and decides about the exit status.
	h.writeFile(filepath.Join(dir, "more", "a.dstack.yml"), strings.Replace(h.workloadConfig("second"), "./workload", "./absent", 1))
	r := h.runCLIIn(dir, "apply", "-f", ".", "-y", "--wait", "ready", "--timeout", "2m").expectExit(3)
	r.expectText("first   1         ready", "third   2         ready", "more/a.dstack.yml", "rolled back to 1")
	// Wrong input is refused before anything is submitted.
	h.writeFile(filepath.Join(dir, "more", "b.dstack.yml"), "type: service\nname: third\n")
	h.runCLIIn(dir, "apply", "-f", ".", "-y", "--force").expectExit(2).expectText("more/b.dstack.yml")
	if v := h.findRun("first"); v.Revision != 1 {
		t.Errorf("first has revision %d", v.Revision)
	}
}

// TestLogsTail reads the end of the output of several replicas from a pipe.
func TestLogsTail(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		replicas := "replicas: 2"
		if engine == "process" {
			replicas = "replicas: 1" // two would need the same port
		}
		config := strings.Replace(h.workloadConfig("web", replicas), "- exec ./workload", "- for i in $(seq 1000); do echo line $i; done\n- exec ./workload", 1)
		h.applyAndWait(h.newFolder(config))
		prefixes := []string{"0 | ", "1 | "}
		if engine == "process" {
			prefixes = []string{""}
		}
		h.waitUntil(20*time.Second, "the last lines are there", func() error {
			r := h.runCLI("logs", "web", "--tail", "3").expectExit(0)
			for _, p := range prefixes {
				for _, line := range []string{"line 999\n", "line 1000\n"} {
					if !strings.Contains("\n"+r.out, "\n"+p+line) {
						return fmt.Errorf("no %q in %q", p+line, r.out)
					}
				}
				if !strings.Contains(r.out, p+"workload: listening on") || strings.Count(r.out, "\n") != 3*len(prefixes) {
					return fmt.Errorf("the output is %q", r.out)
				}
			}
			return nil
		})
		if r := h.runCLI("logs", "web", "--replica", "0", "-n", "2"); !strings.HasPrefix(r.out, "line 1000\nworkload: ") {
			t.Errorf("the output of one replica is %q", r.out)
		}
		if r := h.runCLI("logs", "web", "--since", "10m", "--tail", "1", "-o", "json"); strings.Count(r.out, `"message":"workload: listening on`) != len(prefixes) {
			t.Errorf("as JSON: %q", r.out)
		}
		if r := h.runCLI("logs", "web", "--since", "2030-01-01"); r.out != "" || r.code != 0 {
			t.Errorf("since a later time: %q", r.out)
		}
		h.runCLI("logs", "web", "--tail", "-3").expectError(2, "a number of lines cannot be negative")
		h.runCLI("logs", "web", "--since", "yesterday").expectError(2, "`yesterday` is not a time")

		follow := h.newCommand(h.home, "logs", "web", "-f", "--tail", "0")
		var out safeBuffer
		follow.Stdout = &out
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // so that it has begun
		h.stopRun("web")
		if err := follow.Wait(); err != nil || !strings.Contains(out.String(), "workload: asked to stop") || strings.Contains(out.String(), "line ") {
			t.Errorf("followed from the end: %v, %q", err, out.String())
		}
	})
}
