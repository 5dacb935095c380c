package kubeclient_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

// Rule 51: a proxy that lets no WebSocket through costs one refused upgrade in ten minutes. The predicate of client-go for
// such a fallback is never true for its own errors.
func TestStreams_FallBackToSPDY(t *testing.T) {
	t.Parallel()
	cluster := kubetest.Need(t)
	direct := newClient(t, cluster)
	startPod(t, direct, newPod("web", "httpd -f -p 8080"))
	for name, refuse := range map[string]http.HandlerFunc{
		"a proxy that knows no upgrades": nil,
		"a proxy that forbids them":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>no", http.StatusForbidden) },
		"a proxy that answers":           func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var refused atomic.Int32
			c := openClient(t, kubeclient.Options{KubeconfigData: startProxy(t, direct.Address(), cluster.Kubeconfig, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
					return true
				}
				refused.Add(1)
				if refuse != nil {
					refuse(w, r)
					return false
				}
				r.Header.Del("Upgrade")
				r.Header.Del("Connection")
				return true
			}), Namespace: direct.Namespace()})
			for range 2 {
				var out bytes.Buffer
				code, err := c.Exec(t.Context(), kubeclient.ExecRequest{Pod: "web", Argv: []string{"sh", "-c", "echo out; exit 3"}, Stdout: &out})
				if code != 3 || err != nil || out.String() != "out\n" {
					t.Errorf("exit code %d, %v, output %q", code, err, &out)
				}
			}
			conn, err := c.DialPod(t.Context(), "web", 8080)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = fmt.Fprint(conn, "GET /nosuch HTTP/1.0\r\n\r\n") // what fails shows in the answer
			if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 404") {
				t.Errorf("answer %q, %v", text, err)
			}
			if refused.Load() != 1 {
				t.Errorf("%d WebSockets were tried", refused.Load())
			}
			_, err = c.DialPod(t.Context(), "nosuch", 8080)
			if kubeclient.MeaningOf(err) != kubeclient.NotFound {
				t.Errorf("a pod that does not exist: %v", err)
			}
		})
	}
}

// What refuses commands is named, in whatever words it does that: the program was never tried.
func TestExec_Refused(t *testing.T) {
	t.Parallel()
	cluster := kubetest.Need(t)
	direct := newClient(t, cluster)
	startPod(t, direct, newPod("web", "sleep 100"))
	for text, answer := range map[string]struct {
		code    int
		body    string
		meaning kubeclient.Meaning
	}{
		"policy refuses it: Forbidden: exec: permission denied": {http.StatusForbidden, "exec: permission denied", kubeclient.RefusedByPolicy},
		"lacks a right":      {http.StatusForbidden, `{"kind":"Status","code":403,"message":""}`, kubeclient.NoRight},
		"kind of object":     {http.StatusNotFound, "exec: no such file or directory", kubeclient.NotServed},
		"Bad Gateway: dial ": {http.StatusBadGateway, "dial unix /exec.sock: no such file or directory", kubeclient.ServerFault},
	} {
		c := openClient(t, kubeclient.Options{KubeconfigData: startProxy(t, direct.Address(), cluster.Kubeconfig, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/exec") {
				return true
			}
			http.Error(w, answer.body, answer.code)
			return false
		}), Namespace: direct.Namespace()})
		code, err := c.Exec(t.Context(), kubeclient.ExecRequest{Pod: "web", Argv: []string{"/bin/sh", "-c", "true"}})
		if code != 0 || kubeclient.MeaningOf(err) != answer.meaning || !strings.Contains(err.Error(), text) {
			t.Errorf("%d %s: exit code %d, %s, %v", answer.code, answer.body, code, kubeclient.MeaningOf(err), err)
		}
	}
	for program, want := range map[string]int{"/no/such": 127, "/etc/passwd": 126} {
		if code, err := direct.Exec(t.Context(), kubeclient.ExecRequest{Pod: "web", Argv: []string{program}}); code != want || kubeclient.MeaningOf(err) != kubeclient.Other || err == nil {
			t.Errorf("%s: exit code %d, %v", program, code, err)
		}
	}
}

// startProxy starts a proxy before an API server and returns a kubeconfig for it. It passes requests on for which pass is
// true.
func startProxy(t *testing.T, server, kubeconfig string, pass func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is the cluster of the test
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pass(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	t.Cleanup(front.CloseClientConnections)
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	_, user, _ := strings.Cut(string(text), "token: ")
	token, _, _ := strings.Cut(user, "}")
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	return fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}],
		users: [{name: u, user: {token: %s}}], contexts: [{name: c, context: {cluster: c, user: u}}]}`, front.URL, ca, token)
}
