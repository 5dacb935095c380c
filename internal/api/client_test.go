package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func newClient(t *testing.T, url string) *api.Client {
	t.Helper()
	c, err := api.NewClient(url, "dst_secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClient_DecodesErrorResponses(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		head   string
		body   string
		kind   dstack.Kind
		want   string
	}{
		{"an error with a kind", 400, "", `{"detail":[{"msg":"x","code":"error"}],"error":{"kind":"no_capacity","message":"no machine","hint":"less"}}`, dstack.NoCapacity, "no machine"},
		{"a text", 403, "", `{"detail":"Not authenticated"}`, dstack.Forbidden, "Not authenticated"},
		{"one message", 404, "", `{"detail":{"msg":"Not found","code":null}}`, dstack.NotFound, "Not found"},
		{"a bare message", 403, "", `{"msg":"Access denied","code":null}`, dstack.Forbidden, "Access denied"},
		{"a code", 400, "", `{"detail":[{"msg":"Run not found","code":"resource_not_exists"}]}`, dstack.NotFound, "Run not found"},
		{"validation", 422, "", `{"detail":[{"loc":["body","run_spec","x"],"msg":"no"},{"loc":["body"],"msg":"nor that"}]}`, dstack.Invalid, "run_spec.x: no; nor that"},
		{"a crash", 500, "", `Internal Server Error`, dstack.Internal, "answered 500"},
		{"a proxy", 502, "", `<html>`, dstack.Unavailable, "answered 502"},
		{"not a dstack server", 404, "", `<html>`, dstack.Unavailable, "does not answer like a dstack server"},
		{"a truncated response", 200, "", `{"project_name":`, dstack.Unavailable, "does not answer like a dstack server"},
		{"a redirect", 301, "http://other/", ``, dstack.Invalid, "redirects to http://other/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.head != "" {
					w.Header().Set("Location", c.head)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer server.Close()
			_, err := newClient(t, server.URL).Project(t.Context(), "main")
			if dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s: %v", dstack.KindOf(err), err)
			}
			if strings.Contains(err.Error(), "dst_secret") {
				t.Error("the token is in the error")
			}
		})
	}
}

func TestClient_RetriesOnlyReads(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) < 3 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, `{"project_name":"main"}`)
	}))
	defer server.Close()
	c := newClient(t, server.URL)
	if p, err := c.Project(t.Context(), "main"); err != nil || p.ProjectName != "main" || calls.Load() != 3 {
		t.Errorf("%+v %v after %d calls", p, err, calls.Load())
	}
	calls.Store(0)
	if err := c.Stop(t.Context(), "main", []string{"web"}, false); dstack.KindOf(err) != dstack.Unavailable || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestClient_ServerUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	_, err := newClient(t, server.URL).CurrentUser(t.Context())
	said, ok := errors.AsType[*dstack.Error](err)
	if !ok || said.Kind != dstack.Unavailable || said.Message != "cannot reach the dstack server at "+server.URL || !strings.HasPrefix(said.Hint, "start it with: dstack server --port "+server.URL[strings.LastIndex(server.URL, ":")+1:]+"\n") {
		t.Errorf("got %v", err)
	}
}

func TestClient_ReturnsTheCauseOfACanceledContext(t *testing.T) {
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // the server detects the disconnect only after reading the body
		close(asked)
		<-r.Context().Done()
	}))
	defer server.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-asked; cancel(enough) }()
	if _, err := newClient(t, server.URL).CurrentUser(ctx); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func TestClient_UsesNoProxyForLoopback(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{}`)
	}))
	defer server.Close()
	if _, err := newClient(t, server.URL).CurrentUser(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestClient_FollowDistinguishesEndFromDisconnect(t *testing.T) {
	const one = `{"timestamp":"2026-01-01T00:00:00Z","replica":0,"attempt":"a","stream":"stdout","message":"b25l"}` + "\n"
	for _, c := range []struct {
		name  string
		body  string
		abort bool
		lines int
		kind  dstack.Kind // empty: no error
	}{
		{"a complete stream", one + "\n" + one, false, 2, ""},
		{"a disconnect between lines", one, true, 1, dstack.Unavailable},
		{"a disconnect within a line", one + one[:20], true, 1, dstack.Unavailable},
		{"a line that is too long", strings.Repeat("x", 9<<20), false, 0, dstack.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, c.body)
				w.(http.Flusher).Flush()
				if c.abort {
					panic(http.ErrAbortHandler)
				}
			}))
			defer server.Close()
			lines, last := 0, error(nil)
			for entry, err := range newClient(t, server.URL).Follow(t.Context(), "main", api.FollowLogs{RunName: "web"}) {
				if last = err; err == nil {
					lines++
					if string(entry.Message) != "one" {
						t.Errorf("got %q", entry.Message)
					}
				}
			}
			if lines != c.lines || (last == nil) != (c.kind == "") || (last != nil && dstack.KindOf(last) != c.kind) {
				t.Errorf("%d lines, then %v", lines, last)
			}
		})
	}
}

func TestNewClient_RejectsInvalidURLsAndTokens(t *testing.T) {
	for _, url := range []string{"", "localhost:3000", "ftp://x", "http://", "::"} {
		if _, err := api.NewClient(url, ""); dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := api.NewClient("http://x", "a\r\nHost: y"); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("a token with a line break: %v", err)
	}
}
