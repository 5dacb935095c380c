package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// client resolves every name to this machine, as browsers do with names below
// localhost, and does not reuse connections.
var client = &http.Client{
	Timeout: time.Minute,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// response is an HTTP response.
type response struct {
	status int
	body   string
	header http.Header
}

func (h *harness) getURL(address string) (response, error) {
	return h.sendRequest("GET", address, "", "")
}

// sendRequest sends a request; token and body may be empty.
func (h *harness) sendRequest(method, address, token, body string) (response, error) {
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return response{res.StatusCode, string(text), res.Header}, err
}

// serviceURL returns the address of a run in the project main, by host name.
func (h *harness) serviceURL(run, path string) string {
	return fmt.Sprintf("http://%s.localhost:%d%s", run, h.port, path)
}

// servicePathURL returns the address of a run by path, for clients that cannot
// resolve its host name.
func (h *harness) servicePathURL(run, path string) string {
	return fmt.Sprintf("%s/proxy/services/main/%s%s", h.serverURL(), run, path)
}

// expectStatus sends a GET with the user's token and checks the response.
func (h *harness) expectStatus(address string, status int, words ...string) response {
	h.t.Helper()
	return h.expectResponse("GET", address, h.token, "", status, words...)
}

// expectUnauthorized checks that a GET without a token is refused.
func (h *harness) expectUnauthorized(address string) {
	h.t.Helper()
	a := h.expectResponse("GET", address, "", "", http.StatusUnauthorized)
	if kind := errorKindOf(h.t, a); kind != "unauthorized" {
		h.t.Errorf("GET %s without a token: kind %q", address, kind)
	}
}

func (h *harness) expectResponse(method, address, token, body string, status int, words ...string) response {
	h.t.Helper()
	a, err := h.sendRequest(method, address, token, body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, address, err)
	}
	if a.status != status {
		h.t.Fatalf("%s %s: status %d, want %d: %s", method, address, a.status, status, a.body)
	}
	for _, w := range words {
		if !strings.Contains(a.body, w) {
			h.t.Errorf("%s %s: the response does not contain %q: %.2000s", method, address, w, a.body)
		}
	}
	return a
}

// workloadInfo is what the workload reports about itself.
type workloadInfo struct {
	PID     int
	Path    string
	Host    string
	Headers http.Header
	Env     []string
}

// lookUpEnv returns a variable of the replica's environment.
func (a workloadInfo) lookUpEnv(name string) (string, bool) {
	for _, v := range a.Env {
		if value, found := strings.CutPrefix(v, name+"="); found {
			return value, true
		}
	}
	return "", false
}

func (h *harness) fetchInfo(run string) workloadInfo {
	h.t.Helper()
	var a workloadInfo
	body := h.expectStatus(h.serviceURL(run, "/"), 200).body
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		h.t.Fatalf("%v: %s", err, body)
	}
	return a
}

// errorKindOf returns the kind of error in a response.
func errorKindOf(t *testing.T, a response) string {
	t.Helper()
	var e struct {
		Error struct{ Kind, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Error.Message == "" {
		t.Fatalf("the error has another form: %s", a.body)
	}
	return e.Error.Kind
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
