package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
	"dstack/internal/gitrepo/gittest"
)

const gitRepoID = "app-12345678"

// gitServer is a test server, and a repository that it can read.
type gitServer struct {
	*testServer
	repo *gittest.Repository
	host *gittest.HTTPHandler
	url  string
}

func newGitServer(t *testing.T) *gitServer {
	t.Helper()
	g := &gitServer{repo: gittest.NewRepository(t)}
	g.testServer = newTestServer(t, func(o *Options) {
		var err error
		if o.Repos, err = gitrepo.New(gitrepo.Options{Dir: filepath.Join(o.Dir, "repos"), Log: o.Log, Proxy: chooseProxy}); err != nil {
			t.Fatal(err)
		}
	})
	g.host = &gittest.HTTPHandler{Root: g.repo.Root}
	served := httptest.NewServer(g.host)
	t.Cleanup(served.Close)
	g.url = served.URL + g.repo.Path
	return g
}

// initBody is the body of repos/init as the client 0.18.10 sends it.
func initBody(url, token string) string {
	oauth := "null"
	if token != "" {
		oauth = `"` + token + `"`
	}
	return fmt.Sprintf(`{"repo_id": %q, "repo_info": {"repo_type": "remote", "repo_name": "app", "repo_host_name": "", "repo_port": null,
		"repo_user_name": ""}, "repo_creds": {"protocol": "https", "clone_url": %q, "private_key": null, "oauth_token": %s}}`, gitRepoID, url, oauth)
}

// gitSpec is the spec of a run of a commit, with an uploaded diff unless it is "".
func (g *gitServer) gitSpec(name, hash, diff string) dstack.RunSpec {
	g.t.Helper()
	rs := g.newRunSpec(name, plainService)
	rs.RepoID = gitRepoID
	rs.RepoData = dstack.JSON(fmt.Sprintf(`{"repo_type": "remote", "repo_name": "app", "repo_host_name": "", "repo_port": null, "repo_user_name": "",
		"repo_branch": "main", "repo_hash": %q, "repo_config_name": "Ann", "repo_config_email": null}`, hash))
	if diff != "" {
		sum := hexSHA256(diff)
		rs.RepoCodeHash = &sum
		a := g.uploadCode(sum, diff, func(r *http.Request) { r.URL.RawQuery = "repo_id=" + gitRepoID })
		if a.status != http.StatusOK {
			g.t.Fatalf("upload: %d %s", a.status, a.text)
		}
	}
	return rs
}

func TestInitRepo_GitRepositoryWithAToken(t *testing.T) {
	g := newGitServer(t)
	g.host.Token = "ghp_canary"
	a := g.callAs(g.admin, api.ProjectPrefix+"/repos/init", initBody(g.url, "ghp_canary-of-another"))
	if a.status != 400 || a.errorKind() != dstack.Invalid || !strings.Contains(a.text, "refuses these credentials") || strings.Contains(a.text, "canary") {
		t.Errorf("a wrong token: %d %s", a.status, a.text)
	}
	g.expectError(api.ProjectPrefix+"/repos/get", `{"repo_id": "`+gitRepoID+`"}`, 400, dstack.NotFound, "repo_does_not_exist")
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, "ghp_canary"), nil)
	g.mustCall(api.ProjectPrefix+"/repos/init", `{"repo_id": "`+gitRepoID+`", "repo_info": {"repo_type": "remote"}, "repo_creds": null}`, nil) // keeps them
	for path, body := range map[string]string{"/repos/list": "", "/repos/get": `{"repo_id": "` + gitRepoID + `", "include_creds": true}`} {
		a := g.callAs(g.admin, api.ProjectPrefix+path, body)
		if a.status != 200 || !strings.Contains(a.text, `"repo_type":"remote"`) || strings.Contains(a.text, "canary") || strings.Contains(a.text, g.url) {
			t.Errorf("%s answered %d %s", path, a.status, a.text)
		}
	}
	var run api.Run
	g.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: g.gitSpec("web", g.repo.Head(), "")}, &run)
	if text := g.log.String(); strings.Contains(text, "canary") {
		t.Errorf("the token is in the log: %s", text)
	}
}

// chooseProxy sends what would leave the machine, if a check failed, to a port where nobody listens.
func chooseProxy(r *http.Request) (*url.URL, error) {
	if r.URL.Hostname() == "169.254.169.254" {
		return url.Parse("http://127.0.0.1:1")
	}
	return nil, nil
}

func TestInitRepo_GitRepositoryThatCannotBeRead(t *testing.T) {
	g := newGitServer(t)
	for _, c := range []struct{ body, part string }{
		{initBody(g.url+"x", ""), "there is no repository at its URL"},
		{initBody("file:///etc", ""), "are read over https and ssh"},
		{initBody("--upload-pack=touch", ""), "is not of the form"},
		{initBody("https://git.invalid/a/b", ""), "git.invalid"},
		{initBody("git@git.invalid:a/b", ""), "no private key"},
		{initBody("http://169.254.169.254/a/b", ""), "169.254.169.254"},
		{`{"repo_id": "r", "repo_info": {"repo_type": "remote"}}`, "clone_url"},
		{`{"repo_id": "r", "repo_info": {"repo_type": "remote"}, "repo_creds": {"clone_url": 1, "oauth_token": "canary"}}`, "clone_url"},
		{`{"repo_id": "r", "repo_info": {"repo_type": "local"}, "repo_creds": {"clone_url": "https://h/p"}}`, "repo_creds are for git repositories"},
	} {
		g.expectError(api.ProjectPrefix+"/repos/init", c.body, 400, dstack.Invalid, c.part)
	}
	bob := g.createUser("bob", dstack.RoleUser)
	g.mustCall("/api/projects/main/set_members", `{"members": [{"username": "admin", "project_role": "admin"}, {"username": "bob", "project_role": "user"}]}`, nil)
	if a := g.callAs(bob, api.ProjectPrefix+"/repos/init", initBody(g.url, "")); a.status != 400 || !strings.Contains(a.text, "only global admins") {
		t.Errorf("a member and the server's own machine: %d %s", a.status, a.text)
	}
}

func TestPlan_OfAGitCommit(t *testing.T) {
	g := newGitServer(t)
	hash := g.repo.Head()
	rs := g.newRunSpec("web", plainService)
	rs.RepoID, rs.RepoData = gitRepoID, dstack.JSON(`{"repo_type": "remote", "repo_branch": "main", "repo_hash": "`+hash+`"}`)
	g.expectError(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: rs}, 400, dstack.NotFound, "repo_does_not_exist")
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, ""), nil)
	g.mustCall(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: rs}, nil)

	local := g.repo.Commit(map[string]string{"app.txt": "not pushed\n"})
	for _, path := range []string{"/runs/get_plan", "/runs/submit", "/runs/preview"} {
		g.expectError(api.ProjectPrefix+path, api.RunSpecRequest{RunSpec: g.gitSpec("web", local, "")}, 400, dstack.Invalid, "has no commit "+local[:12])
	}
	g.expectError(api.ProjectPrefix+"/runs/apply", api.ApplyRequest{RunSpec: g.gitSpec("web", local, "")}, 400, dstack.Invalid, "has no commit "+local[:12])
	g.expectError(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: g.gitSpec("web", "main", "")}, 400, dstack.Invalid, "which commit")
	rs.RepoData = dstack.JSON(`{"repo_type": "remote", "repo_hash": 1}`)
	g.expectError(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: rs}, 400, dstack.Invalid, "which commit")

	g.initRepo()
	folder := g.newRunSpec("web", plainService)
	folder.RepoID = gitRepoID
	g.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: folder}, 400, dstack.Invalid, "another type")
}

func TestSubmit_ChecksTheUploadedChanges(t *testing.T) {
	g := newGitServer(t)
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, ""), nil)
	hash := g.repo.Head()
	wrong := "diff --git a/app.txt b/app.txt\n--- a/app.txt\n+++ b/app.txt\n@@ -1 +1 @@\n-other\n+two\n"
	g.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: g.gitSpec("web", hash, wrong)}, 400, dstack.Invalid,
		"the uploaded changes cannot be applied to commit "+hash[:12])
	g.repo.Write(map[string]string{"app.txt": "two\n", "new.txt": "x\n"})
	var run api.Run
	g.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: g.gitSpec("web", hash, g.repo.Diff())}, &run)
	stored, err := g.store.Run(t.Context(), g.project().ID, "web")
	if err != nil || stored.Spec.RepoUser == "" {
		t.Errorf("the run's repo user is %q, %v", stored.Spec.RepoUser, err)
	}
}

// A state of the server is no mistake in the request: callers may try again.
func TestToRepoError_KeepsStatesOfTheServer(t *testing.T) {
	unreachable := &dstack.Error{Kind: dstack.Unavailable, Message: "its host cannot be reached"}
	busy := &dstack.Error{Kind: dstack.Unavailable, Message: "busy", Cause: fmt.Errorf("%w: no slot", gitrepo.ErrServer)}
	for _, c := range []struct {
		err  error
		want dstack.Kind
	}{{unreachable, dstack.Invalid}, {busy, dstack.Unavailable}, {&dstack.Error{Kind: dstack.Unsupported}, dstack.Unsupported}} {
		if got := dstack.KindOf(toRepoError(c.err)); got != c.want {
			t.Errorf("%v becomes %s, want %s", c.err, got, c.want)
		}
	}
}

func TestPlan_OfAGitCommitOnAFullDisk(t *testing.T) {
	g := newGitServer(t)
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, ""), nil)
	dir := t.TempDir()
	script := "#!/bin/sh\ncase $1 in version) echo git version 2.39.5;; fetch) echo 'fatal: write error: No space left on device' >&2; exit 128;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := g.gitSpec("web", strings.Repeat("a", 40), "")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	a := g.callAs(g.admin, api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: spec})
	if a.errorKind() != dstack.Unavailable || !strings.Contains(a.text, "the disk of the server's folder is full") {
		t.Errorf("%d %s", a.status, a.text)
	}
}

func TestPlan_RefusesAuthorsThatGitCannotTake(t *testing.T) {
	g := newGitServer(t)
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, ""), nil)
	rs := g.gitSpec("web", g.repo.Head(), "")
	rs.RepoData = dstack.JSON(strings.Replace(string(rs.RepoData), `"Ann"`, `"a\u0000b"`, 1))
	g.expectError(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: rs}, 400, dstack.Invalid, "repo_data.repo_config_name has control characters")
}

// The credentials of one user are not used for the runs of another.
func TestPlan_NeedsTheUsersOwnCredentials(t *testing.T) {
	g := newGitServer(t)
	g.host.Token = "s3cret"
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, "s3cret"), nil)
	g.mustCall(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: g.gitSpec("web", g.repo.Head(), "")}, nil)
	bob := g.createUser("bob", dstack.RoleAdmin)
	a := g.callAs(bob, api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: g.gitSpec("web", g.repo.Head(), "")})
	if a.status != 400 || a.errorKind() != dstack.Invalid || !strings.Contains(a.text, "has not registered the git repository") {
		t.Errorf("%d %s", a.status, a.text)
	}
	g.mustCall(api.ProjectPrefix+"/repos/delete", `{"repos_ids": ["`+gitRepoID+`"]}`, nil)
	if left, _ := filepath.Glob(filepath.Join(g.dir, "repos", "commits", "*", "*")); len(left) != 0 {
		t.Errorf("the commits of a deleted repo: %v", left)
	}
}

func TestDeleteProjects_RemovesFetchedCommits(t *testing.T) {
	g := newGitServer(t)
	g.mustCall("/api/projects/create", `{"project_name": "team"}`, nil)
	g.mustCall("/api/project/team/repos/init", initBody(g.url, ""), nil)
	project, err := g.store.Project(t.Context(), "team")
	if err != nil {
		t.Fatal(err)
	}
	user, err := g.store.User(t.Context(), AdminName)
	if err != nil {
		t.Fatal(err)
	}
	source := gitrepo.Source{Project: project.ID, Repo: gitRepoID, User: user.ID, URL: g.url, MayUseLoopback: true}
	if err := g.server.repos.Fetch(t.Context(), source, gitrepo.Commit{Hash: g.repo.Head(), Branch: "main"}); err != nil {
		t.Fatal(err)
	}
	g.mustCall("/api/projects/delete", `{"projects_names": ["team"]}`, nil)
	if left, _ := filepath.Glob(filepath.Join(g.dir, "repos", "commits", "*")); len(left) != 0 {
		t.Errorf("the commits of a deleted project: %v", left)
	}
}

func (g *gitServer) project() dstack.Project {
	g.t.Helper()
	project, err := g.store.Project(g.t.Context(), "main")
	if err != nil {
		g.t.Fatal(err)
	}
	return project
}

// A run that names no commit gets the last one of the branch, or of the default branch. Where the branch has moved, applying
// again is a change.
func TestApply_ResolvesTheCommit(t *testing.T) {
	g := newGitServer(t)
	g.mustCall(api.ProjectPrefix+"/repos/init", initBody(g.url, ""), nil)
	for _, data := range []string{`{"repo_type": "remote", "repo_name": "app", "repo_branch": null, "repo_hash": null}`,
		`{"repo_type": "remote", "repo_name": "app", "repo_branch": "main"}`} {
		rs := g.gitSpec("web", "", "")
		rs.RepoData = dstack.JSON(data)
		var plan api.RunPlan
		g.mustCall(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: rs}, &plan)
		if text := string(plan.RunSpec.RepoData); !strings.Contains(text, g.repo.Head()) || !strings.Contains(text, `"repo_branch":"main"`) {
			t.Errorf("%s: the plan has %s", data, text)
		}
	}
	rs := g.gitSpec("web", "", "")
	rs.RepoData = dstack.JSON(`{"repo_type": "remote", "repo_name": "app"}`)
	g.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs}, nil)
	var preview api.Preview
	g.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, &preview)
	if len(preview.Changes) > 0 {
		t.Errorf("the same commit is a change: %+v", preview.Changes)
	}
	g.repo.Commit(map[string]string{"app.txt": "two\n"})
	g.repo.Git("push", "--quiet", "origin", "main")
	g.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, &preview)
	if len(preview.Changes) != 1 || preview.Changes[0].Path != "code" || preview.Strategy != api.StrategyRolling {
		t.Errorf("%+v", preview.Changes)
	}
	rs.RepoData = dstack.JSON(`{"repo_type": "remote", "repo_name": "app", "repo_branch": "gone"}`)
	g.expectError(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, 400, dstack.Invalid, "has no branch")
}
