package gitrepo_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
	"dstack/internal/gitrepo/gittest"
)

func randomText(size int) string {
	data := make([]byte, size)
	_, _ = rand.Read(data)
	return string(data)
}

func TestFetch_WithAToken(t *testing.T) {
	r := newRig(t)
	r.host.Token = "ghp_" + hex.EncodeToString([]byte(randomText(16)))
	hash := r.repo.Head()
	r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
	for name, token := range map[string]string{"another token": "ghp_other", "no token": ""} {
		s := r.source()
		s.Token, s.User = token, "bob"
		err := r.cache.CheckReachable(t.Context(), s)
		expectError(t, err, dstack.Unauthorized, "refuses these credentials", "dstack init --token")
		expectError(t, r.cache.Fetch(t.Context(), s, onMain(hash)), dstack.Unauthorized, "refuses these credentials", "dstack init --token")
		if token != "" && strings.Contains(fmt.Sprintf("%+v %v", err, dstackCause(err)), token) {
			t.Errorf("%s: the error contains the token: %v", name, err)
		}
	}
}

// git gets the token from a pipe that is filled before git runs. A token that does not fit
// must not hold a slot for fetches.
func TestFetch_TokenLongerThanAPipe(t *testing.T) {
	r := newRig(t)
	r.host.Token = strings.Repeat("t", 2000)
	s := r.source()
	s.Token, s.User = strings.Repeat("x", 70<<10), "bob"
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		expectError(t, r.cache.Fetch(ctx, s, onMain(r.repo.Head())), dstack.Invalid, "longer than any token", "dstack init --token")
		cancel()
	}
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(r.repo.Head())); err != nil {
		t.Errorf("the next fetch: %v", err)
	}
}

func dstackCause(err error) error {
	if failed, ok := errors.AsType[*dstack.Error](err); ok {
		return failed.Cause
	}
	return nil
}

// spy puts programs git and ssh first into the PATH, which record their arguments, their
// environment and the files that they could read, before they run the real ones.
func spy(t *testing.T, watched ...string) (recorded func() string) {
	t.Helper()
	dir := t.TempDir()
	record := filepath.Join(dir, "record")
	for _, name := range []string{"git", "ssh"} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Skip("needs " + name)
		}
		script := fmt.Sprintf("#!/bin/sh\n{ echo %s \"$@\"; env; find %s -type f -exec cat {} +; cat /proc/$PPID/cmdline; } >>%s 2>/dev/null\nexec %s \"$@\"\n",
			name, strings.Join(watched, " "), record, program)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		text, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

func TestFetch_TokenIsNeitherInArgumentsNorEnvironmentNorFiles(t *testing.T) {
	r := newRig(t)
	r.host.Token = "ghp_canary0123456789"
	recorded := spy(t, r.dir)
	if err := r.cache.CheckReachable(t.Context(), r.source()); err != nil {
		t.Fatal(err)
	}
	dir := r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(r.repo.Head())})
	if text := recorded(); strings.Contains(text, "canary") || !strings.Contains(text, "git ls-remote") || !strings.Contains(text, "hooksPath") {
		t.Errorf("recorded: %.2000s", text)
	}
	for _, where := range []string{dir, r.dir} {
		if out, err := exec.Command("grep", "-rl", "canary", where).CombinedOutput(); err == nil {
			t.Errorf("the token is in %s", out)
		}
	}
}

func newSSHRig(t *testing.T) (r *rig, s gitrepo.Source, host *gittest.SSHServer) {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs ssh")
	}
	r = newRig(t)
	private, public := gittest.NewKey(t)
	host = gittest.StartSSH(t, r.repo.Root, public)
	s = r.source()
	s.URL, s.PrivateKey = "ssh://git@"+host.Address+r.repo.Path, private
	return r, s, host
}

func TestFetch_WithAKey(t *testing.T) {
	r, s, host := newSSHRig(t)
	hash := r.repo.Push(map[string]string{"app.txt": "two\n"})
	recorded := spy(t, r.dir)
	if err := r.cache.CheckReachable(t.Context(), s); err != nil {
		t.Fatalf("%v (%v)", err, dstackCause(err))
	}
	dir := r.mustUnpack(s, gitrepo.Checkout{Commit: onMain(hash)})
	if got := readFile(t, dir, "app.txt") + git(t, dir, "config", "remote.origin.url"); got != "two\n"+s.URL {
		t.Errorf("%q", got)
	}
	body := strings.Split(s.PrivateKey, "\n")[2]
	if text := recorded(); strings.Contains(text, body) || !strings.Contains(text, "ssh -F /dev/null") {
		t.Errorf("recorded: %.3000s", text)
	}

	other := s
	other.PrivateKey, _ = gittest.NewKey(t)
	err := r.cache.CheckReachable(t.Context(), other)
	expectError(t, err, dstack.Unauthorized, "refuses these credentials", "--git-identity")

	missing := s
	missing.URL = "ssh://git@" + host.Address + "/team/none.git"
	expectError(t, r.cache.CheckReachable(t.Context(), missing), dstack.NotFound, "there is no repository", "get-url")
}

func TestFetch_RefusesAChangedHostKey(t *testing.T) {
	r, s, host := newSSHRig(t)
	if err := r.cache.CheckReachable(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	host.ChangeHostKey(t)
	r.cache = r.newCache() // the keys of hosts are kept
	expectError(t, r.cache.CheckReachable(t.Context(), s), dstack.Forbidden, "another SSH key than before", "known_hosts")
}

func TestFetch_OverTLS(t *testing.T) {
	r := newRig(t)
	secure := httptest.NewTLSServer(r.host)
	defer secure.Close()
	s := r.source()
	s.URL = secure.URL + r.repo.Path
	expectError(t, r.cache.CheckReachable(t.Context(), s), dstack.Unavailable, "the certificate of its host is not valid", "SSL_CERT_FILE")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, gittest.EncodeCertificate(secure.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	if err := r.cache.CheckReachable(t.Context(), s); err != nil {
		t.Errorf("%v (%v)", err, dstackCause(err))
	}
}
