package e2e

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"dstack/internal/gitrepo/gittest"
)

// uploadingClient is the published client of dstack 0.22.5, unmodified, with a repository that
// a host serves over HTTPS.
type uploadingClient struct {
	*harness
	program string
	ownHome string
	repo    *gittest.Repository
	ca      string // file
	url     string
}

func newUploadingClient(t *testing.T, engine string) *uploadingClient {
	t.Helper()
	bin := filepath.Join(needNewestClient(t), "bin", "dstack")
	u := &uploadingClient{program: bin, ownHome: t.TempDir(), repo: gittest.NewRepository(t), ca: filepath.Join(t.TempDir(), "ca.pem")}
	server := httptest.NewTLSServer(&gittest.HTTPHandler{Root: u.repo.Root})
	t.Cleanup(server.Close)
	u.url = server.URL + u.repo.Path
	if err := os.WriteFile(u.ca, gittest.EncodeCertificate(server.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	u.harness = newHarness(t, engine, "SSL_CERT_FILE="+u.ca)
	u.repo.Git("remote", "set-url", "origin", u.url)
	u.run(u.ownHome, "project", "add", "--name", "main", "--url", u.serverURL(), "--token", u.token, "-y").expectExit(0)
	return u
}

// run runs a command of the client's command line.
func (u *uploadingClient) run(dir string, args ...string) *result {
	u.t.Helper()
	p := &publishedClient{harness: u.harness, ownHome: u.ownHome}
	cmd := exec.CommandContext(u.t.Context(), u.program, args...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	cmd.Env = append(p.buildEnv(), "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost", "GIT_SSL_CAINFO="+u.ca)
	return p.finish(cmd)
}

// configure writes a configuration with `files` and `repos`, and the files.
func (u *uploadingClient) configure(dir, name, conf, repo string) {
	u.t.Helper()
	port := findFreePort(u.t)
	host := map[string]string{"process": "127.0.0.1", "docker": "0.0.0.0"}[u.engine]
	for file, text := range map[string]string{"conf/app.yml": "setting: one\n", "conf/ignored.txt": "no", "conf/.gitignore": "ignored.txt\n", "other.txt": "not named",
		name + ".dstack.yml": fmt.Sprintf("type: service\nname: %s\nfiles:\n- conf:%s\n- %s:workload\nrepos:\n- %s\ncommands:\n- cat %s/app.yml code/app.txt\n- ls -A . code\n"+
			"- cat code/.git/HEAD\n- exec ./workload %d\nport: %d\nenv:\n- HOST=%s\n", name, conf, workloadBinary, repo, conf, port, port, host)} {
		u.writeFile(filepath.Join(dir, file), text)
	}
}

// TestNewestClient_Files applies with `files` and a clone that has changes, which were not
// pushed, as plain processes.
func TestNewestClient_Files(t *testing.T) {
	runParallel(t)
	u := newUploadingClient(t, "process")
	dir := filepath.Join(u.home, "project")
	u.configure(dir, "uploaded", "etc/conf", "{local_path: "+u.repo.Clone+", path: code}")
	u.repo.Write(map[string]string{"app.txt": "not pushed\n"})
	apply := []string{"apply", "-f", "uploaded.dstack.yml", "-y", "-d"}
	u.run(dir, apply...).expectExit(0)
	u.waitForPrinted("uploaded", "setting: one", "not pushed", "app.txt", "ref: refs/heads/main")
	u.runCLI("logs", "uploaded").expectNoText("other.txt", "ignored.txt", "dstack.yml")
	u.run(dir, apply...).expectExit(0)
	u.writeFile(filepath.Join(dir, "conf", "app.yml"), "setting: two\n")
	u.run(dir, apply...).expectExit(0)
	u.waitForPrinted("uploaded", "setting: two")
	u.runCLI("history", "uploaded", "-o", "json").expectText(`"revision": 2`, `"files.0"`).expectNoText(`"revision": 3`)
	u.configure(dir, "outside", "/etc/app", "{url: '"+u.url+"', path: code}")
	u.run(dir, "apply", "-f", "outside.dstack.yml", "-y", "-d").expectExit(1).expectText("/etc/app is outside", "inside of the working directory")
}

// TestNewestClient_RepoURL applies with a repository by its URL, of which the server finds the
// last commit, and with a file at an absolute path, in a container.
func TestNewestClient_RepoURL(t *testing.T) {
	runParallel(t)
	needBaseImage(t)
	u := newUploadingClient(t, "docker")
	dir := filepath.Join(u.home, "project")
	u.configure(dir, "cloned", "/etc/app/conf", "{url: '"+u.url+"', path: code}")
	u.run(dir, "apply", "-f", "cloned.dstack.yml", "-y", "-d").expectExit(0)
	u.waitForPrinted("cloned", "setting: one", "one", "ref: refs/heads/main")
}
