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
// localhost, and reuses no connection between tests.
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

// answer is what came back.
type answer struct {
	status int
	body   string
	header http.Header
}

func (h *house) get(address string) (answer, error) { return h.call("GET", address, "", "") }

// call makes a request; token and body may be empty.
func (h *house) call(method, address, token, body string) (answer, error) {
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(text), res.Header}, err
}

// service is where a run of the project main answers, by its host.
func (h *house) service(run, path string) string {
	return fmt.Sprintf("http://%s.localhost:%d%s", run, h.port, path)
}

// byPath is where it answers for those who cannot resolve such names.
func (h *house) byPath(run, path string) string {
	return fmt.Sprintf("%s/proxy/services/main/%s%s", h.url(), run, path)
}

// answers checks one call with the user's token.
func (h *house) answers(address string, status int, words ...string) answer {
	h.t.Helper()
	return h.expect("GET", address, h.token, "", status, words...)
}

// refused checks one call without a token.
func (h *house) refused(address string) {
	h.t.Helper()
	a := h.expect("GET", address, "", "", http.StatusUnauthorized)
	if kind := kindOf(h.t, a); kind != "unauthorized" {
		h.t.Errorf("GET %s without a token: kind %q", address, kind)
	}
}

func (h *house) expect(method, address, token, body string, status int, words ...string) answer {
	h.t.Helper()
	a, err := h.call(method, address, token, body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, address, err)
	}
	if a.status != status {
		h.t.Fatalf("%s %s: status %d, want %d: %s", method, address, a.status, status, a.body)
	}
	for _, w := range words {
		if !strings.Contains(a.body, w) {
			h.t.Errorf("%s %s: the answer does not say %q: %.2000s", method, address, w, a.body)
		}
	}
	return a
}

// about is what the workload tells about itself.
type about struct {
	PID     int
	Path    string
	Host    string
	Headers http.Header
	Env     []string
}

// env looks a variable of the replica up.
func (a about) env(name string) (string, bool) {
	for _, v := range a.Env {
		if value, found := strings.CutPrefix(v, name+"="); found {
			return value, true
		}
	}
	return "", false
}

func (h *house) about(run string) about {
	h.t.Helper()
	var a about
	body := h.answers(h.service(run, "/"), 200).body
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		h.t.Fatalf("%v: %s", err, body)
	}
	return a
}

// kindOf is the machine-readable word of a refusal.
func kindOf(t *testing.T, a answer) string {
	t.Helper()
	var e struct {
		Error struct{ Kind, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Error.Message == "" {
		t.Fatalf("the refusal is not as it should be: %s", a.body)
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
