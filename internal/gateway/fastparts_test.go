package gateway

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/httpwire"
	"dstack/internal/openai"
	"dstack/internal/relay"
)

// isPlainTarget reports whether the fast path serves a request with a target.
func isPlainTarget(target string) bool {
	var h httpwire.RequestHead
	n, err := h.Parse([]byte("GET " + target + " HTTP/1.1\r\nHost: web.localhost\r\n\r\n"))
	return n > 0 && err == nil && string(h.Target) == target && isPlain(&h)
}

// A target that the fast path passes on is one that net/url reads and writes as it is.
func FuzzIsPlainTarget(f *testing.F) {
	for _, target := range []string{"/", "/a/b?c=d", "/a%2Fb", "/a%2", "/%zz", "/a b", "//host/x", "/.dstack/sign-in", "/%2edstack/", "/a?",
		"/ä", "/a\"b", "/a#b", "/a?b#c", "*", "http://a/", "", "/[x]", "/a?\x7f", "/a?ä", "/;a=b", "/a^b", "/a\\b", "/a%00"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if !isPlainTarget(target) {
			return
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatalf("%q is malformed: %v", target, err)
		}
		if u.RequestURI() != target || u.Host != "" || strings.HasPrefix(u.Path, gatewayPath) {
			t.Fatalf("%q becomes %q", target, u.RequestURI())
		}
	})
}

func TestIsPlainTarget(t *testing.T) {
	for target, want := range map[string]bool{
		"/": true, "/v1/chat/completions": true, "/a%2Fb?x=%zz&y": true, "/a?": true, "/[x]:@!$&'()*+,;=~": true, "/a?b=ä": true,
		"": false, "*": false, "http://a/": false, "//a": false, "/a%2": false, "/a%zz": false, "/ä": false, "/a\"": false, "/a#b": false,
		"/.dstack/sign-in": false, "/%2edstack/sign-in": false, "/a?b c": false,
	} {
		if got := isPlainTarget(target); got != want {
			t.Errorf("%q: %v", target, got)
		}
	}
}

// A call to a model has the target at its replica that the slow path gives it, whatever the prefix of the replica's API has.
func TestModelTarget(t *testing.T) {
	for _, prefix := range []string{"", "/", "/v1", "/a b/", "/a!b'c", "/ä"} {
		f := &fastRequest{x: &relay.Exchange{Request: httpwire.RequestHead{Target: []byte("/chat/completions?a=b")}}}
		f.model.call = openai.ParseCall("/chat/completions")
		r := &route.Route{Prefix: prefix}
		p := &proxyRequest{destination: route.Destination{Models: true}, model: &modelCall{Call: f.model.call}}
		u := url.URL{Path: p.pathAt(r), RawQuery: "a=b"}
		if got := string(f.modelTarget(r)); got != u.RequestURI() {
			t.Errorf("%q: %s, want %s", prefix, got, u.RequestURI())
		}
	}
}

func FuzzBearerTokenOf(f *testing.F) {
	for _, value := range []string{"Bearer a", "bearer  a ", "Bearer", "Bearer ", "Basic a", "BEARER a b", "Bearer\ta", "bearera", "", " Bearer a"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		want, wantOK := bearerToken(http.Header{"Authorization": {value}})
		got, ok := bearerTokenOf([]byte(value))
		if ok != wantOK || ok && string(got) != want {
			t.Fatalf("%q: %q %v, want %q %v", value, got, ok, want, wantOK)
		}
	})
}

func TestAppendForwarded(t *testing.T) {
	client := route.Client{Address: netip.MustParseAddr("2001:db8::1"), Origin: route.Origin{Scheme: "https", Host: "web.example:8443"},
		Hops: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	p := &proxyRequest{client: client, id: "abc", destination: route.Destination{Project: "main", Run: "web", Base: "/proxy/services/main/web"}}
	h := http.Header{}
	p.setForwardedHeaders(h)
	delete(h, "X-Request-Id")
	lines := strings.Split(strings.TrimSuffix(string(appendForwarded(nil, client, p.pathPrefix())), "\r\n"), "\r\n")
	if len(lines) != len(h) {
		t.Errorf("%q, want %v", lines, h)
	}
	for _, line := range lines {
		if name, value, _ := strings.Cut(line, ": "); h.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, value, h.Get(name))
		}
	}
}

func TestMayHaveDomain(t *testing.T) {
	for cookie, want := range map[string]bool{"a=b": false, "a=b; Domain=x": true, "a=b;DOMAIN=x": true, "domai": false, "": false, "a=b; Path=/domaiN": true} {
		if got := mayHaveDomain([]byte(cookie)); got != want {
			t.Errorf("%q: %v", cookie, got)
		}
	}
}

func TestRandomIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := string(randomIDs.append(nil))
		if len(id) != idLength || !isValidID(id) || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}

// The pick for one run counts as the pick among several and the arrival do.
func TestPickReplicaOf(t *testing.T) {
	l := newLoadTracker()
	v := l.applyTable(route.NewIndex(route.Table{Routes: []route.Route{routeTo("a", "b")}}))
	var at arrival
	first := l.pickReplicaOf(v, v.runs["run"], nil, false, &at)
	second := l.pickReplicaOf(v, v.runs["run"], nil, true, &at)
	if first == nil || second == nil || first == second || l.pickReplicaOf(v, v.runs["run"], endpoints("a", "b"), false, &at) != nil {
		t.Fatalf("%v %v", first, second)
	}
	if load := l.snapshot()["run"]; load.Accepted != 1 || load.InFlight != 2 {
		t.Errorf("%+v", load)
	}
	if requests, _, _ := v.runs["run"].load.window.totals(l.elapsed()); requests != 1 {
		t.Errorf("%d arrivals", requests)
	}
	old := v
	l.applyTable(route.NewIndex(route.Table{Version: 2, Routes: []route.Route{routeTo("a")}}))
	if l.pickReplicaOf(old, old.runs["run"], nil, false, &at) != nil {
		t.Error("a replica of an old view is picked")
	}
	l.release(first)
	l.release(second)
	if load := l.snapshot()["run"]; load.InFlight != 0 {
		t.Errorf("%+v", load)
	}
}

func TestIsDirect(t *testing.T) {
	for _, c := range []struct {
		endpoint dstack.Endpoint
		want     bool
	}{
		{dstack.Endpoint{Address: "10.0.0.1:80"}, true}, {dstack.Endpoint{Address: "[::1]:80"}, true},
		{dstack.Endpoint{Address: "pod.svc:80"}, false}, {dstack.Endpoint{Host: "gpu1", Address: "10.0.0.1:80"}, false}, {dstack.Endpoint{}, false},
	} {
		if got := isDirect(&route.Route{Ready: []route.Target{{Endpoint: c.endpoint}}}); got != c.want {
			t.Errorf("%+v: %v", c.endpoint, got)
		}
	}
}

// A waiter that is notified takes no goroutine, and its end is seen by whoever it wakes.
func TestWaitQueue_Notify(t *testing.T) {
	q := newWaitQueue(2, 1<<20)
	isUp, woken := false, 0
	w := &waiter{run: "run", try: func() bool { return isUp }, notify: func() { woken++ }}
	for range 2 { // it is used again
		if waits, err := q.enqueue(w, 2); !waits || err != nil {
			t.Fatal(waits, err)
		}
		q.wakeAll()
		if isOver, _ := q.finish(w); isOver || woken != 0 {
			t.Fatal("the wait is over")
		}
		isUp = true
		q.wakeAll()
		if isOver, err := q.finish(w); !isOver || err != nil || woken != 1 {
			t.Fatal(isOver, err, woken)
		}
		isUp, woken = false, 0
	}
	if waits, _ := q.enqueue(w, 2); !waits {
		t.Fatal("it does not wait")
	}
	q.close()
	if isOver, err := q.finish(w); !isOver || !errors.Is(err, errStopping) || woken != 1 {
		t.Error(isOver, err, woken)
	}
	if sizes := q.queueSizes(); len(sizes) != 0 {
		t.Error(sizes)
	}
}

func TestRenderError(t *testing.T) {
	var w renderedResponse
	w.header = http.Header{}
	writer := newResponseWriter(&w, time.Second, false)
	if err := writer.writeAll(http.StatusBadGateway, "application/json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for isHead, want := range map[bool]string{false: "\r\n\r\n{}", true: "\r\n\r\n"} {
		got := string(w.render(isHead))
		if !strings.HasPrefix(got, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nContent-Type: application/json\r\nDate: ") || !strings.HasSuffix(got, want) {
			t.Errorf("%q", got)
		}
	}
}
