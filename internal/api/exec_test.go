package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"dstack/internal/dstack"
)

// A server or proxy with TLS offers HTTP/2, over which a WebSocket cannot be opened.
func TestExec_OverTLSWithHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, `{"project_name": "main"}`)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_, request, err := conn.Read(r.Context())
		if err != nil || !bytes.Contains(request, []byte(`"run_name":"web"`)) || r.Header.Get("Authorization") != "Bearer dst_good" {
			t.Errorf("%s %v with %v", request, err, r.Header)
		}
		_ = conn.Write(r.Context(), websocket.MessageBinary, append([]byte{ExecStdout}, "hello"...))
		_ = conn.Write(r.Context(), websocket.MessageText, []byte(`{"exit": {"exit_code": 3}}`))
		_, _, _ = conn.Read(r.Context())
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	c, err := NewClient(server.URL, "dst_good")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	transport, _ := c.http.Transport.(*http.Transport)
	roots, _ := server.Client().Transport.(*http.Transport)
	transport.TLSClientConfig = roots.TLSClientConfig.Clone()
	if _, err := c.Project(t.Context(), "main"); err != nil { // the first call sets HTTP/2 up
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := c.Exec(t.Context(), "main", ExecRequest{RunName: "web"}, ExecStreams{Stdout: &out, Stderr: &out})
	if code != 3 || err != nil || out.String() != "hello" {
		t.Errorf("%d, %v, %q", code, err, out.String())
	}
}

func TestExec_ExplainsWhyThereIsNoWebSocket(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   dstack.Kind
		part   string
	}{
		"a proxy that does not pass it on": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>")
		}, dstack.Unavailable, "does not answer like a dstack server"},
		"an older server": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, `{"detail":"Not Found","error":{"kind":"not_found","message":"the API has no path \"/x\""}}`)
		}, dstack.Unsupported, "is too old for this command"},
		"a wrong token": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = io.WriteString(w, `{"detail":{"msg":"Invalid token"},"error":{"kind":"unauthorized","message":"the server does not accept this token"}}`)
		}, dstack.Unauthorized, "does not accept this token"},
		"a connection that breaks": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, dstack.Unavailable, "cannot reach the dstack server"},
		"one that breaks later": {func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				_ = conn.CloseNow()
			}
		}, dstack.Unavailable, "broke, and the command was ended"},
	} {
		server := httptest.NewServer(c.answer)
		client, err := NewClient(server.URL, "dst_good")
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Exec(t.Context(), "main", ExecRequest{RunName: "web"}, ExecStreams{Stdout: io.Discard, Stderr: io.Discard})
		if dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
}

// A server closes the connection of a message that is too long, without a word.
func TestExec_RefusesATooLongCommand(t *testing.T) {
	c, err := NewClient("http://127.0.0.1:1", "dst_good")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	part := strings.Repeat("x", 100<<10)
	_, err = c.Exec(t.Context(), "main", ExecRequest{RunName: "web", Command: []string{"echo", part, part, part}}, ExecStreams{})
	if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "the limit is 262144") {
		t.Errorf("got %v", err)
	}
}
