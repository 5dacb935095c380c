package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// libraryWords are words of Go's and of the YAML library that people must not see.
var libraryWords = regexp.MustCompile(`\bdial\b|\btcp\b|\blookup\b|context deadline|context canceled|\bEOF\b|unmarshal|strconv|` +
	`Go (value|struct)|net/http|json:|yaml|!!|construct|cli\.|time: |\bopen /|\bstat /|invalid character|missing unit|(Get|Post) "|invalid syntax|\bparse "`)

// Whatever is wrong with what people write, they read no words of Go's libraries.
func TestInput_ShowsNoWordsOfLibraries(t *testing.T) {
	f := newFakeServer(t)
	check := func(what string, got commandResult) {
		t.Helper()
		if got.code == ExitDone || libraryWords.MatchString(strings.ReplaceAll(got.err, "yaml-language", "")) || !strings.Contains(got.err, "  try   ") {
			t.Errorf("%s: exit status %d\n%s", what, got.code, got.err)
		}
	}
	for _, content := range []string{"projects: 3", "projects: [a", `{"a":`, "projects:\n- name: [x]", "\xff\xfe", "- 1",
		`projects: [{name: x, url: 5, token: a}]`, `projects: [{name: x, url: "http://[::1", token: a}]`,
		`projects: [{name: main, url: "http://127.0.0.1:1", token: abc, default: maybe}]`} {
		u := newTestUser(t, f)
		u.env = map[string]string{}
		if err := os.MkdirAll(filepath.Join(u.home, ".dstack"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(clientConfigPath(u.home), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("config.yml %q", content), u.run("ps"))
	}
	for _, url := range []string{"abc", "http://127.0.0.1:1", "http://no-such-host.invalid", "http://[::1", "http://127.0.0.1:99999", strings.Replace(f.URL, "http", "https", 1)} {
		u := newTestUser(t, f)
		u.env = map[string]string{"DSTACK_URL": url, "DSTACK_TOKEN": "dst_good"}
		check("DSTACK_URL="+url, u.run("ps"))
	}
	folder := t.TempDir()
	for _, args := range []string{"logs web --tail x", "logs web --since x", "logs web --replica x", "events web --since x", "events web -n x",
		"apply -f FOLDER/no.yml", "apply --timeout 3", "apply --max-price x", "apply --max-duration x", "apply --env-file FOLDER", "apply --env-file FOLDER/no",
		"apply --gpu :::", "apply --disk x", "apply --retry-duration x", "apply --max-offers x", "secret set A --from-file FOLDER", "config --token-file FOLDER/no --url http://127.0.0.1:1",
		"rollback web --to x", "validate FOLDER/no", "template render --chat-template FOLDER/no --messages FOLDER/no"} {
		check(args, newTestUser(t, f).run(strings.Fields(strings.ReplaceAll(args, "FOLDER", folder))...))
	}
}

// A server that answers nonsense is named, with what to check.
func TestServer_NonsenseShowsNoWordsOfLibraries(t *testing.T) {
	for what, answer := range map[string]http.HandlerFunc{
		"a page":           func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"half a document":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":`) },
		"another document": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id": 5, "name": []}`) },
		"a cut answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "[]")
		},
		"a closed connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"an error":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); fmt.Fprint(w, "oops") },
		"not found":           http.NotFound,
		"a proxy's error":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); fmt.Fprint(w, "<html>bad gateway") },
	} {
		server := httptest.NewServer(answer)
		for _, args := range []string{"ps", "logs web", "history web", "events web", "explain web", "stop web -y", "secret list", "user list", "project list", "init"} {
			if what == "another document" && (args == "init" || args == "explain web") {
				continue // the first expects none, the second knows no such fields
			}
			u := newTestUser(t, newFakeServer(t))
			u.env = map[string]string{"DSTACK_URL": server.URL, "DSTACK_TOKEN": "dst_good"}
			got := u.run(strings.Fields(args)...)
			if got.code == ExitDone || libraryWords.MatchString(got.err) || !strings.Contains(got.err, "  try   ") {
				t.Errorf("%s, %s: exit status %d\n%s", what, args, got.code, got.err)
			}
		}
		server.Close()
	}
}
