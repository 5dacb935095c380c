package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// publishedSite is a server with a gateway of its own process, at example.test.
type publishedSite struct {
	*harness
	https, http int
	roots       string // file of the authority's certificate
	connect     string // URL of a CONNECT proxy to the https port, for clients that cannot be told an address
	client      *http.Client
}

// newPublishedSite starts a server with the service web, which is a model, too, and publishes it.
func newPublishedSite(t *testing.T) *publishedSite {
	t.Helper()
	s := &publishedSite{https: findFreePort(t), http: findFreePort(t)}
	s.harness = newStoppedHarness(t, "process", fmt.Sprint("DSTACK_GATEWAY_HTTPS_PORT=", s.https), fmt.Sprint("DSTACK_GATEWAY_HTTP_PORT=", s.http),
		"DSTACK_GATEWAY_HOST=127.0.0.1", fmt.Sprintf("DSTACK_SERVER_URL=https://dstack.example.test:%d", s.https))
	s.startServer()
	s.extraEnv = append(s.extraEnv, "DSTACK_URL="+s.serverURL(), "DSTACK_TOKEN="+s.token) // of commands
	s.applyGateway("")
	s.roots = filepath.Join(s.home, "ca.pem")
	r := s.runCLI("gateway", "ca")
	r.expectExit(0)
	s.writeFile(s.roots, r.out)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(r.out)) {
		t.Fatalf("dstack gateway ca prints no certificate: %s", r.out)
	}
	s.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(s.client.CloseIdleConnections)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tunnel(w, fmt.Sprintf("127.0.0.1:%d", s.https))
	}))
	t.Cleanup(proxy.Close)
	s.connect = proxy.URL
	return s
}

// applyGateway creates or changes the gateway. lines are those of its configuration beside the usual ones.
func (s *publishedSite) applyGateway(lines string) {
	s.t.Helper()
	certificate := "certificate: {type: internal}\n"
	if strings.Contains(lines, "certificate:") {
		certificate = ""
	}
	dir := s.newFolderWith("gateway.dstack.yml", "type: gateway\nname: edge\nbackend: local\ndomain: example.test\n"+certificate+lines)
	s.runCLIIn(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0)
}

// with returns the site for the subtest t.
func (s *publishedSite) with(t *testing.T) *publishedSite {
	copied := *s
	copied.harness = s.withT(t)
	return &copied
}

func (s *publishedSite) urlOf(name, path string) string {
	return fmt.Sprintf("https://%s.example.test:%d%s", name, s.https, path)
}

// fetch makes a request. header has lines of Name: value.
func (s *publishedSite) fetch(method, address, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, string(text)
}

// TestPublished_OverTLS publishes a service and a model below a domain with TLS, by the server's own process, and uses
// them with real clients. Nothing else is installed.
func TestPublished_OverTLS(t *testing.T) {
	runParallel(t)
	python, node := needPiece(t, "python", "DSTACK_TEST_PYTHON"), needPiece(t, "node", "DSTACK_TEST_NODE")
	s := newPublishedSite(t)
	v := s.applyAndWait(s.newFolder(s.workloadConfig("web", modelLines)))
	if got, want := v.URL, s.urlOf("web", ""); strings.TrimSuffix(got, "/") != want {
		t.Errorf("the URL is %s, want %s", got, want)
	}
	t.Run("curl", func(t *testing.T) { s.with(t).checkCurl() })
	t.Run("openssl", func(t *testing.T) { s.with(t).checkOpenSSL() })
	t.Run("OpenAI's client", func(t *testing.T) { s.with(t).checkOpenAI(python) })
	t.Run("WebSockets", func(t *testing.T) { s.with(t).checkWebSockets(node) })
	t.Run("names", func(t *testing.T) { s.with(t).checkNames() })
	t.Run("sign-in", func(t *testing.T) { s.with(t).checkSignIn() })
	t.Run("changes in place", func(t *testing.T) { s.with(t).checkChanges() })
}

// curl runs curl against a port of this machine.
func (s *publishedSite) curl(args ...string) string {
	s.t.Helper()
	all := append([]string{"-sS", "--max-time", "20", "--cacert", s.roots,
		"--connect-to", fmt.Sprintf(":%d:127.0.0.1:%d", s.https, s.https), "--connect-to", fmt.Sprintf(":%d:127.0.0.1:%d", s.http, s.http)}, args...)
	out, err := exec.CommandContext(s.t.Context(), "curl", all...).CombinedOutput()
	if err != nil {
		s.t.Errorf("curl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *publishedSite) checkCurl() {
	token := "Authorization: Bearer " + s.token
	const format = "%{http_version} %{http_code} %{ssl_verify_result}"
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-o", "/dev/null", "-w", format, "-H", token, s.urlOf("web", "/")}, "2 200 0"},
		{[]string{"-o", "/dev/null", "-w", format, "-H", token, "--http1.1", s.urlOf("web", "/")}, "1.1 200 0"},
		{[]string{"-o", "/dev/null", "-w", format, s.urlOf("web", "/")}, "2 401 0"},
		{[]string{"-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", fmt.Sprintf("http://web.example.test:%d/a?b=c", s.http)}, "307 " + s.urlOf("web", "/a?b=c")},
		{[]string{"-H", token, s.urlOf("dstack", "/healthcheck")}, `"status":"running"`}, // the server's own name
	} {
		if got := s.curl(test.args...); !strings.Contains(got, test.want) {
			s.t.Errorf("curl %s: %s, want %s", strings.Join(test.args, " "), got, test.want)
		}
	}
	if got := s.curl("-H", token, "-N", s.urlOf("web", "/events?n=3&ms=20")); strings.Count(got, "data:") != 3 {
		s.t.Errorf("a stream over HTTP/2: %q", got)
	}
}

// checkOpenSSL checks the chain, the versions of TLS, and that a session is resumed.
func (s *publishedSite) checkOpenSSL() {
	session := filepath.Join(s.home, "session.pem")
	connect := func(args ...string) string {
		cmd := exec.CommandContext(s.t.Context(), "openssl", append([]string{"s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", s.https),
			"-servername", "web.example.test", "-verify_hostname", "web.example.test", "-CAfile", s.roots, "-ign_eof"}, args...)...)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.example.test:%d\r\nConnection: close\r\n\r\n", s.https))
		out, _ := cmd.CombinedOutput() // some are to fail
		return string(out)
	}
	for _, test := range []struct{ args, want string }{
		{"-tls1_3 -sess_out " + session, "Verification: OK"},
		{"-tls1_3 -sess_in " + session, "Reused, TLSv1.3"},
		{"-tls1_2", "Verification: OK"},
		{"-tls1_1 -cipher DEFAULT@SECLEVEL=0", "Cipher is (NONE)"},
	} {
		if got := connect(strings.Fields(test.args)...); !strings.Contains(got, test.want) {
			s.t.Errorf("openssl %s: no %q in:\n%s", test.args, test.want, got)
		}
	}
}

// checkOpenAI talks to the model at gateway.example.test.
func (s *publishedSite) checkOpenAI(python string) {
	cmd := exec.CommandContext(s.t.Context(), python, "clients/chat.py", s.urlOf("gateway", "/v1"), s.token, "smollm2")
	cmd.Env = append(os.Environ(), "HTTPS_PROXY="+s.connect, "https_proxy="+s.connect, "SSL_CERT_FILE="+s.roots, "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	var c conversation
	if err != nil || json.Unmarshal(out, &c) != nil {
		s.t.Fatalf("chat.py: %v\n%s", err, out)
	}
	if len(c.Models) != 1 || c.Answer == "" || c.Pieces < 2 || c.WrongToken != "AuthenticationError" || c.WrongModel != "NotFoundError" {
		s.t.Errorf("%+v", c)
	}
}

// checkWebSockets opens one over HTTP/1.1, and one over HTTP/2.
func (s *publishedSite) checkWebSockets(node string) {
	plain := s.client.Transport.(*http.Transport).Clone()
	plain.ForceAttemptHTTP2, plain.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	defer plain.CloseIdleConnections()
	c, _, err := websocket.Dial(s.t.Context(), s.urlOf("web", "/socket"), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: plain}, HTTPHeader: http.Header{"Authorization": {"Bearer " + s.token}}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(s.t.Context(), websocket.MessageText, []byte("over 1.1")); err != nil {
		s.t.Fatal(err)
	}
	if _, back, err := c.Read(s.t.Context()); err != nil || string(back) != "over 1.1" {
		s.t.Errorf("%q, %v", back, err)
	}
	for token, want := range map[string]string{s.token: `{"status":200,"text":"over 2 ` + strings.Repeat("long ", 500) + `"}`, "wrong": `{"status":401}`} {
		out, err := exec.CommandContext(s.t.Context(), "node", "clients/socket2.mjs", s.urlOf("web", "/socket"), fmt.Sprint(s.https), s.roots, token,
			"over 2 "+strings.Repeat("long ", 500)).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			s.t.Errorf("a WebSocket over HTTP/2: %s (%v), want %s", got, err, want)
		}
	}
	_ = node // it brings the program into PATH
}

// checkNames checks that the name in the TLS handshake, that of the request and the routes agree.
func (s *publishedSite) checkNames() {
	token := "Authorization: Bearer " + s.token
	for _, test := range []struct {
		name, host, path string
		status           int
	}{
		{"web", "other.example.test", "/", 421},
		{"web", "dstack.example.test", "/api/users/list", 421},
		{"other", "", "/", 404},
		{"web.main", "", "/", 0}, // no certificate
		{"gateway", "", "/v1/models", 200},
		{"gateway", "", "/api/users/list", 404},
		{"web", "", "/api/users/list", 200}, // it is the replica's
	} {
		header := []string{token}
		if test.host != "" {
			header = append(header, fmt.Sprintf("Host: %s:%d", test.host, s.https))
		}
		if test.status == 0 {
			if res, err := s.client.Get(s.urlOf(test.name, test.path)); err == nil {
				res.Body.Close()
				s.t.Errorf("%s is served", test.name)
			}
			continue
		}
		if res, body := s.fetch("GET", s.urlOf(test.name, test.path), "", header...); res.StatusCode != test.status {
			s.t.Errorf("%+v: %d %s", test, res.StatusCode, body)
		}
	}
}

// checkSignIn signs a browser in.
func (s *publishedSite) checkSignIn() {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	browser := *s.client
	browser.Jar = jar
	s.client = &browser
	page := []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none"}
	if res, body := s.fetch("GET", s.urlOf("web", "/"), "", page...); res.StatusCode != 401 || !strings.Contains(body, "<form") {
		s.t.Errorf("%d %s", res.StatusCode, body)
	}
	form := url.Values{"token": {s.token}, "next": {"/"}}.Encode()
	res, _ := s.fetch("POST", s.urlOf("web", "/.dstack/sign-in"), form, "Content-Type: application/x-www-form-urlencoded",
		"Origin: "+s.urlOf("web", ""), "Sec-Fetch-Site: same-origin")
	if got := res.Header.Get("Set-Cookie"); res.StatusCode != 303 || !strings.HasPrefix(got, "__Host-dstack-session=") || !strings.Contains(got, "Secure") {
		s.t.Errorf("%d, Set-Cookie: %s", res.StatusCode, got)
	}
	if res, body := s.fetch("GET", s.urlOf("web", "/"), "", page...); res.StatusCode != 200 {
		s.t.Errorf("signed in: %d %s", res.StatusCode, body)
	}
}

// replicaHeaders returns the headers that the replica gets with a request.
func (s *publishedSite) replicaHeaders(address string, header ...string) http.Header {
	s.t.Helper()
	res, body := s.fetch("GET", address, "", append(header, "Authorization: Bearer "+s.token)...)
	var info workloadInfo
	if err := json.Unmarshal([]byte(body), &info); err != nil || res.StatusCode != 200 {
		s.t.Fatalf("%d %s", res.StatusCode, body)
	}
	return info.Headers
}

// checkChanges changes the gateway while requests are served.
func (s *publishedSite) checkChanges() {
	spoofed := []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http"}
	if got := s.replicaHeaders(s.urlOf("web", "/"), spoofed...); got.Get("X-Forwarded-For") != "127.0.0.1" || got.Get("X-Forwarded-Proto") != "https" {
		s.t.Errorf("headers of a client are believed: %v", got)
	}
	requests := s.startPublishedTraffic()
	s.applyGateway("trusted_proxies: [127.0.0.1]\n")
	s.waitUntil(10*time.Second, "the proxy is trusted", func() error {
		if got := s.replicaHeaders(s.urlOf("web", "/"), spoofed...); got.Get("X-Forwarded-For") != "203.0.113.9, 127.0.0.1" || got.Get("X-Forwarded-Proto") != "https" {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if failed := requests(); failed != "" {
		s.t.Errorf("a request failed during the change: %s", failed)
	}
	s.applyGateway("certificate: null\n")
	plain := fmt.Sprintf("http://web.example.test:%d/", s.http)
	s.waitUntil(10*time.Second, "it is served over http", func() error {
		if res, body := s.fetch("GET", plain, "", "Authorization: Bearer "+s.token); res.StatusCode != 200 {
			return fmt.Errorf("%d %s", res.StatusCode, body)
		}
		return nil
	})
	if got := s.replicaHeaders(plain); got.Get("X-Forwarded-Proto") != "http" {
		s.t.Errorf("%v", got)
	}
	if res, body := s.fetch("GET", s.urlOf("web", "/"), "", "Authorization: Bearer "+s.token); res.StatusCode != 200 {
		s.t.Errorf("the https port ended at once: %d %s", res.StatusCode, body)
	}
	s.runCLI("gateway", "delete", "edge", "-y").expectExit(0)
	s.waitUntil(10*time.Second, "the https port is closed", func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.https))
		if err == nil {
			conn.Close()
			return fmt.Errorf("it is open")
		}
		return nil
	})
}

// startPublishedTraffic calls the service until stop is called, which returns the first failure.
func (s *publishedSite) startPublishedTraffic() (stop func() (failed string)) {
	ctx, cancel := context.WithCancel(s.t.Context())
	result := make(chan string, 1)
	go func() {
		failed := ""
		for ctx.Err() == nil {
			req, err := http.NewRequest("GET", s.urlOf("web", "/"), nil)
			if err != nil {
				failed = err.Error()
				break
			}
			req.Header.Set("Authorization", "Bearer "+s.token)
			res, err := s.client.Do(req)
			switch {
			case err != nil && failed == "":
				failed = err.Error()
			case err == nil:
				_, _ = io.Copy(io.Discard, res.Body)
				if res.Body.Close(); res.StatusCode != 200 && failed == "" {
					failed = res.Status
				}
			}
		}
		result <- failed
	}()
	return func() string { cancel(); return <-result }
}
