package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfig_KeepsTheEntryOfAnotherServer checks that `dstack config` keeps an entry of the
// same name that is for another server, and that --name avoids that.
func TestConfig_KeepsTheEntryOfAnotherServer(t *testing.T) {
	f, u := newFakeServer(t), newTestUser(t, nil)
	if _, err := SaveServer(t.Context(), u.home, newTestDaemon(local1, "A", "a")); err != nil {
		t.Fatal(err)
	}
	u.run("config", "--name", "work", "--project", "main", "--url", f.URL, "--token", "dst_good", "--no-default").
		check(t, ExitDone, nil, []string{"project work at " + f.URL + " is configured"})
	want := "main* " + local1 + " a A\nwork=main " + f.URL + " dst_good "
	if got := formatEntries(t, u.home); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	u.run("ps", "--project", "work").check(t, ExitDone, nil, nil)
	if !f.hasRequest("/api/runs/views") {
		t.Error("ps did not ask the server of the entry")
	}
	u.run("config", "--project", "main", "--url", f.URL, "--token", "dst_good").
		check(t, ExitDone, nil, []string{"the entry main of another server is kept as main-2"})
	if got := formatEntries(t, u.home); !strings.Contains(got, "main-2=main "+local1+" a A") || !strings.Contains(got, "main* "+f.URL+" dst_good ") {
		t.Errorf("got\n%s", got)
	}
	// To choose another entry, its server need not run.
	u.run("config", "--project", "main-2", "--default").check(t, ExitDone, nil, []string{"project main-2 at " + local1})
	if got := formatEntries(t, u.home); !strings.Contains(got, "main-2=main* "+local1+" a A") {
		t.Errorf("got\n%s", got)
	}
}

// TestConfig_TokenFile checks --token-file of `dstack config`.
func TestConfig_TokenFile(t *testing.T) {
	f, u := newFakeServer(t), newTestUser(t, nil)
	u.writeFile("good", "dst_good\n")
	u.writeFile("empty", "\n")
	u.run("config", "--url", f.URL, "--token-file", "nowhere").check(t, ExitInvalid, nil, []string{"cannot read the token from nowhere: no such file"})
	u.run("config", "--url", f.URL, "--token-file", "empty").check(t, ExitInvalid, nil, []string{"there is no token in empty"})
	u.run("config", "--url", f.URL, "--token-file", "good", "--token", "x").check(t, ExitInvalid, nil, []string{"do not go together"})
	u.run("config", "--url", f.URL, "--token-file", "good").check(t, ExitDone, nil, []string{"is configured"})
}

// TestConnect_SaysThatTheTokenIsNotUsed checks the note about DSTACK_TOKEN.
func TestConnect_SaysThatTheTokenIsNotUsed(t *testing.T) {
	f, u := newFakeServer(t), newTestUser(t, nil)
	u.run("config", "--url", f.URL, "--token", "dst_good").check(t, ExitDone, nil, nil)
	u.env["DSTACK_TOKEN"] = "dst_other"
	u.run("ps").check(t, ExitDone, nil, []string{"note: DSTACK_TOKEN is not used without DSTACK_URL; this command uses the token of main"})
	u.env["DSTACK_TOKEN"] = "dst_good"
	if got := u.run("ps"); strings.Contains(got.err, "DSTACK_TOKEN") {
		t.Errorf("a note without a reason: %s", got.err)
	}
}

// TestInit_KeepsTheKeyOfTheFolder checks that `dstack init` writes what the published
// client needs, and keeps what it wrote.
func TestInit_KeepsTheKeyOfTheFolder(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.run("init").check(t, ExitDone, nil, nil)
	path := clientConfigPath(u.home)
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "ssh_key_path: "+filepath.Join(u.home, ".dstack", "ssh", "id_rsa")) {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "id_rsa", "mine", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	u.run("init").check(t, ExitDone, nil, nil)
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), "ssh_key_path") != 1 || !strings.Contains(string(text), "/mine") {
		t.Errorf("%v\n%s", err, text)
	}
}
