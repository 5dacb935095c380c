package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/gateway"
)

func TestForward_KeepsTheRequestAsItCame(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.RequestURI, " ", r.Host)
	})
	r := start(t, gateway.Limits{}, public("open", up))
	// A client of its own: Go's would write some of these otherwise.
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
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.RequestURI, " ", r.Host, " ", r.Header.Get("X-Forwarded-Prefix"))
	})
	r := start(t, gateway.Limits{}, public("open", up))
	cases := map[string]string{
		"/proxy/services/main/open/":         "/ here:1 /proxy/services/main/open",
		"/proxy/services/main/open/a%2Fb?x=": "/a%2Fb?x= here:1 /proxy/services/main/open",
		"/proxy/services/main/open//a":       "//a here:1 /proxy/services/main/open",
		"/proxy/services/MAIN/open/a":        "/a here:1 /proxy/services/MAIN/open",
	}
	for uri, want := range cases {
		req := r.ask("GET", "http://here:1"+uri, nil)
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

func TestForward_HeadersOfForwarding(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(r.Header) })
	r := start(t, gateway.Limits{}, public("open", up))
	evil := "6.6.6.6"
	forged := []string{
		"X-Forwarded-For", "x-forwarded-for", "X_Forwarded_For", "X-Forwarded_For", "x_forwarded_for", "X.Forwarded.For",
		"X-Forwarded-Host", "X_FORWARDED_HOST", "X-Forwarded-Proto", "X-Forwarded-Prefix", "x_forwarded_prefix", "X-Forwarded-Port",
		"X-Forwarded-Server", "X-Forwarded", "Forwarded", "FORWARDED", "X-Real-IP", "X_Real_IP", "x-real-ip", "X-Real_Ip", "X-Dstack-User",
		"X_Dstack_User", "X_Request_Id",
	}
	for _, name := range forged {
		for _, connection := range []bool{false, true} {
			req := r.ask("GET", "http://open.localhost/", nil)
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
			} {
				if got := strings.Join(h[name], "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		}
	}
}

func TestForward_HopByHop(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-Accel-Redirect", "/secret")
		w.Header().Set("X-Accel-Buffering", "no")
		w.Header().Set("X-Kept", "1")
		json.NewEncoder(w).Encode(r.Header)
	})
	r := start(t, gateway.Limits{}, public("open", up))
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

	// h2c would carry requests past the gateway.
	up2 := replica(t, 1, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Upgrade"), r.Header.Get("Http2-Settings"), r.Header.Get("Connection"))
	})
	r.plane.set(public("open", up2))
	until(t, "the new table", func() bool { _, ok := r.gateway.Load()["run-open"].Replicas[up2.Replica]; return ok })
	got = r.get("http://open.localhost/", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
	if got.StatusCode != 200 || got.body != "" {
		t.Errorf("h2c got through: %d %s", got.StatusCode, got.body)
	}
}

func TestForward_PassesStatusBodyAndTrailers(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/trailers" {
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
			return
		}
		w.Header()["Content-Encoding"] = []string{"gzip"} // not really; it must not be touched
		w.Header().Add("Set-Cookie", "a=1; Path=/; Domain=.localhost; HttpOnly")
		w.Header().Add("Set-Cookie", "b=2")
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusPaymentRequired)
		w.Write(body)
	})
	r := start(t, gateway.Limits{}, public("open", up))
	sent := string(bytes.Repeat([]byte{0, 1, 2, 0xff, '\n'}, 1000))
	got := r.do(r.ask("POST", "http://open.localhost/", strings.NewReader(sent)))
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
	head := r.do(r.ask("HEAD", "http://open.localhost/", nil))
	if head.StatusCode != http.StatusPaymentRequired {
		t.Errorf("HEAD: %d", head.StatusCode)
	}
}

func TestForward_RedirectsByPathStayBelowIt(t *testing.T) {
	var location string
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Location"] = []string{location}
		w.Header().Set("Set-Cookie", "s=1; Path=/app; Secure")
		w.WriteHeader(http.StatusFound)
	})
	r := start(t, gateway.Limits{}, public("open", up))
	const base = "/proxy/services/main/open"
	for from, want := range map[string]string{
		"/login": base + "/login", "login": "login", "https://other/x": "https://other/x", "http://here:1/x?y#z": "http://here:1" + base + "/x?y#z",
		"//here:1/x": "//here:1" + base + "/x", base + "/already": base + "/already", "http://here:1": "http://here:1" + base + "/",
	} {
		location = from
		req := r.ask("GET", "http://here:1"+base+"/", nil)
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

func TestForward_StreamArrivesInPieces(t *testing.T) {
	next := make(chan string)
	for _, kind := range []string{"text/event-stream", "application/octet-stream"} {
		t.Run(kind, func(t *testing.T) {
			up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(200)
				http.NewResponseController(w).Flush()
				for piece := range next {
					if piece == "end" {
						return
					}
					io.WriteString(w, piece)
					http.NewResponseController(w).Flush()
				}
			})
			r := start(t, gateway.Limits{}, public("open", up))
			res, err := r.client.Do(r.ask("GET", "http://open.localhost/", nil)) // the headers alone come through
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			in := bufio.NewReader(res.Body)
			for i := range 5 {
				piece := fmt.Sprintf("data: %d\n", i)
				next <- piece // and only now there is one
				if got, err := in.ReadString('\n'); got != piece || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			next <- "end"
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestForward_SlowBodyOfKnownLengthComesThrough(t *testing.T) {
	more := make(chan struct{})
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "a")
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, "b")
	})
	r := start(t, gateway.Limits{}, public("open", up))
	res, err := r.client.Do(r.ask("GET", "http://open.localhost/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var one [1]byte
	if _, err := io.ReadFull(res.Body, one[:]); err != nil || one[0] != 'a' {
		t.Fatal(err)
	}
	close(more)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "b" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestForward_UploadArrivesInPieces(t *testing.T) {
	seen := make(chan string)
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			seen <- line
		}
	})
	r := start(t, gateway.Limits{}, public("open", up))
	body, out := io.Pipe()
	done := make(chan reply, 1)
	go func() { done <- r.do(r.ask("POST", "http://open.localhost/", body)) }()
	for i := range 3 {
		line := fmt.Sprintln("line", i)
		io.WriteString(out, line)
		if got := <-seen; got != line {
			t.Fatalf("got %q", got)
		}
	}
	out.Close()
	if got := <-done; got.StatusCode != 200 {
		t.Errorf("status %d", got.StatusCode)
	}
}

func TestForward_ClientsCancelReachesTheReplica(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
		}
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	for _, path := range []string{"/silent", "/stream"} {
		arrived, gone = make(chan struct{}), make(chan struct{})
		r := start(t, gateway.Limits{}, public("open", up))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			res, err := r.client.Do(r.ask("GET", "http://open.localhost"+path, nil).WithContext(ctx))
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		<-arrived
		if n := r.gateway.Load()["run-open"].InFlight; n != 1 {
			t.Errorf("%s: %d in flight", path, n)
		}
		cancel()
		<-gone
		<-done
		until(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
	}
}

func TestForward_ReplicaThatDiesMidStreamAbortsTheClient(t *testing.T) {
	for _, known := range []bool{true, false} {
		up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
			if known {
				w.Header().Set("Content-Length", "100000")
			}
			io.WriteString(w, strings.Repeat("x", 50000))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		r := start(t, gateway.Limits{}, public("open", up))
		res, err := r.client.Do(r.ask("GET", "http://open.localhost/", nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			t.Errorf("known length %v: a cut answer of %d bytes looks whole", known, len(got))
		}
	}
}

func TestForward_BrokenReplicas(t *testing.T) {
	raw := func(answer string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				all.Go(func() {
					defer conn.Close()
					bufio.NewReader(conn).ReadString('\n')
					io.WriteString(conn, answer)
				})
			}
		})
		t.Cleanup(func() { l.Close(); all.Wait() })
		return l.Addr().String()
	}
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	cases := []struct {
		name, address string
		status        int
		kind          string
	}{
		{"closes at once", raw(""), 502, "bad_gateway"},
		{"no HTTP", raw("SSH-2.0-OpenSSH_9.2\r\n"), 502, "bad_gateway"},
		{"header without end", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n"), 502, "bad_gateway"},
		{"two lengths", raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502, "bad_gateway"},
		{"switches unasked", raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), 502, "bad_gateway"},
		{"nobody there", closedPort(t), 502, "bad_gateway"},
		{"never answers", up.Address, 504, "timeout"},
	}
	for _, c := range cases {
		r := start(t, gateway.Limits{Refused: time.Millisecond, Answer: 200 * time.Millisecond}, public("open", at(c.address, 0)))
		got := r.get("http://open.localhost/")
		if got.StatusCode != c.status || !strings.Contains(got.body, `"kind":"`+c.kind+`"`) {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
		if strings.Contains(got.body, c.address) {
			t.Errorf("%s: the answer tells an address: %s", c.name, got.body)
		}
	}
}

func TestForward_WebSocket(t *testing.T) {
	closed := make(chan struct{})
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		defer close(closed)
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		for {
			kind, data, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			if err := ws.Write(r.Context(), kind, append([]byte(r.URL.Path+" "), data...)); err != nil {
				return
			}
		}
	})
	r := start(t, gateway.Limits{}, service("chat", up))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	address := "ws://" + r.server.Listener.Addr().String() + "/talk"
	options := func(token string) *websocket.DialOptions {
		return &websocket.DialOptions{HTTPClient: r.client, Host: "chat.localhost", Subprotocols: []string{"echo"},
			HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}}
	}
	if _, res, err := websocket.Dial(ctx, address, options("wrong")); err == nil || res.StatusCode != 401 {
		t.Fatalf("with a wrong token: %v", err)
	}
	ws, _, err := websocket.Dial(ctx, address, options(member))
	if err != nil {
		t.Fatal(err)
	}
	if ws.Subprotocol() != "echo" {
		t.Errorf("subprotocol %q", ws.Subprotocol())
	}
	for i := range 3 {
		message := fmt.Sprint("message ", i)
		if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != "/talk "+message {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if n := r.gateway.Load()["run-chat"].InFlight; n != 1 {
		t.Errorf("%d in flight", n)
	}
	ws.CloseNow() // the client vanishes
	<-closed
	until(t, "nothing in flight", func() bool { return r.gateway.Load()["run-chat"].InFlight == 0 })
}

func TestForward_EarlyHintsPassButNotAFlood(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		io.WriteString(w, "done")
	})
	r := start(t, gateway.Limits{}, public("open", up))
	var early atomic.Int32
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code != http.StatusEarlyHints || h.Get("Link") == "" {
			t.Errorf("got %d %v", code, h)
		}
		early.Add(1)
		return nil
	}})
	got := r.do(r.ask("GET", "http://open.localhost/", nil).WithContext(ctx))
	if got.body != "done" || got.Header.Get("Link") != "" || got.Header.Get("X-Request-Id") == "" {
		t.Errorf("got %q %v", got.body, got.Header)
	}
	if n := early.Load(); n != 16 {
		t.Errorf("%d early answers came through, want 16", n)
	}
}

func TestForward_ExpectContinue(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	})
	r := start(t, gateway.Limits{}, public("open", up))
	for path, want := range map[string]int{"/": 200, "/refuse": 417} {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", path)
		in := bufio.NewReader(conn)
		line, _ := in.ReadString('\n')
		if want == 200 {
			if line != "HTTP/1.1 100 Continue\r\n" {
				t.Errorf("first %q", line)
			}
			in.ReadString('\n')
			io.WriteString(conn, "body")
			line, _ = in.ReadString('\n')
		}
		if !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("%s: %q", path, line)
		}
		conn.Close()
	}
}

func TestForward_HugeBodiesInConstantMemory(t *testing.T) {
	const size = 256 << 20
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	r := start(t, gateway.Limits{}, public("open", up))
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	res, err := r.client.Do(r.ask("POST", "http://open.localhost/", io.LimitReader(zeros{}, size)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.CopyN(io.Discard, res.Body, size/2); err != nil {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&during)
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != size/2 {
		t.Fatal(n, err)
	}
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestForward_AnotherReplicaWhenOneRefuses(t *testing.T) {
	up := replica(t, 1, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r := start(t, gateway.Limits{}, public("open", at(closedPort(t), 0), up))
	for range 10 {
		if got := r.do(r.ask("POST", "http://open.localhost/", strings.NewReader("body"))); got.StatusCode != 200 || got.body != "body" {
			t.Fatalf("%d %q", got.StatusCode, got.body)
		}
	}
	if load := r.gateway.Load()["run-open"]; load.Accepted != 10 {
		t.Errorf("load %+v", load)
	}
	until(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

func TestForward_NeverTwiceOnceSent(t *testing.T) {
	var calls atomic.Int32
	dies := func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		calls.Add(1)
		panic(http.ErrAbortHandler)
	}
	r := start(t, gateway.Limits{}, public("open", replica(t, 0, dies), replica(t, 1, dies)))
	got := r.do(r.ask("POST", "http://open.localhost/", strings.NewReader("body")))
	if got.StatusCode != 502 || calls.Load() != 1 {
		t.Errorf("status %d after %d calls", got.StatusCode, calls.Load())
	}
}

func TestForward_WaitsForAReplicaThatIsBeingRestarted(t *testing.T) {
	gone := closedPort(t)
	r := start(t, gateway.Limits{Refused: 20 * time.Second}, public("open", at(gone, 0)))
	done := make(chan reply, 1)
	go func() { done <- r.do(r.ask("POST", "http://open.localhost/", strings.NewReader("body"))) }()
	until(t, "the refused request being held", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	r.plane.set(public("open")) // the crash is seen
	r.plane.set(public("open", replica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
	if got := <-done; got.StatusCode != 200 || got.body != "body" {
		t.Errorf("%d %q", got.StatusCode, got.body)
	}
	if load := r.gateway.Load()["run-open"]; load.Accepted != 1 || load.Held != 0 {
		t.Errorf("load %+v", load)
	}
	until(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

func TestForward_ClientsBrokenBody(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	r := start(t, gateway.Limits{Stall: 100 * time.Millisecond}, public("open", up), model("m", "org/m", up))
	for name, head := range map[string]string{
		"bad chunk":       "POST / HTTP/1.1\r\nHost: open.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
		"stalls":          "POST / HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 100\r\n\r\nhello",
		"stalls, a model": "POST /v1/completions HTTP/1.1\r\nHost: gateway.localhost\r\nAuthorization: Bearer " + member + "\r\nContent-Length: 100\r\n\r\nhello",
	} {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, head)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line != "HTTP/1.1 400 Bad Request\r\n" {
			t.Errorf("%s: %q, %v\n%s", name, line, err, r.log)
		}
		conn.Close()
	}
}

func TestForward_ClientThatTakesNothing(t *testing.T) {
	ended := make(chan struct{})
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		io.Copy(w, zeros{})
	})
	r := start(t, gateway.Limits{Stall: 200 * time.Millisecond}, public("open", up))
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
	<-ended
	until(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

// TestForward_DeadlinesEndWithTheRequest: the connection serves others next,
// for longer than a stall may last.
func TestForward_DeadlinesEndWithTheRequest(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			select {
			case <-time.After(400 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, n)
	})
	r := start(t, gateway.Limits{Stall: 100 * time.Millisecond}, public("open", up))
	for range 2 {
		for _, path := range []string{"/", "/slow"} {
			got := r.do(r.ask("POST", "http://open.localhost"+path, strings.NewReader("body")))
			if got.StatusCode != 200 || got.body != "4" {
				t.Errorf("%s: %d %q", path, got.StatusCode, got.body)
			}
		}
	}
}

func TestForward_ManyAtOnce(t *testing.T) {
	var targets = []int{0, 0, 0}
	var mu sync.Mutex
	serve := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			targets[n]++
			mu.Unlock()
			io.Copy(w, r.Body)
		}
	}
	route := public("open", replica(t, 0, serve(0)), replica(t, 1, serve(1)), replica(t, 2, serve(2)))
	r := start(t, gateway.Limits{}, route)
	var all sync.WaitGroup
	fail := make(chan error, 1000)
	for i := range 16 {
		all.Go(func() {
			for j := range 30 {
				body := fmt.Sprintf("%d-%d", i, j)
				res, err := r.client.Do(r.ask("POST", "http://open.localhost/", strings.NewReader(body)))
				if err != nil {
					fail <- err
					continue
				}
				got, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if string(got) != body {
					fail <- errors.New("mixed up: " + string(got))
				}
			}
		})
	}
	for range 50 { // tables come while requests go
		r.plane.set(route)
	}
	all.Wait()
	close(fail)
	for err := range fail {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Min(targets) < 100 {
		t.Errorf("shared unevenly: %v", targets)
	}
	until(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

func BenchmarkGet(b *testing.B) {
	up := replica(b, 0, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1024)) })
	r := start(b, gateway.Limits{}, service("llama", up))
	get := func(b *testing.B, address string) {
		for b.Loop() {
			req := r.ask("GET", "http://llama.localhost/", nil, bearer(member)...)
			req.URL.Host = address
			res, err := r.client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				b.Fatal(res.Status)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { get(b, up.Address) })
	b.Run("gateway", func(b *testing.B) { get(b, r.server.Listener.Addr().String()) })
}
