package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSignIn signs a browser in to a service, with curl's cookies. The session
// outlives the server, ends with its token, and is not seen by the service.
func TestSignIn(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(h.workloadConfig("web")))
	jar, site := filepath.Join(h.home, "cookies"), fmt.Sprintf("http://web.localhost:%d", h.port)
	curl := func(args ...string) (status, body string) {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-sS", "-b", jar, "-c", jar, "-H", "Accept: text/html,*/*", "-w", "\n%{http_code} %{redirect_url}"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %v: %v\n%s", args, err, out)
		}
		at := strings.LastIndexByte(string(out), '\n')
		return strings.TrimSpace(string(out[at:])), string(out[:at])
	}
	signIn := func(token string) string {
		t.Helper()
		status, _ := curl("--data-urlencode", "token="+token, "--data-urlencode", "next=/a?b=c", site+"/.dstack/sign-in")
		return status
	}
	if status, body := curl(site + "/a?b=c"); status != "401" || !strings.Contains(body, `<input type="hidden" name="next" value="/a?b=c">`) {
		t.Fatalf("%s: %s", status, body)
	}
	if status := signIn("wrong"); status != "401" {
		t.Errorf("a wrong token: %s", status)
	}
	if status := signIn(h.token); status != "303 "+site+"/a?b=c" {
		t.Fatalf("the right token: %s", status)
	}
	expectSignedIn := func() {
		t.Helper()
		status, body := curl(site + "/a?b=c")
		var seen workloadInfo
		if err := json.Unmarshal([]byte(body), &seen); err != nil || status != "200" || len(seen.Headers["Cookie"]) != 0 || len(seen.Headers["Authorization"]) != 0 {
			t.Fatalf("%s: %v: %s", status, err, body)
		}
	}
	expectSignedIn()
	h.stopServer()
	h.startServer()
	expectSignedIn()

	before := h.token
	a := h.expectResponse("POST", h.serverURL()+"/api/users/refresh_token", h.token, `{"username":"admin"}`, 200)
	var user struct{ Creds struct{ Token string } }
	if err := json.Unmarshal([]byte(a.body), &user); err != nil || user.Creds.Token == "" {
		t.Fatalf("%v: %s", err, a.body)
	}
	h.runCLI("config", "--project", "main", "--url", h.serverURL(), "--token", user.Creds.Token, "-y").expectExit(0)
	h.token = user.Creds.Token
	h.waitUntil(5*time.Second, "the session ends with its token", func() error {
		if status, _ := curl(site + "/"); status != "401" {
			return fmt.Errorf("status %s", status)
		}
		return nil
	})
	if status := signIn(before); status != "401" {
		t.Errorf("the old token: %s", status)
	}
	if status := signIn(h.token); !strings.HasPrefix(status, "303 ") {
		t.Errorf("the new token: %s", status)
	}
	expectSignedIn()
	h.expectUnauthorized(site + "/")
}

// TestHome opens the server's own address.
func TestHome(t *testing.T) {
	h := newParallelHarness(t, "process")
	out, err := exec.Command("curl", "-sS", "-H", "Accept: text/html", h.serverURL()+"/").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "version 0.0.0-e2e") || !strings.Contains(string(out), h.serverURL()+"/v1") {
		t.Errorf("%v: %s", err, out)
	}
	h.expectResponse("GET", h.serverURL()+"/", "", "", 200, `"name":"dstack","version":"0.0.0-e2e"`)
}
