package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newTestDaemon returns a server that accepts its new token and those in valid.
func newTestDaemon(url, installation, newToken string, valid ...string) Server {
	return Server{URL: url, Project: "main", Installation: installation, Token: newToken,
		IsValid:   func(token string) bool { return slices.Contains(valid, token) || newToken != "" && token == newToken },
		WasAdmins: func(token string) bool { return token == "was-"+installation }}
}

// formatEntries returns a configuration in short: name[=project] url token, * for the default.
func formatEntries(t *testing.T, home string) string {
	t.Helper()
	config, err := readClientConfig(home)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range config.Projects {
		name := p.Name
		if p.Project != "" {
			name += "=" + p.Project
		}
		if p.Default {
			name += "*"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s", name, p.URL, p.Token, p.Installation))
	}
	return strings.Join(lines, "\n")
}

const (
	local3000 = "http://127.0.0.1:3000"
	local1    = "http://127.0.0.1:1" // nothing listens there
	local2    = "http://127.0.0.1:2"
	remote    = "https://dstack.invalid"
)

// TestSaveServer has one case for each rule about the entries of several servers.
func TestSaveServer(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []projectConfig
		server Server
		want   string
		says   string // part of the changes; empty: there are none
	}{
		{"the first entry is the default", nil, newTestDaemon(local1, "A", "a"), "main* " + local1 + " a A", ""},
		{"the same installation corrects its URL", []projectConfig{{Name: "main", URL: local1, Token: "a", Default: true, Installation: "A"}},
			newTestDaemon(local2, "A", "", "a"), "main* " + local2 + " a A", "main is now at " + local2 + ", before at " + local1},
		{"an entry of an older version is recognized by its token", []projectConfig{{Name: "main", URL: local1, Token: "a", Default: true}},
			newTestDaemon(local2, "A", "", "a"), "main* " + local2 + " a A", "main is now at"},
		{"a new token replaces the old one", []projectConfig{{Name: "main", URL: local1, Token: "was-A", Default: true},
			{Name: "lab", URL: local1, Token: "was-A", Installation: "A"}, {Name: "ann", URL: local1, Token: "anns", Installation: "A"}},
			newTestDaemon(local1, "A", "new", "anns"),
			"main* " + local1 + " new A\nlab " + local1 + " new A\nann " + local1 + " anns A", ""},
		{"another installation gets a new name", []projectConfig{{Name: "main", URL: local1, Token: "a", Default: true, Installation: "A"}},
			newTestDaemon(local2, "B", "b"), "main* " + local1 + " a A\nmain-2=main " + local2 + " b B", "main is the entry of another server, at " + local1},
		{"the entry that was used stays the default", []projectConfig{{Name: "main", URL: remote, Token: "a"}},
			newTestDaemon(local2, "B", "b"), "main* " + remote + " a \nmain-2=main " + local2 + " b B", "main is the entry"},
		{"a re-created folder takes over the name at the same URL", []projectConfig{{Name: "main", URL: local1, Token: "a", Default: true, Installation: "A"}},
			newTestDaemon(local1, "B", "b"), "main* " + local1 + " b B\nmain-2=main " + local1 + " a A", "is now called main-2"},
		{"the old folder comes back at its URL", []projectConfig{{Name: "main", URL: local1, Token: "b", Default: true, Installation: "B"},
			{Name: "main-2", Project: "main", URL: local1, Token: "a", Installation: "A"}},
			newTestDaemon(local1, "A", "", "a"), "main-2=main " + local1 + " b B\nmain* " + local1 + " a A", "is now called main-2"},
		{"the old folder comes back at another URL", []projectConfig{{Name: "main", URL: local1, Token: "b", Default: true, Installation: "B"},
			{Name: "main-2", Project: "main", URL: local1, Token: "a", Installation: "A"}},
			newTestDaemon(local2, "A", "", "a"), "main* " + local1 + " b B\nmain-2=main " + local2 + " a A", "main-2 is now at"},
		{"an entry for a remote server is not touched", []projectConfig{{Name: "main", URL: remote, Token: "a", Default: true}},
			newTestDaemon(local1, "A", "", "a"), "main* " + remote + " a ", ""},
		{"also when its token is the one of this server", []projectConfig{{Name: "main", URL: remote, Token: "a", Default: true}},
			newTestDaemon(local1, "A", "a"), "main* " + remote + " a ", ""},
		{"two installations with the same token", []projectConfig{{Name: "main", URL: local1, Token: "same", Default: true, Installation: "A"}},
			newTestDaemon(local2, "B", "same"), "main* " + local1 + " same A\nmain-2=main " + local2 + " same B", "main is the entry"},
		{"an unknown token writes nothing", nil, newTestDaemon(local1, "A", ""), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			home := t.TempDir()
			if len(c.before) > 0 {
				err := updateClientConfig(home, func(config *clientConfig) error { config.Projects = c.before; return nil })
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second start changes nothing
				saved, err := SaveServer(t.Context(), home, c.server)
				if err != nil {
					t.Fatal(err)
				}
				if got := formatEntries(t, home); got != c.want {
					t.Errorf("got\n%s\nwant\n%s", got, c.want)
				}
				if got := strings.Join(saved.Changes, "; "); !strings.Contains(got, c.says) || c.says == "" && got != "" {
					t.Errorf("it says %q, want %q", got, c.says)
				}
				c.says, c.server.Token = "", ""
			}
		})
	}
}

// TestSaveServer_DefaultChoice checks --default and --no-default.
func TestSaveServer_DefaultChoice(t *testing.T) {
	for choice, want := range map[DefaultChoice]string{DefaultYes: "main-2", DefaultNo: "main", DefaultUnset: "main"} {
		home := t.TempDir()
		if _, err := SaveServer(t.Context(), home, newTestDaemon(local1, "A", "a")); err != nil {
			t.Fatal(err)
		}
		other := newTestDaemon(local2, "B", "b")
		other.Default = choice
		saved, err := SaveServer(t.Context(), home, other)
		if err != nil || saved.Entry != "main-2" || saved.IsDefault != (want == "main-2") {
			t.Errorf("%q: %+v %v", choice, saved, err)
		}
		if config, err := readClientConfig(home); err != nil || config.defaultProject().Name != want {
			t.Errorf("%q: %s", choice, formatEntries(t, home))
		}
	}
	home, first := t.TempDir(), newTestDaemon(local1, "A", "a")
	first.Default = DefaultNo
	if _, err := SaveServer(t.Context(), home, first); err != nil || formatEntries(t, home) != "main "+local1+" a A" {
		t.Errorf("--no-default: %s, %v", formatEntries(t, home), err)
	}
}

// TestSaveServer_KeepsAWorkingURL checks that an entry keeps the URL of another server of
// the same installation while that server answers.
func TestSaveServer_KeepsAWorkingURL(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer a" {
			fmt.Fprint(w, `{"username": "admin"}`)
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer other.Close()
	home := t.TempDir()
	if _, err := SaveServer(t.Context(), home, newTestDaemon(other.URL, "A", "a")); err != nil {
		t.Fatal(err)
	}
	saved, err := SaveServer(t.Context(), home, newTestDaemon(local1, "A", "", "a"))
	if err != nil || !saved.HasAccess || formatEntries(t, home) != "main* "+other.URL+" a A" {
		t.Errorf("%+v %v %s", saved, err, formatEntries(t, home))
	}
}

// TestSaveServer_LeavesAnEntryThatTheUserEdited checks that an entry whose URL was changed
// by hand counts as the user's, although a server wrote it.
func TestSaveServer_LeavesAnEntryThatTheUserEdited(t *testing.T) {
	home := t.TempDir()
	if _, err := SaveServer(t.Context(), home, newTestDaemon(local1, "A", "a")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(clientConfigPath(home))
	if err == nil {
		err = os.WriteFile(clientConfigPath(home), []byte(strings.Replace(string(text), local1, remote, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	saved, err := SaveServer(t.Context(), home, newTestDaemon(local2, "A", "", "a"))
	if got := formatEntries(t, home); err != nil || !saved.HasAccess || got != "main* "+remote+" a " {
		t.Errorf("%+v %v\n%s", saved, err, got)
	}
}

// TestSaveServer_WritesOnlyForAChange checks that a home without write access is no
// problem while the file is right.
func TestSaveServer_WritesOnlyForAChange(t *testing.T) {
	home := t.TempDir()
	s := newTestDaemon(local1, "A", "a")
	if _, err := SaveServer(t.Context(), home, s); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(clientConfigPath(home) + ".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := SaveServer(t.Context(), home, s); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(clientConfigPath(home) + ".lock"); err == nil {
		t.Error("the file was locked to change nothing")
	}
}

// TestClientConfig_SuitsThePublishedClient checks that config.yml has no field besides
// those of the published client 0.18.10: it takes a file with another field for an empty
// one and overwrites it.
func TestClientConfig_SuitsThePublishedClient(t *testing.T) {
	home := t.TempDir()
	for _, s := range []Server{newTestDaemon(local1, "A", "a"), newTestDaemon(local1, "B", "b"), newTestDaemon(local2, "C", "c")} {
		if _, err := SaveServer(t.Context(), home, s); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(clientConfigPath(home))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(strings.TrimSpace(strings.TrimLeft(line, " -")), ":")
		if !slices.Contains([]string{"projects", "name", "url", "token", "default"}, key) {
			t.Errorf("the field %q is not one of the published client's", key)
		}
	}
	records, err := os.ReadFile(filepath.Join(home, ".dstack", "servers.yml"))
	if err != nil || strings.Contains(string(records), "token: ") {
		t.Errorf("servers.yml: %v\n%s", err, records)
	}
}
