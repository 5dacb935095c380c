package gateway_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/gateway"
)

// A request to a model is in memory: its header and body are sent in one write.
func TestModels_RequestIsOneWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := make(chan string, 1)
	go func() {
		defer close(first)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		piece := make([]byte, 64<<10)
		n, _ := conn.Read(piece)
		first <- string(piece[:n])
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}()
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", targetAt(l.Addr().String(), 0)))
	body := `{"model":"org/m","messages":[]}`
	r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(body), withToken(member)...))
	if got := <-first; !strings.HasSuffix(got, "\r\n\r\n"+body) {
		t.Errorf("the replica first got %q, without the body", got)
	}
}

// Responses are longer than the buffers, and streams and others alternate.
func TestForward_LongEvents(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<13)
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("as"))
		w.Write(long)
		http.NewResponseController(w).Flush()
		w.Write(long)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	for range 3 {
		for _, kind := range []string{"text/event-stream", "text/plain", "text/event-stream;charset=utf-8", ""} {
			if got := r.get("http://open.localhost/?as=" + kind); got.body != string(long)+string(long) {
				t.Errorf("as %q came %d bytes", kind, len(got.body))
			}
		}
	}
}
