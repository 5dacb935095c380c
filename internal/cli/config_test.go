package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestConfig(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, nil)
	u.run("config").check(t, ExitInvalid, nil, []string{"no server is configured", "dstack config --project main --url URL"})
	u.run("config", "--project", "main").check(t, ExitInvalid, nil, []string{"the server's address is missing"})
	u.run("config", "--url", f.URL).check(t, ExitInvalid, nil, []string{"the token is missing", "--token -"})
	u.run("config", "--url", "localhost", "--token", "x").check(t, ExitInvalid, nil, []string{"is not the URL of a dstack server"})
	u.run("config", "--url", f.URL, "--token", "dst_bad").check(t, ExitFailed, nil, []string{"does not know this token"})
	if _, err := os.Stat(clientConfigPath(u.home)); err == nil {
		t.Fatal("a failed command wrote the file")
	}
	u.in = strings.NewReader("dst_good\n")
	u.run("config", "--url", f.URL+"/", "--token", "-").check(t, ExitDone, nil, []string{"project main at " + f.URL + " is configured"})
	u.run("config", "--project", "Other", "--url", f.URL, "--token", "dst_good").check(t, ExitDone, nil, nil)
	got := u.run("config")
	got.check(t, ExitDone, []string{"main     " + f.URL + "  yes", "other    " + f.URL + "  -"}, nil)
	u.run("config", "-o", "json").check(t, ExitDone, []string{`"name": "other"`, `"default": true`}, nil)
	if strings.Contains(got.out, "dst_") {
		t.Error("the token was printed")
	}
	u.run("config", "--project", "other", "--default").check(t, ExitDone, nil, nil)
	if place, err := newTestApp(u).resolveProject(); err != nil || place.Name != "other" {
		t.Errorf("the default is %+v (%v)", place, err)
	}
	// A project without an entry is looked for at the server of the default.
	u.run("config", "--project", "third").check(t, ExitDone, nil, []string{"project third at " + f.URL + " is configured"})
	u.run("config", "--project", "third", "--remove").check(t, ExitDone, nil, nil)
	// A stored token is not sent to another URL.
	u.run("config", "--project", "other", "--url", "http://127.0.0.1:9").check(t, ExitInvalid, nil, []string{"the token is missing"})
	u.run("config", "--project", "othr", "--remove").check(t, ExitInvalid, nil, []string{"did you mean `other`?"})
	u.run("config", "--project", "other", "--remove").check(t, ExitDone, nil, []string{"project other is removed"})
	info, err := os.Stat(clientConfigPath(u.home))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func newTestApp(u *testUser) *app {
	return newApp(Options{Home: u.home, Dir: u.dir, In: u.in, Env: func(name string) (string, bool) { v, ok := u.env[name]; return v, ok }})
}

func TestResolveProject_Precedence(t *testing.T) {
	u := newTestUser(t, nil)
	for _, name := range []string{"one", "two"} {
		if err := saveProject(u.home, projectConfig{Name: name, URL: "http://" + name, Token: "t-" + name}, DefaultUnset); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		flag string
		env  map[string]string
		want string
	}{
		{"", nil, "one http://one t-one"},
		{"TWO", nil, "two http://two t-two"},
		{"", map[string]string{"DSTACK_PROJECT": "two"}, "two http://two t-two"},
		{"one", map[string]string{"DSTACK_PROJECT": "two"}, "one http://one t-one"},
		{"", map[string]string{"DSTACK_URL": "http://ci", "DSTACK_TOKEN": "x"}, "main http://ci x"},
		{"p", map[string]string{"DSTACK_URL": "http://ci", "DSTACK_TOKEN": "x"}, "p http://ci x"},
		{"", map[string]string{"DSTACK_URL": "http://ci"}, "DSTACK_URL is set without DSTACK_TOKEN"},
		{"three", nil, "project `three` is not configured"},
	} {
		u.env = c.env
		a := newTestApp(u)
		a.project = c.flag
		place, err := a.resolveProject()
		got := strings.Join([]string{place.Name, place.URL, place.Token}, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func TestConfigure_KeepsUnknownFieldsAndConcurrentChanges(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".dstack"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := "projects:\n- {name: main, url: http://old, token: t, default: true, colour: red}\n- {name: b, url: u, token: t, default: null}\nrepos:\n- {path: /x, repo_id: r, repo_type: remote, ssh_key_path: /k}\nnews: [1, 2]\n"
	if err := os.WriteFile(clientConfigPath(home), []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := saveProject(home, projectConfig{Name: fmt.Sprint("p", i), URL: "http://p", Token: "t"}, DefaultUnset); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := saveProject(home, projectConfig{Name: "main", URL: "http://new", Token: "t2"}, DefaultUnset); err != nil {
		t.Fatal(err)
	}
	book, err := readClientConfig(home)
	if err != nil || len(book.Projects) != 10 {
		t.Fatalf("%+v %v", book, err)
	}
	text, err := os.ReadFile(clientConfigPath(home))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"http://new", "colour: red", "ssh_key_path: /k", "news:"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is lost in\n%s", want, text)
		}
	}
	if main := book.findProject("main"); main.Token != "t2" || !main.Default {
		t.Errorf("got %+v", main)
	}
	if info, err := os.Stat(clientConfigPath(home)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the token: %v %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(home, ".dstack", ".config-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestConfig_ReportsAMalformedFile(t *testing.T) {
	u := newTestUser(t, nil)
	if err := os.MkdirAll(filepath.Join(u.home, ".dstack"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(clientConfigPath(u.home), []byte("projects: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.run("ps").check(t, ExitInvalid, nil, []string{"cannot read " + clientConfigPath(u.home), "fix that file"})
}
