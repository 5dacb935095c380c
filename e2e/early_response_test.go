package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// refusingServer is a Node.js server that refuses large uploads before it has read
// them, and closes their connection if the query asks for it.
const refusingServer = `require('http').createServer((q, s) => {
  if (+q.headers['content-length'] > 1e6 || q.headers['transfer-encoding']) {
    if (q.url.includes('close')) s.setHeader('Connection', 'close');
    s.writeHead(413); s.end('too large');
  } else { q.resume(); q.on('end', () => s.end('ok')); }
}).listen(%d, '127.0.0.1')`

// TestEarlyResponse uploads to a real server that refuses large bodies at once, with
// a real client. Every client gets the refusal, and no error of the gateway.
func TestEarlyResponse(t *testing.T) {
	needPiece(t, "node", "DSTACK_TEST_NODE")
	needPiece(t, "curl", "DSTACK_TEST_CURL")
	h := newParallelHarness(t, "process")
	port := findFreePort(t)
	dir := h.newFolder(fmt.Sprintf("type: service\nname: uploads\nauth: false\nport: %d\ncommands:\n- exec node server.js\n", port))
	h.writeFile(filepath.Join(dir, "server.js"), fmt.Sprintf(refusingServer, port))
	h.applyAndWait(dir)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, make([]byte, 20<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"close", "keep"} {
		for _, length := range []string{"Content-Type: application/octet-stream", "Transfer-Encoding: chunked"} {
			for i := range 40 {
				if got := h.curl("-H", "Expect:", "-H", length, "--data-binary", "@"+file,
					h.servicePathURL("uploads", "/?"+query)); got.status != 413 || got.body != "too large" {
					t.Fatalf("%s, %s, upload %d: %d %s", query, length, i, got.status, got.body)
				}
			}
		}
	}
	for _, c := range []struct {
		body string
		want int
	}{{"@" + file, 413}, {"small", 200}} {
		began := time.Now()
		got := h.curl("-H", "Expect: 100-continue", "--data-binary", c.body, h.servicePathURL("uploads", "/?close"))
		if took := time.Since(began); got.status != c.want || took > 900*time.Millisecond {
			t.Errorf("with Expect: 100-continue: %d after %s, want %d within a second", got.status, took, c.want)
		}
	}
}

// curl runs curl and returns the response.
func (h *harness) curl(args ...string) response {
	h.t.Helper()
	args = append([]string{"-sS", "-m", "60", "-w", "\n%{http_code}"}, args...)
	out, err := exec.Command("curl", args...).CombinedOutput()
	at := strings.LastIndexByte(string(out), '\n')
	status, convErr := strconv.Atoi(string(out[at+1:]))
	if err != nil || convErr != nil {
		h.t.Fatalf("curl %q: %v %v\n%s", args, err, convErr, out)
	}
	return response{status: status, body: string(out[:at])}
}
