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

// TestFirstStart makes a home from nothing, and says the token once.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	h := unbuiltHouse(t, "process")
	if err := os.RemoveAll(h.dir); err != nil { // the server writes a configuration itself
		t.Fatal(err)
	}
	h.start()
	h.eventually(5*time.Second, "the greeting ends", func() error { // the token is in its file before it is said
		if !strings.Contains(h.log.String(), "next: ") {
			return errors.New(h.log.String())
		}
		return nil
	})
	first := h.log.String()
	for _, want := range []string{h.url(), h.token, "SQLite", "dstack apply"} {
		if !strings.Contains(first, want) {
			t.Errorf("the first start does not say %q:\n%s", want, first)
		}
	}
	for _, path := range []string{filepath.Join(h.dir, "config.yml"), filepath.Join(h.home, ".dstack", "config.yml")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if path != filepath.Join(h.dir, "config.yml") && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s holds a token and has the mode %s", path, info.Mode())
		}
	}
	h.cli("ps").exits(0)
	h.stop()
	h.start()
	if again := strings.TrimPrefix(h.log.String(), first); strings.Contains(again, h.token) {
		t.Errorf("the second start says the token again:\n%s", again)
	}
	h.cli("ps").exits(0)
	if kept := h.holds(h.token); len(kept) > 0 {
		t.Errorf("the server keeps the token itself in %v", kept)
	}
}

// holds finds files of the server's folder in which a word stands as it is.
func (h *house) holds(word string) []string {
	h.t.Helper()
	var found []string
	for path := range strings.Lines(h.files() + filepath.Join(h.dir, "data", "sqlite.db") + "\n" + filepath.Join(h.dir, "data", "sqlite.db-wal") + "\n") {
		path = strings.TrimSpace(path)
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(word)) {
			found = append(found, path)
		}
	}
	return found
}

// TestGivenToken starts a server whose token somebody else chose.
func TestGivenToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process", "DSTACK_SERVER_ADMIN_TOKEN=chosen-by-hand-0123456789")
	if h.token != "chosen-by-hand-0123456789" {
		t.Errorf("the command line's token is %q", h.token)
	}
	h.cli("ps").exits(0)
}

// TestRestart keeps runs, tokens and logs.
func TestRestart(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		h.apply(h.folder(h.workload("kept")))
		h.apply(h.folder(h.workload("ended")))
		h.stopped("ended")
		before := h.about("kept").PID
		h.stop()
		h.start()
		h.answers(h.service("kept", "/"), 200)
		if after := h.about("kept").PID; after != before {
			t.Errorf("the replica was restarted with the server: its process %d became %d", before, after)
		}
		if v := h.run("ended"); v.Status != api.StatusStopped {
			t.Errorf("the stopped run is %s now", v.Status)
		}
		for _, name := range []string{"kept", "ended"} {
			h.cli("logs", name).exits(0).says("workload: listening on")
		}
	})
}

// TestLooking: ps, logs and JSON, as scripts and people use them.
func TestLooking(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		h.cli("ps").exits(0)
		v := h.apply(h.folder(h.workload("seen")))
		if v.URL != fmt.Sprintf("http://seen.localhost:%d/", h.port) || v.PathURL != h.byPath("seen", "/") {
			t.Errorf("the addresses are %s and %s", v.URL, v.PathURL)
		}
		for _, args := range [][]string{{"ps"}, {"ps", "-a"}, {"ps", "-v"}} {
			h.cli(args...).exits(0).says("NAME", "seen", "ready").saysNot("\x1b[")
		}
		h.eventually(5*time.Second, "the logs have the first line", func() error {
			if r := h.cli("logs", "seen"); !strings.Contains(r.out, "workload: listening on") {
				return fmt.Errorf("%q", r.out)
			}
			return nil
		})

		follow := h.command(h.home, "logs", "seen", "-f")
		var out safeBuffer
		follow.Stdout = &out
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		h.eventually(5*time.Second, "the follower has the first line", func() error {
			if !strings.Contains(out.String(), "listening") {
				return fmt.Errorf("%q", out.String())
			}
			return nil
		})
		h.stopped("seen")
		if err := follow.Wait(); err != nil {
			t.Errorf("logs -f does not end in order when the run does: %v", err)
		}
		if got := out.String(); !strings.Contains(got, "workload: asked to stop") {
			t.Errorf("the follower missed the last line: %q", got)
		}
		h.cli("logs", "seen").exits(0).says("workload: asked to stop") // and the replica is gone
		h.cli("delete", "seen", "-y").exits(0)
		h.cli("logs", "seen").exits(1).says("seen")
	})
}

// TestDetach: Ctrl-C ends the watching, not the run.
func TestDetach(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	dir := h.folder(h.workload("left"))
	apply := h.command(dir, "apply", "-f", "service.dstack.yml", "-y")
	var said safeBuffer
	apply.Stdout, apply.Stderr = &said, &said
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	h.eventually(20*time.Second, "apply follows the logs", func() error {
		if !strings.Contains(said.String(), "Following its logs") {
			return fmt.Errorf("%s", said.String())
		}
		return nil
	})
	if err := apply.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := apply.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v, want exit status 0", err)
	}
	for _, want := range []string{h.service("left", "/"), "detached", "dstack logs left -f", "dstack stop left"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said.String())
		}
	}
	h.answers(h.service("left", "/"), 200)
}

// TestNobodyToAsk: without a terminal nothing is asked, and nothing done.
func TestNobodyToAsk(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	dir := h.folder(h.workload("asked"))
	h.cliIn(dir, "apply", "-f", "service.dstack.yml").refuses(2, "-y")
	if all := h.psAll(); len(all) > 0 {
		t.Errorf("it was submitted: %+v", all)
	}
	h.apply(dir)
	h.cli("stop", "asked").refuses(2, "-y")
	h.answers(h.service("asked", "/"), 200)
}

// TestApplyingAgain shows what would change, and replaces.
func TestApplyingAgain(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		config := h.workload("again", "- COLOUR=red")
		dir := h.folder(config)
		h.apply(dir)
		before := h.about("again")
		h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").exits(0).says("nothing changed")
		if h.about("again").PID != before.PID {
			t.Error("applied again without a change, it was restarted")
		}
		h.write(filepath.Join(dir, "service.dstack.yml"), strings.Replace(config, "red", "green", 1))
		h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").exits(0).says("env")
		if colour, _ := h.about("again").env("COLOUR"); colour != "green" {
			t.Errorf("the replica has COLOUR=%s after the change", colour)
		}
		if v := h.run("again"); v.Revision != 2 {
			t.Errorf("the revision is %d, want 2", v.Revision)
		}
		h.write(filepath.Join(dir, "more.txt"), "one more file")
		h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").exits(0).says("code")
		if v := h.run("again"); v.Revision != 3 {
			t.Errorf("the revision is %d after the folder changed, want 3", v.Revision)
		}
	})
}

// TestCrash: a service that was ready is restarted when it crashes, and the
// status says why.
func TestCrash(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		h.apply(h.folder(h.workload("crashes")))
		before := h.about("crashes")
		_, _ = h.call("POST", h.service("crashes", "/exit"), h.token, "") // the answer never comes
		h.eventually(10*time.Second, "ps says why", func() error {
			if r := h.cli("ps", "-v"); !strings.Contains(r.out, "exited with code 3") {
				return fmt.Errorf("%s", r.out)
			}
			return nil
		})
		h.answers(h.service("crashes", "/"), 200) // held until it is back
		if v := h.run("crashes"); v.Replicas[0].Restarts != 1 {
			t.Errorf("%d restarts are counted, want 1", v.Replicas[0].Restarts)
		}
		if after := h.about("crashes"); engine == "process" && after.PID == before.PID {
			t.Error("the process is the same one")
		}
	})
}

// TestNeighbours: two servers on one machine leave each other's replicas alone.
func TestNeighbours(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		one, other := newHouse(t, engine), newHouse(t, engine)
		one.apply(one.folder(one.workload("same-name")))
		other.apply(other.folder(other.workload("same-name")))
		before := one.about("same-name").Env
		other.stop()
		other.start()
		other.stopped("same-name")
		other.eventually(20*time.Second, "nothing of it is left", other.nothingLeft)
		one.kill()
		one.start()
		if after := one.about("same-name").Env; strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Error("the neighbour's replica is another one now")
		}
		other.cli("ps", "-a").exits(0)
		one.expect("GET", one.service("same-name", "/"), other.token, "", 401)
	})
}

// TestWords are the commands that need no server.
func TestWords(t *testing.T) {
	t.Parallel()
	h := unbuiltHouse(t, "process")
	dir := h.folder(h.workload("words"))
	h.cliIn(dir, "validate", "service.dstack.yml").exits(0)
	h.write(filepath.Join(dir, "broken.dstack.yml"), "type: service\nport: eighty\n")
	h.cliIn(dir, "validate", "broken.dstack.yml").refuses(2, "broken.dstack.yml:2:7", "eighty")
	h.write(filepath.Join(dir, "fleet.dstack.yml"), "type: fleet\nnodes: 2\nidle_duration: 1h\n")
	h.cliIn(dir, "validate", "fleet.dstack.yml").exits(0).says("valid, but", "fleet.dstack.yml:1:7: note: not supported yet: type fleet")
	h.cliIn(dir, "validate", "--json", "fleet.dstack.yml").exits(0).says(`"nodes": {`, `"termination_idle_time": 3600`)
	h.cliIn(dir, "validate", "-o", "json", ".").exits(2).says(`"line": 2`, `"notes"`)
	h.cliIn(dir, "apply", "-f", "fleet.dstack.yml", "-y").refuses(2, "fleet.dstack.yml:1:7: not supported yet: type fleet")
	h.cli("schema").exits(0).says("https://json-schema.org/draft/2020-12/schema", `"title": "dstack configuration"`)
	h.cli("version").exits(0).says("0.0.0-e2e")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		h.cli("completion", shell).exits(0).says("dstack")
	}
	help := h.cli("--help").exits(0)
	for _, command := range []string{"server", "config", "apply", "ps", "logs", "stop", "delete", "validate", "schema", "completion", "version"} {
		help.says(command)
		if r := h.cli(command, "--help").exits(0); !regexp.MustCompile(`(?m)^\s+dstack ` + command).MatchString(r.out) {
			t.Errorf("the help of %s has no example:\n%s", command, r.out)
		}
	}
}
