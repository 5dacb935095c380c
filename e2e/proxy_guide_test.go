package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const proxyGuide = "../docs/guides/tls-proxy.md"

// TestProxyGuide runs the files of the guide with the real programs, and checks what
// it promises about both.
func TestProxyGuide(t *testing.T) {
	t.Parallel()
	t.Run("caddy", func(t *testing.T) {
		runParallel(t)
		program := needPiece(t, "caddy", "DSTACK_TEST_CADDY")
		testProxyGuide(t, func(g *guideProxy) *exec.Cmd {
			text := strings.NewReplacer(
				"*.dstack.example.com {", fmt.Sprintf("*.dstack.example.com:%d {", g.port),
				"dstack.example.com,", fmt.Sprintf("dstack.example.com:%d,", g.port),
				"/etc/caddy/", g.dir+"/", "127.0.0.1:3000", g.server,
			).Replace(readGuide(t, "caddyfile"))
			text = fmt.Sprintf("{\n\tadmin off\n\thttp_port %d\n}\n%s", findFreePort(t), text)
			return exec.Command(program, "run", "--adapter", "caddyfile", "--config", g.writeFile("Caddyfile", text))
		})
	})
	t.Run("nginx", func(t *testing.T) {
		runParallel(t)
		program := needPiece(t, "nginx", "DSTACK_TEST_NGINX")
		testProxyGuide(t, func(g *guideProxy) *exec.Cmd {
			text := strings.NewReplacer("listen 443", fmt.Sprintf("listen 127.0.0.1:%d", g.port), "/etc/nginx/", g.dir+"/",
				"127.0.0.1:3000", g.server).Replace(readGuide(t, "nginx"))
			temporary := ""
			for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += fmt.Sprintf("%s_temp_path %s/%s;\n", what, g.dir, what)
			}
			user := ""
			if os.Getuid() == 0 {
				user = "user root;\n"
			}
			text = fmt.Sprintf("%spid %s/nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s\n%s\n}\n", user, g.dir,
				temporary, text)
			return exec.Command(program, "-p", g.dir, "-c", g.writeFile("nginx.conf", text), "-g", "daemon off;")
		})
	})
}

// readGuide returns the only block of a language in the guide.
func readGuide(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile(proxyGuide)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```"+language+"\n")
	text, _, ended := strings.Cut(rest, "\n```\n")
	if !found || !ended {
		t.Fatalf("%s has no block of %s", proxyGuide, language)
	}
	return text
}

// guideProxy is a proxy of the guide in front of a server.
type guideProxy struct {
	t      *testing.T
	dir    string // of its files
	port   int
	server string // host:port of the server
	roots  *x509.CertPool
	log    safeBuffer
}

func (g *guideProxy) writeFile(name, text string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return path
}

// newClient returns a client that reaches every name through the proxy, from
// 127.0.0.2, which is no trusted proxy.
func (g *guideProxy) newClient(http2 bool) *http.Client {
	transport := &http.Transport{
		ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{RootCAs: g.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
			return d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", g.port))
		},
	}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: client.CheckRedirect, Timeout: time.Minute}
}

// start writes the certificate and runs the proxy.
func (g *guideProxy) start(command func(*guideProxy) *exec.Cmd) {
	g.t.Helper()
	certificate, text := newCertificate(g.t, []string{"dstack.example.com", "*.dstack.example.com"})
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		g.t.Fatal(err)
	}
	g.writeFile("dstack.example.com.crt", string(text))
	g.writeFile("dstack.example.com.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	g.roots = x509.NewCertPool()
	g.roots.AppendCertsFromPEM(text)

	cmd := command(g)
	cmd.Env = append(os.Environ(), "HOME="+g.dir, "XDG_DATA_HOME="+g.dir, "XDG_CONFIG_HOME="+g.dir)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &g.log, &g.log, 5*time.Second
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if cmd.Wait(); g.t.Failed() {
			g.t.Logf("the proxy printed\n%s", g.log.String())
		}
	})
}

func testProxyGuide(t *testing.T, command func(*guideProxy) *exec.Cmd) {
	serverPort := findFreePort(t)
	g := &guideProxy{t: t, dir: t.TempDir(), port: findFreePort(t), server: fmt.Sprintf("127.0.0.1:%d", serverPort)}
	connect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tunnel(w, fmt.Sprintf("127.0.0.1:%d", g.port)) // as the only way of the command line to the server
	}))
	t.Cleanup(connect.Close)
	g.start(command) // before the harness, which needs it when it is cleaned up
	h := newStoppedHarness(t, "process", "DSTACK_SERVER_URL=https://dstack.example.com", "HTTPS_PROXY="+connect.URL,
		"SSL_CERT_FILE="+filepath.Join(g.dir, "dstack.example.com.crt"), "DSTACK_SERVER_LOG_LEVEL=INFO")
	h.writeFile(filepath.Join(h.serverDir, "config.yml"),
		"projects:\n- name: main\n  backends:\n  - type: local\n    engine: process\ntrusted_proxies: [127.0.0.1]\n")
	h.port = serverPort
	h.startServer()
	h.applyAndWait(h.newFolder(h.workloadConfig("web", "auth: false")))
	limited := "auth: false\nrate_limits:\n- rps: 0.02\n  key: {type: ip_address}"
	h.applyAndWait(h.newFolder(h.workloadConfig("limited", limited)))
	web := g.newClient(true)
	h.waitUntil(10*time.Second, "the proxy answers", func() error {
		_, err := web.Get("https://dstack.example.com/healthcheck")
		return err
	})

	for name, url := range map[string]string{
		"by name": "https://web.dstack.example.com/", "by path": "https://dstack.example.com/proxy/services/main/web/",
	} {
		t.Run("headers "+name, func(t *testing.T) { g.withT(t).expectHeaders(web, url) })
		t.Run("events "+name, func(t *testing.T) { g.withT(t).expectSpacedEvents(web, url+"events?n=5&ms=200") })
		t.Run("cancel "+name, func(t *testing.T) { g.withT(t).expectCancel(web, url) })
		t.Run("socket "+name, func(t *testing.T) { g.withT(t).expectWebSocket(url + "socket") })
		t.Run("upload "+name, func(t *testing.T) { g.withT(t).expectUpload(web, url+"size") })
	}
	t.Run("limits count the client", func(t *testing.T) {
		g := g.withT(t)
		direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.roots}, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}
				return d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", g.port))
			}}}
		for i, c := range []struct {
			client *http.Client
			want   int
		}{{web, 200}, {web, 429}, {direct, 200}, {direct, 429}} {
			req, _ := http.NewRequest("GET", "https://limited.dstack.example.com/who", nil)
			req.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
			if got, _ := g.send(c.client, req); got != c.want {
				t.Errorf("request %d: %d, want %d", i, got, c.want)
			}
		}
	})
	t.Run("a large upload is refused early", func(t *testing.T) {
		for range 10 {
			req, _ := http.NewRequest("POST", "https://limited.dstack.example.com/size", bytes.NewReader(make([]byte, 20<<20)))
			if got, body := g.withT(t).send(web, req); got != 429 {
				t.Errorf("%d %s, want 429", got, body)
			}
		}
	})
	t.Run("the log has the client", func(t *testing.T) {
		req, _ := http.NewRequest("POST", "https://dstack.example.com/api/users/list", nil)
		req.Header.Set("Authorization", "Bearer wrong")
		g.withT(t).send(web, req)
		h.waitForText("from=127.0.0.2")
	})
}

// withT returns the proxy for a subtest.
func (g *guideProxy) withT(t *testing.T) *guideProxy {
	return &guideProxy{t: t, port: g.port, roots: g.roots}
}

func (g *guideProxy) send(c *http.Client, req *http.Request) (status int, body string) {
	g.t.Helper()
	res, err := c.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// expectHeaders checks what a service learns of its client, and that the client
// cannot lie about it.
func (g *guideProxy) expectHeaders(c *http.Client, url string) {
	g.t.Helper()
	req, _ := http.NewRequest("GET", url, nil)
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"} {
		req.Header.Set(name, "6.6.6.6")
	}
	req.Header.Set("X-Forwarded-Port", "6666")
	req.Header.Set("Forwarded", "for=6.6.6.6;host=evil.test")
	_, body := g.send(c, req)
	var info workloadInfo
	if err := json.Unmarshal([]byte(body), &info); err != nil {
		g.t.Fatal(err, body)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.2, 127.0.0.1", "X-Real-Ip": "127.0.0.2", "X-Forwarded-Proto": "https",
		"X-Forwarded-Host": req.URL.Host, "X-Forwarded-Port": "443",
		"Forwarded": `for=127.0.0.2;host="` + req.URL.Host + `";proto=https, for=127.0.0.1`,
	} {
		if got := info.Headers.Get(name); got != want {
			g.t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func (g *guideProxy) expectSpacedEvents(c *http.Client, url string) {
	g.t.Helper()
	res, err := c.Get(url)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	var at []time.Time
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			at = append(at, time.Now())
		}
	}
	if len(at) != 5 || at[4].Sub(at[0]) < 500*time.Millisecond {
		g.t.Errorf("five events, 200ms apart, arrived at %v", at)
	}
}

// expectCancel checks that the replica notices when its client disconnects.
func (g *guideProxy) expectCancel(c *http.Client, url string) {
	g.t.Helper()
	count := func() string {
		req, _ := http.NewRequest("GET", url+"cancelled", nil)
		_, body := g.send(c, req)
		return body
	}
	before := count()
	ctx, cancel := context.WithCancel(g.t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", url+"events?ms=20", nil)
	res, err := c.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		g.t.Fatal(err)
	}
	cancel()
	res.Body.Close()
	if err := retryFor(10*time.Second, func() error {
		if count() == before {
			return fmt.Errorf("the replica does not notice that its client has disconnected")
		}
		return nil
	}); err != nil {
		g.t.Error(err)
	}
}

func (g *guideProxy) expectWebSocket(url string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: g.newClient(false)})
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.CloseNow()
	for _, word := range []string{"one", strings.Repeat("two", 5000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(word)); err != nil {
			g.t.Fatal(err)
		}
		if _, back, err := c.Read(ctx); err != nil || string(back) != word {
			g.t.Fatalf("the response to %.20q is %.20q: %v", word, back, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		g.t.Errorf("the WebSocket does not close cleanly: %v", err)
	}
}

// expectUpload sends a large body, of a known length and in chunks.
func (g *guideProxy) expectUpload(c *http.Client, url string) {
	g.t.Helper()
	const size = 100 << 20
	for _, known := range []bool{true, false} {
		var body io.Reader = bytes.NewReader(make([]byte, size))
		if !known {
			body = io.MultiReader(body)
		}
		req, _ := http.NewRequest("POST", url, body)
		if status, got := g.send(c, req); status != 200 || got != strconv.Itoa(size) {
			g.t.Errorf("an upload of %d bytes (known length: %v): %d %.200s", size, known, status, got)
		}
	}
}
