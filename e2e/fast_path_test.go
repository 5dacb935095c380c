package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFastPath sends requests of curl with odd options, of wrk and of h2load through the server's port. Clients do not see which
// path a request takes; the metrics tell, and they have each request once.
func TestFastPath(t *testing.T) {
	needPiece(t, "curl", "DSTACK_TEST_CURL")
	metrics := findFreePort(t)
	h := newParallelHarness(t, "process", fmt.Sprintf("DSTACK_SERVER_METRICS=127.0.0.1:%d", metrics))
	h.applyAndWait(h.newFolder(h.workloadConfig("web")))
	f := &fastPathHarness{harness: h, metrics: metrics, big: bytes.Repeat([]byte("0123456789abcdef"), 1<<17)}
	f.digest = fmt.Sprintf("%x", sha256.Sum256(f.big))
	f.file = filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(f.file, f.big, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("curl", f.testCurl)
	t.Run("one connection", f.testOneConnection)
	t.Run("odd bytes", f.testOddBytes)
	t.Run("load", f.testLoad)
}

type fastPathHarness struct {
	*harness
	metrics int
	big     []byte
	file    string // has big
	digest  string // of big
}

// testCurl sends requests with odd options.
func (f *fastPathHarness) testCurl(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		path   string
		status int
		body   string // a part of it
		isFast bool
	}{
		{"plain", nil, "/x?y=%2F", 200, `"path":"/x"`, true},
		{"HTTP/1.0", []string{"--http1.0"}, "/x", 200, `"path":"/x"`, false},
		{"HTTP/2 without TLS", []string{"--http2-prior-knowledge"}, "/x", 200, `"path":"/x"`, false},
		{"an upgrade to HTTP/2", []string{"--http2"}, "/x", 200, `"path":"/x"`, false},
		{"dots in the path", []string{"--path-as-is"}, "/a/../b", 307, "/b", true},
		{"a form", []string{"-d", "a=b"}, "/echo", 200, "a=b", true},
		{"a large body", []string{"-H", "Expect:", "-T", f.file}, "/echo", 200, string(f.big), true},
		{"a large body in chunks", []string{"-H", "Expect:", "-H", "Transfer-Encoding: chunked", "-X", "POST", "-T", f.file}, "/digest", 200, f.digest, true},
		{"a body after permission", []string{"-H", "Expect: 100-continue", "--data-binary", "@" + f.file}, "/echo", 200, string(f.big), false},
		{"a slow reader", []string{"--limit-rate", "20M", "--data-binary", "@" + f.file, "-H", "Expect:"}, "/echo", 200, string(f.big), true},
		{"multipart", []string{"-F", "f=@" + f.file, "-H", "Expect:"}, "/echo", 200, string(f.big), true},
		{"compressed", []string{"--compressed"}, "/x", 200, `"Accept-Encoding":["deflate, gzip`, true},
		{"no response body", []string{"-I"}, "/x", 200, "X-Request-Id: ", true},
		{"another method", []string{"-X", "PROPFIND"}, "/x", 200, `"path":"/x"`, true},
		{"an own request ID", []string{"-H", "X-Request-Id: mine", "-i"}, "/x", 200, "X-Request-Id: mine", true},
		{"a stream", []string{"-N"}, "/events?n=3&ms=20", 200, "data: 1\n\ndata: 2\n\ndata: 3\n\n", true},
		{"the API on the same port", nil, "", 200, "", false},
		{"a wrong token", []string{"--oauth2-bearer", "wrong"}, "/x", 401, "this token is not valid", false},
		{"a wrong method", []string{"-X", "TRACE"}, "/x", 405, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := f.serviceURL("web", c.path)
			if c.path == "" {
				url = fmt.Sprintf("http://127.0.0.1:%d/healthcheck", f.port)
			}
			before := f.countFast(t)
			args := append([]string{"--oauth2-bearer", f.token, url}, c.args...) // the last bearer counts
			got := f.withT(t).curl(args...)
			if got.status != c.status || !strings.Contains(got.body, c.body) {
				t.Errorf("%d with %d bytes, %.200s", got.status, len(got.body), got.body)
			}
			want := before
			if c.isFast {
				want++
			}
			f.waitFast(t, want)
		})
	}
}

// testOneConnection sends requests for both paths over one connection.
func (f *fastPathHarness) testOneConnection(t *testing.T) {
	before := f.countFast(t)
	service, api := f.serviceURL("web", "/x"), fmt.Sprintf("http://127.0.0.1:%d/healthcheck", f.port)
	args := []string{"-sS", "-m", "20"}
	for i, url := range []string{service, service, api, service} {
		if i > 0 {
			args = append(args, "--next", "-sS", "-m", "20")
		}
		// All names are one address for curl, so that it keeps the connection.
		host := strings.TrimPrefix(url, "http://")
		args = append(args, "-H", "Host: "+host[:strings.IndexByte(host, '/')], "-H", "Authorization: Bearer "+f.token, "-o", os.DevNull,
			"-w", "%{http_code} %{num_connects}\n", fmt.Sprintf("http://127.0.0.1:%d%s", f.port, host[strings.IndexByte(host, '/'):]))
	}
	out, err := exec.Command("curl", args...).CombinedOutput()
	if want := "200 1\n200 0\n200 0\n200 0\n"; err != nil || string(out) != want {
		t.Errorf("%v, the statuses and new connections are\n%swant\n%s", err, out, want)
	}
	f.waitFast(t, before+2) // a connection that was handed over stays there
}

// testLoad sends thousands of requests by HTTP/1.1 and by HTTP/2.
func (f *fastPathHarness) testLoad(t *testing.T) {
	needPiece(t, "wrk", "DSTACK_TEST_WRK")
	before := f.countFast(t)
	url, authorization := f.serviceURL("web", "/echo"), "Authorization: Bearer "+f.token
	address := fmt.Sprintf("http://127.0.0.1:%d/echo", f.port)
	host := "Host: " + strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/echo")
	out, err := exec.Command("wrk", "-t1", "-c16", "-d1s", "-H", host, "-H", authorization, address).CombinedOutput()
	requests := findNumber(t, string(out), `(\d+) requests in`)
	if err != nil || requests < 100 || bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
		t.Errorf("wrk: %v\n%s", err, out)
	}
	if fast := f.countFast(t); fast < before+requests {
		t.Errorf("%d of wrk's %d requests took the fast path", fast-before, requests)
	}
	h2 := []string{"-n", "1000", "-c", "4", "-m", "10", "-H", ":authority: " + strings.TrimPrefix(host, "Host: "), "-H", authorization, address}
	out, err = exec.Command("h2load", h2...).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("1000 succeeded, 0 failed, 0 errored, 0 timeout")) || !bytes.Contains(out, []byte("1000 2xx")) {
		t.Errorf("h2load: %v\n%s", err, out)
	}
}

func findNumber(t *testing.T, text, pattern string) int {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no %s in\n%s", pattern, text)
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// countFast returns how many requests the fast path has served.
func (f *fastPathHarness) countFast(t *testing.T) int {
	t.Helper()
	got, err := f.getURL(fmt.Sprintf("http://127.0.0.1:%d/metrics", f.metrics))
	if err != nil {
		t.Fatal(err)
	}
	return findNumber(t, got.body, `(?m)^dstack_fast_path_requests_total (\d+)$`)
}

// waitFast waits until the fast path has served a number of requests: one is counted after its response was sent.
func (f *fastPathHarness) waitFast(t *testing.T, want int) {
	t.Helper()
	f.withT(t).waitUntil(5*time.Second, fmt.Sprintf("the fast path has served %d requests", want), func() error {
		if got := f.countFast(t); got != want {
			return fmt.Errorf("it has served %d", got)
		}
		return nil
	})
}
