package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"dstack/internal/gateway"
)

func TestForward_KeepsTheRequestUnchanged(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.RequestURI, " ", r.Host)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	// Go's client would change some of these.
	send := func(uri string) string {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "DELETE %s HTTP/1.1\r\nHost: Open.localhost:3000\r\nConnection: close\r\n\r\n", uri)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	for _, uri := range []string{
		"/", "/a/b", "/a%2Fb", "/a%20b", "//double", "/a/../b", "/a?", "/?a=1;b=2", "/?bad=%zz&x=1", "/?a=1&a=2&b", "/a/?x=%2F+%20", "/?q=http://x/",
		"/proxy/services/main/other/x", "/api/runs/list",
	} {
		if got, want := send(uri), "DELETE "+uri+" Open.localhost:3000"; got != want {
			t.Errorf("replica saw %q, want %q", got, want)
		}
	}
}

func TestForward_ByPath(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.RequestURI, " ", r.Host, " ", r.Header.Get("X-Forwarded-Prefix"))
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	cases := map[string]string{
		"/proxy/services/main/open/":         "/ here:1 /proxy/services/main/open",
		"/proxy/services/main/open/a%2Fb?x=": "/a%2Fb?x= here:1 /proxy/services/main/open",
		"/proxy/services/main/open//a":       "//a here:1 /proxy/services/main/open",
		"/proxy/services/MAIN/open/a":        "/a here:1 /proxy/services/MAIN/open",
	}
	for uri, want := range cases {
		req := r.newRequest("GET", "http://here:1"+uri, nil)
		req.Host = "here:1"
		if got := r.do(req); got.body != want {
			t.Errorf("%s: replica saw %q, want %q", uri, got.body, want)
		}
	}
	to := r.get("http://here/proxy/services/main/open?a=1")
	if to.StatusCode != 307 || to.Header.Get("Location") != "/proxy/services/main/open/?a=1" {
		t.Errorf("without a slash: %d %s", to.StatusCode, to.Header.Get("Location"))
	}
}

func TestForward_ForwardedHeaders(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(r.Header) })
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	evil := "6.6.6.6"
	forged := []string{
		"X-Forwarded-For", "x-forwarded-for", "X_Forwarded_For", "X-Forwarded_For", "x_forwarded_for", "X.Forwarded.For",
		"X-Forwarded-Host", "X_FORWARDED_HOST", "X-Forwarded-Proto", "X-Forwarded-Prefix", "x_forwarded_prefix", "X-Forwarded-Port",
		"X-Forwarded-Server", "X-Forwarded", "Forwarded", "FORWARDED", "X-Real-IP", "X_Real_IP", "x-real-ip", "X-Real_Ip", "X-Dstack-User",
		"X_Dstack_User", "X_Request_Id",
	}
	for _, name := range forged {
		for _, connection := range []bool{false, true} {
			req := r.newRequest("GET", "http://open.localhost/", nil)
			req.Header[name] = []string{evil, evil}
			if connection {
				req.Header.Set("Connection", name+", X-Forwarded-For, X-Real-Ip, Forwarded")
			}
			got := r.do(req)
			if strings.Contains(got.body, evil) {
				t.Errorf("%s (named by Connection: %v) got through: %s", name, connection, got.body)
			}
			var h http.Header
			if err := json.Unmarshal([]byte(got.body), &h); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{
				"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Host": "open.localhost", "X-Forwarded-Proto": "http",
				"Forwarded": `for=127.0.0.1;host="open.localhost";proto=http`, "X-Forwarded-Prefix": "",
				"X-Forwarded-Port": "80",
			} {
				if got := strings.Join(h[name], "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		}
	}
}

func TestForward_HopByHop(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-Accel-Redirect", "/secret")
		w.Header().Set("X-Accel-Buffering", "no")
		w.Header().Set("X-Kept", "1")
		json.NewEncoder(w).Encode(r.Header)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	got := r.get("http://open.localhost/",
		"Connection", "X-Mine, close", "X-Mine", "1", "Keep-Alive", "1", "Proxy-Connection", "keep-alive", "Te", "gzip, trailers",
		"Trailer", "X", "Upgrade", "h2c", "Http2-Settings", "AAMAAABkAARAAAAAAAIAAAAA", "X-Kept", "1")
	var h http.Header
	if err := json.Unmarshal([]byte(got.body), &h); err != nil {
		t.Fatal(err, got.body)
	}
	for _, name := range []string{"X-Mine", "Keep-Alive", "Proxy-Connection", "Trailer", "Upgrade", "Http2-Settings", "Connection"} {
		if h.Get(name) != "" {
			t.Errorf("the replica saw %s: %s", name, h.Get(name))
		}
	}
	if h.Get("Te") != "trailers" || h.Get("X-Kept") != "1" {
		t.Errorf("the replica saw %v", h)
	}
	for _, name := range []string{"X-Private", "Keep-Alive", "Proxy-Authenticate", "X-Accel-Redirect"} {
		if got.Header.Get(name) != "" {
			t.Errorf("the client saw %s: %s", name, got.Header.Get(name))
		}
	}
	if got.Header.Get("X-Kept") != "1" || got.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("the client saw %v", got.Header)
	}

	// h2c would carry requests that the gateway does not see.
	up2 := startReplica(t, 1, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Upgrade"), r.Header.Get("Http2-Settings"), r.Header.Get("Connection"))
	})
	r.plane.setRoutes(publicRoute("open", up2))
	waitUntil(t, "the new table", func() bool { _, ok := r.gateway.Load()["run-open"].Replicas[up2.Replica]; return ok })
	got = r.get("http://open.localhost/", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
	if got.StatusCode != 200 || got.body != "" {
		t.Errorf("h2c got through: %d %s", got.StatusCode, got.body)
	}
}

func TestForward_PassesStatusBodyAndTrailers(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/trailers" {
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
			return
		}
		w.Header()["Content-Encoding"] = []string{"gzip"} // it is not, but must stay unchanged
		w.Header().Add("Set-Cookie", "a=1; Path=/; Domain=.localhost; HttpOnly")
		w.Header().Add("Set-Cookie", "b=2")
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusPaymentRequired)
		w.Write(body)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	sent := string(bytes.Repeat([]byte{0, 1, 2, 0xff, '\n'}, 1000))
	got := r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader(sent)))
	if got.StatusCode != http.StatusPaymentRequired || got.body != sent || got.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("got %d, %d bytes, %v", got.StatusCode, len(got.body), got.Header)
	}
	if c := got.Header["Set-Cookie"]; !slices.Equal(c, []string{"a=1; Path=/; HttpOnly", "b=2"}) {
		t.Errorf("cookies %q", c)
	}
	got = r.get("http://open.localhost/trailers")
	if got.body != "body" || got.Trailer.Get("X-Sum") != "42" {
		t.Errorf("got %q, trailers %v", got.body, got.Trailer)
	}
	head := r.do(r.newRequest("HEAD", "http://open.localhost/", nil))
	if head.StatusCode != http.StatusPaymentRequired {
		t.Errorf("HEAD: %d", head.StatusCode)
	}
}

func TestForward_RewritesRedirects(t *testing.T) {
	var location string
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Location"] = []string{location}
		w.Header().Set("Set-Cookie", "s=1; Path=/app; Secure")
		w.WriteHeader(http.StatusFound)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	const base = "/proxy/services/main/open"
	for from, want := range map[string]string{
		"/login": base + "/login", "login": "login", "https://other/x": "https://other/x", "http://here:1/x?y#z": "http://here:1" + base + "/x?y#z",
		"//here:1/x": "//here:1" + base + "/x", base + "/already": base + "/already", "http://here:1": "http://here:1" + base + "/",
	} {
		location = from
		req := r.newRequest("GET", "http://here:1"+base+"/", nil)
		req.Host = "here:1"
		got := r.do(req)
		if to := got.Header.Get("Location"); to != want {
			t.Errorf("%s became %s, want %s", from, to, want)
		}
		if c := got.Header.Get("Set-Cookie"); c != "s=1; Path="+base+"/app; Secure" {
			t.Errorf("cookie %q", c)
		}
	}
	location = "/login"
	if got := r.get("http://open.localhost/"); got.Header.Get("Location") != "/login" {
		t.Errorf("by host %s became %s", location, got.Header.Get("Location"))
	}
}
