package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/gitrepo/gittest"
)

// gitUser is a user of the published client with a clone of a repository, which a host
// serves over HTTPS.
type gitUser struct {
	*publishedClient
	repo *gittest.Repository
	host *gittest.HTTPHandler
	url  string
	ca   string // file

	clientEnv []string // more variables of the client
}

func newGitUser(t *testing.T, engine string) *gitUser {
	t.Helper()
	needPublishedClient(t)
	u := &gitUser{repo: gittest.NewRepository(t), ca: filepath.Join(t.TempDir(), "ca.pem")}
	u.host = &gittest.HTTPHandler{Root: u.repo.Root}
	server := httptest.NewTLSServer(u.host)
	t.Cleanup(server.Close)
	u.url = server.URL + u.repo.Path
	if err := os.WriteFile(u.ca, gittest.EncodeCertificate(server.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	u.publishedClient = newPublishedClient(newHarness(t, engine, "SSL_CERT_FILE="+u.ca))
	u.repo.Git("remote", "set-url", "origin", u.url)
	return u
}

// inClone runs a command of the client's command line in the clone.
func (u *gitUser) inClone(args ...string) *result {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), filepath.Join(u.bin, "dstack"), args...)
	cmd.Dir, cmd.WaitDelay = u.repo.Clone, 5*time.Second
	cmd.Env = append(u.publishedClient.buildEnv(), "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost",
		"REQUESTS_CA_BUNDLE="+u.ca, "GIT_SSL_CAINFO="+u.ca)
	cmd.Env = append(cmd.Env, u.clientEnv...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		u.t.Fatalf("%s: %v", cmd, err)
	}
	return &result{t: u.t, line: "published dstack " + strings.Join(args, " "), out: out.String(), err: errOut.String(), code: cmd.ProcessState.ExitCode()}
}

// configure commits a service that prints its files, and pushes it.
func (u *gitUser) configure(name string) {
	u.t.Helper()
	port := findFreePort(u.t)
	host := map[string]string{"process": "127.0.0.1", "docker": "0.0.0.0"}[u.engine]
	config := fmt.Sprintf("type: service\nname: %s\ncommands:\n- cat app.txt new.txt .git/HEAD\n- exec ./workload %d\nport: %d\nenv:\n- HOST=%s\n", name, port, port, host)
	workload, err := os.ReadFile(workloadBinary)
	if err != nil {
		u.t.Fatal(err)
	}
	u.repo.Write(map[string]string{"service.dstack.yml": config, "workload": string(workload), "new.txt": "pushed\n"})
	if err := os.Chmod(filepath.Join(u.repo.Clone, "workload"), 0o755); err != nil {
		u.t.Fatal(err)
	}
	u.push(nil)
}

// push commits files and pushes them into the bare repository, which the host only reads.
func (u *gitUser) push(files map[string]string) {
	u.t.Helper()
	u.repo.Commit(files)
	u.repo.Git("push", "--quiet", "--force", filepath.Join(u.repo.Root, u.repo.Path), "main")
	u.repo.Git("update-ref", "refs/remotes/origin/main", "HEAD")
}

func (u *gitUser) waitForOutput(run string, lines ...string) {
	u.t.Helper()
	u.waitUntil(time.Minute, fmt.Sprintf("%s prints %q", run, lines), func() error {
		r := u.runCLI("logs", run).expectExit(0)
		for _, line := range lines {
			if !strings.Contains(r.out, line) {
				return errors.New(r.out + r.err)
			}
		}
		return nil
	})
}

// TestGitRepository_WithAToken initialises a private clone, and runs its commit with
// changes that are not pushed.
func TestGitRepository_WithAToken(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		u := newGitUser(t, engine)
		u.host.Token = "ghp_" + engine + "0123456789"
		u.configure("cloned")
		u.inClone("init").expectExit(1)
		u.inClone("init", "--token", "ghp_wrong").expectExit(1)
		u.inClone("init", "--token", u.host.Token).expectExit(0).expectText("OK")

		u.repo.Write(map[string]string{"app.txt": "changed\n", "new.txt": "committed\n"})
		u.repo.Git("commit", "--quiet", "--message", "not pushed", "new.txt")
		apply := []string{"apply", "-f", "service.dstack.yml", "-y", "-d"}
		u.inClone(apply...).expectExit(0).expectText("Run cloned submitted")
		u.waitForStatus("cloned", "running")
		u.waitForOutput("cloned", "changed", "committed", "ref: refs/heads/main")

		u.killServer()
		u.startServer()
		u.inClone("stop", "cloned", "--abort", "-y").expectExit(0)
		u.waitForStatus("cloned", "terminated")
		fetched := u.host.Requests.Load()
		u.inClone(apply...).expectExit(0)
		u.waitForStatus("cloned", "running")
		if again := u.host.Requests.Load(); again != fetched {
			t.Errorf("the same commit was fetched again: %d requests", again-fetched)
		}
		u.checkNowhere(u.host.Token)

		u.push(map[string]string{"app.txt": "third\n"})
		lost := u.repo.Head()
		u.inClone("stop", "cloned", "--abort", "-y").expectExit(0)
		u.waitForStatus("cloned", "terminated")
		u.repo.Git("push", "--quiet", "--force", filepath.Join(u.repo.Root, u.repo.Path), "main~1:main")
		u.repo.GitBare("gc", "--quiet", "--prune=now")
		u.inClone(apply...).expectExit(1).expectText("has no commit "+lost[:12], "the branch main was rewritten")
	})
}

// checkNowhere fails if a token is anywhere where the server could have put it.
func (u *gitUser) checkNowhere(token string) {
	u.t.Helper()
	if found := u.findFilesWith(token); len(found) > 0 {
		u.t.Errorf("the token is in %v", found)
	}
	for name, text := range map[string]string{
		"the server's log": u.log.String(), "the events": u.runCLI("events", "cloned", "-o", "json").out, "the output": u.runCLI("logs", "cloned").out,
	} {
		if strings.Contains(text, token) {
			u.t.Errorf("the token is in %s: %s", name, text)
		}
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			if text, _ := os.ReadFile(file); strings.Contains(string(text), token) { // empty if the process has ended
				u.t.Errorf("the token is in %s", file)
			}
		}
	}
}

// TestGitRepository_Public initialises a clone of a public repository, and applies what
// cannot be run.
func TestGitRepository_Public(t *testing.T) {
	runParallel(t)
	u := newGitUser(t, "process")
	u.configure("public")
	u.push(map[string]string{"data.bin": "\x00one"})
	u.inClone("init").expectExit(0).expectText("OK")
	apply := []string{"apply", "-f", "service.dstack.yml", "-y", "-d"}
	u.repo.Write(map[string]string{"data.bin": "\x00two"})
	u.inClone(apply...).expectExit(1).expectText("the uploaded changes cannot be applied", "cannot apply binary patch to 'data.bin'")
	if runs := u.listRuns(); len(runs) > 0 {
		t.Errorf("a refused run was submitted: %+v", runs)
	}
	u.repo.Git("checkout", "--quiet", "data.bin")
	u.inClone(apply...).expectExit(0)
	u.waitForStatus("public", "running")
	u.waitForOutput("public", "one", "pushed")
}

// newConnectProxy returns the URL of a proxy that connects every address to one host. The
// client asks port 443 of a repository's host first, also for a repository over SSH.
func newConnectProxy(t *testing.T, to string) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, err := net.Dial("tcp", target.Host)
		if err != nil || r.Method != http.MethodConnect {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		defer host.Close()
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(host, client) }()
		_, _ = io.Copy(client, host)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// TestGitRepository_WithAKey initialises a clone over SSH with a deploy key.
func TestGitRepository_WithAKey(t *testing.T) {
	runParallel(t)
	u := newGitUser(t, "process")
	u.host.Token = "unknown to everybody"
	u.clientEnv = []string{"HTTPS_PROXY=" + newConnectProxy(t, u.url), "NO_PROXY=", "no_proxy="}
	u.configure("keyed")
	private, public := gittest.NewKey(t)
	host := gittest.StartSSH(t, u.repo.Root, public)
	key := filepath.Join(u.ownHome, "deploy_key")
	if err := os.WriteFile(key, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	u.repo.Git("remote", "set-url", "origin", "ssh://git@"+host.Address+u.repo.Path)
	u.inClone("init", "--git-identity", key).expectExit(0).expectText("OK")
	u.inClone("apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
	u.waitForStatus("keyed", "running")
	u.waitForOutput("keyed", "one", "pushed")
	if found := u.findFilesWith(strings.Split(private, "\n")[2]); len(found) > 0 {
		t.Errorf("the key is in %v", found)
	}
}

// TestGitRepository_ServerCannotReachIt initialises a clone whose host only the client's
// machine trusts.
func TestGitRepository_ServerCannotReachIt(t *testing.T) {
	runParallel(t)
	u := newGitUser(t, "process")
	u.extraEnv = nil
	u.stopServer()
	u.startServer()
	u.configure("unreachable")
	u.inClone("init").expectExit(1).expectText("the server cannot read the repository "+u.url, "certificate")
}
