package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestFirstStart checks that the first start of a server creates its configuration
// and prints the token once.
func TestFirstStart(t *testing.T) {
	runParallel(t)
	h := newStoppedHarness(t, "process")
	if err := os.RemoveAll(h.serverDir); err != nil { // without a configuration the server writes one
		t.Fatal(err)
	}
	h.startServer()
	h.waitUntil(5*time.Second, "the server has printed its greeting", func() error { // it writes the token to the file before that
		if !strings.Contains(h.log.String(), "next: ") {
			return errors.New(h.log.String())
		}
		return nil
	})
	first := h.log.String()
	for _, want := range []string{h.serverURL(), h.token, "SQLite", "dstack apply"} {
		if !strings.Contains(first, want) {
			t.Errorf("the first start does not print %q:\n%s", want, first)
		}
	}
	for _, path := range []string{filepath.Join(h.serverDir, "config.yml"), filepath.Join(h.home, ".dstack", "config.yml")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if path != filepath.Join(h.serverDir, "config.yml") && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s contains a token and has the mode %s", path, info.Mode())
		}
	}
	h.runCLI("ps").expectExit(0)
	h.stopServer()
	h.startServer()
	if again := strings.TrimPrefix(h.log.String(), first); strings.Contains(again, h.token) {
		t.Errorf("the second start prints the token again:\n%s", again)
	}
	h.runCLI("ps").expectExit(0)
	if kept := h.findFilesWith(h.token); len(kept) > 0 {
		t.Errorf("the server stores the unhashed token in %v", kept)
	}
}

// findFilesWith returns the files of the server's folder that contain a word.
func (h *harness) findFilesWith(word string) []string {
	h.t.Helper()
	var found []string
	for path := range strings.Lines(h.listFiles() + filepath.Join(h.serverDir, "data", "sqlite.db") + "\n" + filepath.Join(h.serverDir, "data", "sqlite.db-wal") + "\n") {
		path = strings.TrimSpace(path)
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(word)) {
			found = append(found, path)
		}
	}
	return found
}

// TestChosenToken starts a server with a token from the environment.
func TestChosenToken(t *testing.T) {
	runParallel(t)
	const chosen = "chosen-by-hand-0123456789-0123456789"
	h := newHarness(t, "process", "DSTACK_SERVER_ADMIN_TOKEN="+chosen)
	if h.token != chosen {
		t.Errorf("the command line's token is %q", h.token)
	}
	h.runCLI("ps").expectExit(0)
	if strings.Contains(h.log.String(), chosen) {
		t.Errorf("the server prints a token that it was given:\n%s", h.log.String())
	}
}

// TestRestart checks that a restarted server still has its runs, tokens and logs.
func TestRestart(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("kept")))
		h.applyAndWait(h.newFolder(h.workloadConfig("ended")))
		h.stopRun("ended")
		before := h.fetchInfo("kept").PID
		h.stopServer()
		h.startServer()
		h.expectStatus(h.serviceURL("kept", "/"), 200)
		if after := h.fetchInfo("kept").PID; after != before {
			t.Errorf("the replica was restarted with the server: its process was %d and is %d", before, after)
		}
		if v := h.findRun("ended"); v.Status != api.StatusStopped {
			t.Errorf("the stopped run is %s", v.Status)
		}
		for _, name := range []string{"kept", "ended"} {
			h.runCLI("logs", name).expectExit(0).expectText("workload: listening on")
		}
	})
}

// TestPsAndLogs checks ps, logs and their JSON output.
func TestPsAndLogs(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.runCLI("ps").expectExit(0)
		v := h.applyAndWait(h.newFolder(h.workloadConfig("seen")))
		if v.URL != fmt.Sprintf("http://seen.localhost:%d/", h.port) || v.PathURL != h.servicePathURL("seen", "/") {
			t.Errorf("the addresses are %s and %s", v.URL, v.PathURL)
		}
		for _, args := range [][]string{{"ps"}, {"ps", "-a"}, {"ps", "-v"}} {
			h.runCLI(args...).expectExit(0).expectText("NAME", "seen", "ready").expectNoText("\x1b[")
		}
		h.waitUntil(5*time.Second, "the logs have the first line", func() error {
			if r := h.runCLI("logs", "seen"); !strings.Contains(r.out, "workload: listening on") {
				return fmt.Errorf("%q", r.out)
			}
			return nil
		})

		follow := h.newCommand(h.home, "logs", "seen", "-f")
		var out safeBuffer
		follow.Stdout = &out
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		h.waitUntil(5*time.Second, "the follower has the first line", func() error {
			if !strings.Contains(out.String(), "listening") {
				return fmt.Errorf("%q", out.String())
			}
			return nil
		})
		h.stopRun("seen")
		if err := follow.Wait(); err != nil {
			t.Errorf("logs -f fails when the run ends: %v", err)
		}
		if got := out.String(); !strings.Contains(got, "workload: asked to stop") {
			t.Errorf("the follower missed the last line: %q", got)
		}
		h.runCLI("logs", "seen").expectExit(0).expectText("workload: asked to stop") // also after the replica has ended
		h.runCLI("delete", "seen", "-y").expectExit(0)
		h.runCLI("logs", "seen").expectExit(1).expectText("seen")
	})
}

// TestDetach checks that Ctrl-C detaches apply from the run and does not stop the
// run.
func TestDetach(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	dir := h.newFolder(h.workloadConfig("left"))
	apply := h.newCommand(dir, "apply", "-f", "service.dstack.yml", "-y")
	var output safeBuffer
	apply.Stdout, apply.Stderr = &output, &output
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitUntil(20*time.Second, "apply follows the logs", func() error {
		if !strings.Contains(output.String(), "Following its logs") {
			return fmt.Errorf("%s", output.String())
		}
		return nil
	})
	if err := apply.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := apply.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v, want exit status 0", err)
	}
	for _, want := range []string{h.serviceURL("left", "/"), "detached", "dstack logs left -f", "dstack stop left"} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("the output does not contain %q:\n%s", want, output.String())
		}
	}
	h.expectStatus(h.serviceURL("left", "/"), 200)
}

// TestConfirmationWithoutTerminal checks that commands that need a confirmation are
// refused without a terminal.
func TestConfirmationWithoutTerminal(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	dir := h.newFolder(h.workloadConfig("asked"))
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml").expectError(2, "-y")
	if all := h.listRuns(); len(all) > 0 {
		t.Errorf("a run was submitted: %+v", all)
	}
	h.applyAndWait(dir)
	h.runCLI("stop", "asked").expectError(2, "-y")
	h.expectStatus(h.serviceURL("asked", "/"), 200)
}

// TestApplyAgain checks that a second apply shows the changes and makes a new
// revision.
func TestApplyAgain(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		config := h.workloadConfig("again", "- COLOUR=red")
		dir := h.newFolder(config)
		h.applyAndWait(dir)
		before := h.fetchInfo("again")
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0).expectText("nothing changed")
		if h.fetchInfo("again").PID != before.PID {
			t.Error("apply without a change restarted the replica")
		}
		h.writeFile(filepath.Join(dir, "service.dstack.yml"), strings.Replace(config, "red", "green", 1))
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").expectExit(0).expectText("env")
		if colour, _ := h.fetchInfo("again").lookUpEnv("COLOUR"); colour != "green" {
			t.Errorf("the replica has COLOUR=%s after the change", colour)
		}
		if v := h.findRun("again"); v.Revision != 2 {
			t.Errorf("the revision is %d, want 2", v.Revision)
		}
		h.writeFile(filepath.Join(dir, "more.txt"), "one more file")
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").expectExit(0).expectText("code")
		if v := h.findRun("again"); v.Revision != 3 {
			t.Errorf("the revision is %d after the folder changed, want 3", v.Revision)
		}
	})
}

// TestCrash checks that a service that was ready is restarted when it crashes, and
// that its status has the reason.
func TestCrash(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("crashes")))
		before := h.fetchInfo("crashes")
		_, _ = h.sendRequest("POST", h.serviceURL("crashes", "/exit"), h.token, "") // the response never arrives
		h.waitUntil(10*time.Second, "ps has the reason", func() error {
			if r := h.runCLI("ps", "-v"); !strings.Contains(r.out, "exited with code 3") {
				return fmt.Errorf("%s", r.out)
			}
			return nil
		})
		h.expectStatus(h.serviceURL("crashes", "/"), 200) // held until the replica is ready again
		if v := h.findRun("crashes"); v.Replicas[0].Restarts != 1 {
			t.Errorf("%d restarts, want 1", v.Replicas[0].Restarts)
		}
		if after := h.fetchInfo("crashes"); engine == "process" && after.PID == before.PID {
			t.Error("the process was not restarted")
		}
	})
}

// TestTwoServersOnOneMachine checks that two servers do not touch each other's
// replicas.
func TestTwoServersOnOneMachine(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		one, other := newHarness(t, engine), newHarness(t, engine)
		one.applyAndWait(one.newFolder(one.workloadConfig("same-name")))
		other.applyAndWait(other.newFolder(other.workloadConfig("same-name")))
		before := one.fetchInfo("same-name").Env
		other.stopServer()
		other.startServer()
		other.stopRun("same-name")
		other.waitUntil(20*time.Second, "nothing is left of the run", other.checkNothingLeft)
		one.killServer()
		one.startServer()
		if after := one.fetchInfo("same-name").Env; strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Error("the replica of the other server was replaced")
		}
		other.runCLI("ps", "-a").expectExit(0)
		one.expectResponse("GET", one.serviceURL("same-name", "/"), other.token, "", 401)
	})
}

// TestCommandsWithoutServer checks the commands that need no server.
func TestCommandsWithoutServer(t *testing.T) {
	runParallel(t)
	h := newStoppedHarness(t, "process")
	dir := h.newFolder(h.workloadConfig("words"))
	h.runCLIIn(dir, "validate", "service.dstack.yml").expectExit(0)
	h.writeFile(filepath.Join(dir, "broken.dstack.yml"), "type: service\nport: eighty\n")
	h.runCLIIn(dir, "validate", "broken.dstack.yml").expectError(2, "broken.dstack.yml:2:7", "eighty")
	h.writeFile(filepath.Join(dir, "fleet.dstack.yml"), "type: fleet\nreservation: cr-1\nnodes: 2\nidle_duration: 1h\n")
	h.runCLIIn(dir, "validate", "fleet.dstack.yml").expectExit(0).expectText("valid, but", "fleet.dstack.yml:2:14: note: not supported yet: reservation")
	h.runCLIIn(dir, "validate", "--json", "fleet.dstack.yml").expectExit(0).expectText(`"nodes": {`, `"termination_idle_time": 3600`)
	h.runCLIIn(dir, "validate", "-o", "json", ".").expectExit(2).expectText(`"line": 2`, `"notes"`)
	h.runCLIIn(dir, "apply", "-f", "fleet.dstack.yml", "-y").expectError(2, "fleet.dstack.yml:2:14: not supported yet: reservation", "remove it")
	h.runCLI("schema").expectExit(0).expectText("https://json-schema.org/draft/2020-12/schema", `"title": "dstack configuration"`)
	h.runCLI("version").expectExit(0).expectText("0.0.0-e2e")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		h.runCLI("completion", shell).expectExit(0).expectText("dstack")
	}
	help := h.runCLI("--help").expectExit(0)
	for _, command := range []string{"server", "config", "apply", "ps", "logs", "stop", "delete", "validate", "schema", "completion", "version"} {
		help.expectText(command)
		if r := h.runCLI(command, "--help").expectExit(0); !regexp.MustCompile(`(?m)^\s+dstack ` + command).MatchString(r.out) {
			t.Errorf("the help of %s has no example:\n%s", command, r.out)
		}
	}
}
