package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/gitignore"
)

// runGit runs git in the user's folder, with the user's home.
func (u *testUser) runGit(args ...string) {
	u.t.Helper()
	c := exec.Command("git", args...)
	c.Dir = u.dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + u.home, "GIT_CONFIG_NOSYSTEM=1"}
	if out, err := c.CombinedOutput(); err != nil {
		u.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// uploadedFiles returns the files that would be uploaded, without folders.
func (u *testUser) uploadedFiles() []string {
	u.t.Helper()
	names := archivedNames(u.t, u.dir)
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "/") })
}

func (u *testUser) writeFiles(names ...string) {
	u.t.Helper()
	for _, name := range names {
		u.writeFile(name, "x")
	}
}

func TestUpload_FollowsGit(t *testing.T) {
	for _, c := range []struct {
		name    string
		rules   string
		files   []string
		tracked []string
		want    []string
	}{
		{"F1: a whitelist keeps keys and weights at home", "*\n!*/\n!*.py\n!*.yml\n!.gitignore\n",
			[]string{"app.py", "keys/prod/id_rsa", "keys/prod/.env", "models/sub/w.bin"}, nil, []string{".gitignore", "app.py"}},
		{"F2: a file is taken back from dir/**", "data/**\n!data/schema.json\n",
			[]string{"data/schema.json", "data/rows.csv", "data/sub/x"}, nil, []string{".gitignore", "data/schema.json"}},
		{"F4: tracked files travel", "*.lock\n/build/\n",
			[]string{"poetry.lock", "other.lock", "build/keep/a", "build/b"}, []string{"poetry.lock", "build/keep/a"},
			[]string{".gitignore", "build/keep/a", "poetry.lock"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newTestUser(t, nil)
			u.runGit("init", "-q")
			u.writeFile(".gitignore", c.rules)
			u.writeFiles(c.files...)
			if len(c.tracked) > 0 {
				u.runGit(append([]string{"add", "-f"}, c.tracked...)...)
			}
			if got := u.uploadedFiles(); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestUpload_LeavesOutSecretsByDefault(t *testing.T) {
	left := []string{
		".env", ".env.local", ".env.prod.example.bak", "sub/.env", ".ssh/config", ".aws/credentials", ".netrc", "tls/server.pem",
		"id_rsa", "id_rsa.pub", "keys/id_ed25519", "id_ecdsa_old", ".dstack/profiles.yml", ".venv/bin/python",
		"web/node_modules/x/index.js", "pkg/__pycache__/a.pyc", ".env/bin",
	}
	kept := []string{
		".env.example", ".env.prod.sample", ".env.template", "app.env", "env", "pem", "dstack/x", "venv/x", "my_id_rsa",
	}
	for _, isTracked := range []bool{false, true} {
		for _, name := range left {
			u := newTestUser(t, nil)
			u.runGit("init", "-q")
			u.writeFiles(name, "app.py")
			if isTracked {
				u.runGit("add", "-f", ".")
			}
			packed, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
			if err != nil {
				t.Fatal(err)
			}
			packed.Close()
			if packed.Files != 1 || len(packed.LeftOut) != 1 || packed.LeftOut[0].IsTracked != isTracked ||
				!strings.HasPrefix(name+"/", packed.LeftOut[0].Path+"/") {
				t.Errorf("%s, tracked %v: %d files, left out %+v", name, isTracked, packed.Files, packed.LeftOut)
			}
		}
	}
	u := newTestUser(t, nil)
	u.writeFiles(kept...)
	slices.Sort(kept)
	if got := u.uploadedFiles(); !slices.Equal(got, kept) {
		t.Errorf("got %q, want %q", got, kept)
	}
}

func TestUpload_DstackignoreComesLast(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string // beside app.py; tracked if the content is "tracked"
		want  []string
	}{
		{"it leaves out tracked files", map[string]string{".dstackignore": "big.bin\n", "big.bin": "tracked"}, []string{"app.py"}},
		{"it takes back what .gitignore names",
			map[string]string{".gitignore": "*.bin\n", ".dstackignore": "!model.bin\n", "model.bin": "x", "b.bin": "x"},
			[]string{"app.py", "model.bin"}},
		{"it takes back folders", map[string]string{".gitignore": "models/\n", ".dstackignore": "!models/\n", "models/a": "x"},
			[]string{"app.py", "models/a"}},
		{"it takes back secrets", map[string]string{".dstackignore": "!.env\n", ".env": "x", ".env.local": "x"}, []string{".env", "app.py"}},
		{"it takes back tracked secrets", map[string]string{".dstackignore": "!.env\n", ".env": "tracked"}, []string{".env", "app.py"}},
		{"it takes back secrets that git ignores", map[string]string{".gitignore": ".env\n", ".dstackignore": "!.env\n", ".env": "x"},
			[]string{".env", "app.py"}},
		{"it takes back default folders", map[string]string{".dstackignore": "!.venv\n", ".venv/a": "x"}, []string{".venv/a", "app.py"}},
		{"a file stays out with its folder", map[string]string{".dstackignore": "!.venv/a\n", ".venv/a": "x"}, []string{"app.py"}},
		{"it is read in every folder",
			map[string]string{"sub/.dstackignore": "/a\n", "sub/a": "tracked", "sub/b": "x", "a": "x"}, []string{"a", "app.py", "sub/b"}},
		{"it wins over .gitignore files in folders",
			map[string]string{".dstackignore": "*.bin\n", "sub/.gitignore": "!keep.bin\n", "sub/keep.bin": "x"}, []string{"app.py"}},
		{"it does not untie what is in an ignored folder",
			map[string]string{".gitignore": "build/\n", ".dstackignore": "!*.bin\n", "build/a.bin": "x", "build/b": "tracked"},
			[]string{"app.py", "build/b"}},
		{"taking back all folders takes back no secrets", map[string]string{".dstackignore": "*\n!*/\n!*.json\n!*.py\n",
			".aws/sso.json": "x", ".venv/a.py": "x", "node_modules/a.json": "tracked", "a/b.json": "x"}, []string{"a/b.json", "app.py"}},
		{"taking back all names takes back no secrets", map[string]string{".gitignore": "*\n", ".dstackignore": "!*\n!*.*\n!/**\n![a-z]*\n",
			".env": "x", "id_rsa": "tracked", "server.pem": "x", "b": "x"}, []string{"app.py", "b"}},
		{"taking back a kind of names takes back secrets", map[string]string{".dstackignore": "*\n!*/\n!*.pem\n!.e*\n",
			".env": "x", "tls/server.pem": "tracked"}, []string{".env", "tls/server.pem"}},
		{"it has git's syntax", map[string]string{".dstackignore": "*\n!*/\n!*.py\n", "keys/x": "tracked"}, []string{"app.py"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newTestUser(t, nil)
			u.runGit("init", "-q")
			u.writeFiles("app.py")
			for name, content := range c.files {
				u.writeFile(name, content)
				if content == "tracked" {
					u.runGit("add", "-f", name)
				}
			}
			got := slices.DeleteFunc(u.uploadedFiles(), func(name string) bool { return strings.HasSuffix(name, "ignore") })
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestUpload_RulesAboveTheFolderApply(t *testing.T) {
	u := newTestUser(t, nil)
	u.runGit("init", "-q")
	u.writeFile(".gitignore", "*.log\n/deep/er/b\n")
	u.writeFile(".dstackignore", "c\n!.netrc\n")
	u.writeFile("deep/.dstackignore", "/er/d\n")
	u.writeFiles("deep/er/a", "deep/er/b", "deep/er/c", "deep/er/d", "deep/er/e.log", "deep/er/.netrc")
	u.dir = filepath.Join(u.dir, "deep", "er")
	if got, want := u.uploadedFiles(), []string{".netrc", "a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUpload_RefusesUnreadableRules(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFiles("app.py", "rules")
	if err := os.Symlink("rules", filepath.Join(u.dir, ".dstackignore")); err != nil {
		t.Fatal(err)
	}
	_, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("got %v", err)
	}
}

// An ignored folder costs nothing, however large it is: it is not read. It cannot be read here, and root could not tell.
func TestUpload_DoesNotReadIgnoredFolders(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFile(".gitignore", "cache/\n")
	u.writeFile("node_modules/.dstackignore/x", "x") // a rule file that is a folder is no rule file
	u.writeFiles("app.py", "cache/x")
	if err := os.Symlink("loop", filepath.Join(u.dir, "cache", ".dstackignore")); err != nil { // refused if it is read
		t.Fatal(err)
	}
	if got, want := u.uploadedFiles(), []string{".gitignore", "app.py"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPlan_SaysWhatIsUploaded(t *testing.T) {
	_, u := newApplyTest(t, readyView)
	u.runGit("init", "-q")
	u.writeFile("app.py", strings.Repeat("x", 3000))
	u.writeFiles(".env", "certs/a.pem", "a/__pycache__/x", "b/__pycache__/x", ".venv/x", "node_modules/x")
	u.runGit("add", "-f", "certs")
	got := u.run("apply", "-f", "service.dstack.yml", "-y", "-d")
	got.check(t, ExitDone, nil, []string{
		" uploads      1 file, 2KB\n",
		" left out     certs/a.pem (tracked by git), .env, .venv/, 2 × __pycache__/, node_modules/\n",
		"              to upload one all the same, write this into .dstackignore: !certs/a.pem\n",
	})
	u.writeFile(".dstackignore", "!/certs/a.pem\n")
	u.run("apply", "-f", "service.dstack.yml", "-y", "-d").check(t, ExitDone, nil, []string{" uploads      3 files, 2KB\n", " left out     .env, ",
		"write this into .dstackignore: !.env\n"})
}

func TestPlan_SaysNothingOfFilesThatAreNotLeftOut(t *testing.T) {
	_, u := newApplyTest(t, readyView)
	u.writeFiles("app.py", ".env.example")
	got := u.run("apply", "-f", "service.dstack.yml", "-y", "-d")
	if strings.Contains(got.err, "left out") || !strings.Contains(got.err, "uploads      2 files, 2B\n") {
		t.Errorf("got %s", got.err)
	}
}

func TestApply_JSONHasTheUpload(t *testing.T) {
	_, u := newApplyTest(t, readyView)
	u.runGit("init", "-q")
	u.writeFiles("app.py", ".env", ".venv/x")
	u.runGit("add", "-f", ".env")
	got := u.run("apply", "-f", "service.dstack.yml", "-y", "-d", "-o", "json")
	got.check(t, ExitDone, nil, nil)
	var result struct {
		api.RunView
		Upload uploadView `json:"upload"`
	}
	if err := json.Unmarshal([]byte(got.out), &result); err != nil {
		t.Fatal(err)
	}
	want := []leftOutEntry{{Path: ".env", IsTracked: true}, {Path: ".venv", IsFolder: true}}
	if result.Status != api.StatusReady || result.Upload.Files != 1 || result.Upload.Bytes != 1 || !slices.Equal(result.Upload.LeftOut, want) {
		t.Errorf("got %s", got.out)
	}
}

func TestDescribeLeftOut_FoldsLongLists(t *testing.T) {
	var left []leftOutEntry
	for i := range 40 {
		left = append(left, leftOutEntry{Path: fmt.Sprintf("keys/%02d.pem", i)})
	}
	got := describeLeftOut(left)
	if len(got) != maxNamedLeftOut+1 || got[maxNamedLeftOut] != "and 28 more" {
		t.Errorf("got %q", got)
	}
}

func TestTooLargeError_NamesTheLargest(t *testing.T) {
	u := newTestUser(t, nil)
	for _, name := range []string{"a/1", "a/2", "a/3", "a/4", "b/1", "c"} {
		u.writeFile(name, "")
		if err := os.Truncate(filepath.Join(u.dir, name), 15<<20); err != nil {
			t.Fatal(err)
		}
	}
	u.writeFiles("small")
	_, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if dstack.KindOf(err) != dstack.TooLarge || !strings.Contains(err.Error(), "(a/ has 60MB, b/ has 15MB, c has 15MB)") {
		t.Errorf("got %v", err)
	}
}

func TestFolderSizes_CountsFiles(t *testing.T) {
	var s folderSizes
	for i := range maxFiles + 1 {
		s.add(fmt.Sprintf("data/%d", i), 1)
	}
	s.add("app.py", 1)
	if got := s.describeLargest(); !s.areTooLarge() || got != "data/ has 50001 files" {
		t.Errorf("got %q", got)
	}
}

func TestPrintItems_WrapsOnATerminal(t *testing.T) {
	s, out := newTerminalScreen(40)
	j := &applyCommand{runWatcher: runWatcher{app: &app{screen: s}}}
	j.printItems("left out", []string{"keys/one.pem", "keys/two.pem", "keys/three.pem", "a-name-that-is-longer-than-the-line.pem"})
	want := " left out     keys/one.pem,\n              keys/two.pem,\n              keys/three.pem,\n              a-name-that-is-longer-than-the-line.pem\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The rule that the plan advises names exactly that file.
func TestEscapeRule(t *testing.T) {
	for _, name := range []string{"a b", "x*.pem", "[1].pem", `a\b`, "sub/id_rsa ", "?"} {
		rules := gitignore.ParseRules([]byte(escapeRule(name)), false)
		if rules.Match(name, false) != gitignore.Included {
			t.Errorf("%q does not match %q", escapeRule(name), name)
		}
	}
}
