package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
)

// answerFile stores an archive, or finds one.
func (f *fakeServer) answerFile(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash := ""
	if r.URL.Path == api.PathArchiveByHash {
		hash = decodeBody[api.GetArchiveByHash](r).Hash
	} else if file, header, err := r.FormFile("file"); err == nil {
		hash = header.Filename
		f.uploads[hash], _ = io.ReadAll(file)
	}
	if f.uploads[hash] == nil {
		writeAnswer(w, 400, `{"detail":[{"msg":"Not found","code":"resource_not_exists"}]}`)
		return
	}
	writeAnswer(w, 200, api.FileArchive{ID: "id-" + hash[:4], Hash: hash})
}

func newNamedService(name, files string) string {
	return "type: service\nname: " + name + "\nport: 8000\ncommands: [serve]\nfiles: " + files + "\n"
}

func TestApply_UploadsOnlyNamedFiles(t *testing.T) {
	f, u := newApplyTest(t, startingView(""))
	for name, text := range map[string]string{"conf/app.yml": "one", "conf/sub/x": "two", "conf/.env": "secret", "conf/a.log": "", "conf/.gitignore": "*.log",
		"other.txt": "no", ".env": "TOKEN=1"} {
		u.writeFile(name, text)
	}
	u.writeFile("service.dstack.yml", newNamedService("named", "['./conf:/etc/app', .env, 'conf/app.yml:a', 'conf/app.yml:b']"))
	got := u.run("apply", "-f", "service.dstack.yml", "-y", "-d", "-o", "json")
	got.check(t, ExitDone, nil, []string{"3 files, ", "./conf → /etc/app", "1 file, 7B: .env → .env", "nothing else of the folder", "left out     conf/.env",
		"write this into conf/.dstackignore: !.env", ".env may hold secrets, and is uploaded"})
	var result struct {
		Upload struct {
			Files   int
			Named   []namedUpload
			LeftOut []struct{ Path string } `json:"left_out"`
		}
	}
	if err := json.Unmarshal([]byte(got.out), &result); err != nil || result.Upload.Files != 6 || len(result.Upload.Named) != 4 || len(result.Upload.LeftOut) != 1 {
		t.Errorf("%s, %v", got.out, err)
	}
	if len(f.uploads) != 3 || len(f.applied) != 1 {
		t.Fatalf("%d uploads, %d runs", len(f.uploads), len(f.applied))
	}
	rs := f.applied[0].RunSpec
	if rs.RepoID != "none" || rs.RepoCodeHash != nil || len(rs.FileArchives) != 4 || rs.FileArchives[0].ID == "" || rs.FileArchives[3].ID != rs.FileArchives[2].ID {
		t.Errorf("%+v", rs)
	}
	if names := tarNames(t, f.uploads[rs.FileArchives[0].Hash]); !slices.Equal(names, []string{"files/", "files/.gitignore", "files/app.yml", "files/sub/", "files/sub/x"}) {
		t.Errorf("%q", names)
	}
	if names := tarNames(t, f.uploads[rs.FileArchives[1].Hash]); !slices.Equal(names, []string{"files"}) {
		t.Errorf("%q", names)
	}
	if bytes.Contains(f.uploads[rs.FileArchives[0].Hash], []byte("secret")) {
		t.Error("a secret was uploaded")
	}

	if err := os.Rename(filepath.Join(u.dir, "conf"), filepath.Join(u.dir, "renamed")); err != nil {
		t.Fatal(err)
	}
	u.writeFile("deep/service.dstack.yml", newNamedService("named", "['../renamed:/etc/app']"))
	u.run("apply", "-f", "deep/service.dstack.yml", "-y", "-d").check(t, ExitDone, nil, nil)
	if again := f.applied[1].RunSpec.FileArchives; again[0].Hash != rs.FileArchives[0].Hash || len(f.uploads) != 3 {
		t.Errorf("the same content has another hash: %+v", again)
	}
}

func TestApply_ReportsAllMissingFiles(t *testing.T) {
	_, u := newApplyTest(t, startingView(""))
	u.writeFile("service.dstack.yml", newNamedService("named", "[missing, /dev/null, '~/gone:x']"))
	u.run("apply", "-f", "service.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"service.dstack.yml:5:", "cannot upload missing: ",
		"cannot upload /dev/null: it is neither a file nor a folder", "cannot upload ~/gone: ", "3 problems"})
}

// Of several services, those with files upload these, and the others share the folder.
func TestApplyMany_MixesNamedFilesAndFolders(t *testing.T) {
	f, u := newFolderTest(t, startingView(""))
	u.writeFile("all/0.dstack.yml", newNamedService("zero", "[notes.yml]"))
	u.writeFile("all/2.dstack.yaml", newNamedService("two", "[notes.yml, .]"))
	got := u.run("apply", "-f", "all", "-y")
	got.check(t, ExitDone, []string{"zero ", "one ", "two ", "three "}, []string{"notes.yml → notes.yml", ". → ."})
	if len(f.uploads) != 3 {
		t.Errorf("%d uploads", len(f.uploads))
	}
	for _, a := range f.applied {
		isNamed := slices.Contains([]string{"zero", "two"}, *a.RunSpec.RunName)
		if isNamed != (len(a.RunSpec.FileArchives) > 0) || isNamed == (a.RunSpec.RepoCodeHash != nil) || isNamed != (a.RunSpec.RepoID == "none") {
			t.Errorf("%s: %+v", *a.RunSpec.RunName, a.RunSpec)
		}
	}
}

func TestRepoIDOf_EqualsThatOfThePublishedClient(t *testing.T) {
	for address, want := range map[string]string{
		"https://127.0.0.1:8443/team/app.git": "app-b7gnigjw",
		"git@github.com:dstackai/Dstack.git":  "Dstack-p4vwl2a6",
		"ssh://git@Example.com:22/a/b/c.git/": "c-r0u4rnnr",
		"https://github.com/org/my_app-x":     "my_app-x-a7mew6ax",
	} {
		if got := repoIDOf(repoLocation(address)); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

func TestInit_RefusesIncompleteCredentials(t *testing.T) {
	_, u := newApplyTest(t)
	for args, want := range map[string]string{
		"init --token x": "are for a git repository",
		"init --repo https://example.com/a --token x --git-identity y": "exclude each other",
		"init --repo https://example.com/a --git-identity y":           "cannot read y",
		"init --repo .": "is not in a git repository",
	} {
		u.run(strings.Fields(args)...).check(t, ExitInvalid, nil, []string{want})
	}
}
