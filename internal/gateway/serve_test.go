package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

func TestServes_ByHostAloneElseByPath(t *testing.T) {
	g := gateway.New(gateway.Options{})
	cases := []struct {
		host, path string
		want       bool
	}{
		{"llama.localhost:3000", "/", true},
		{"llama.localhost:3000", "/api/runs/list", true},
		{"gateway.localhost", "/v1/models", true},
		{"a.b.c.localhost", "/api/runs/list", true},
		{"localhost:3000", "/api/runs/list", false},
		{"127.0.0.1:3000", "/", false},
		{"evil.example", "/", false},
		{"127.0.0.1:3000", "/proxy/services/main/llama/", true},
		{"127.0.0.1:3000", "/proxy/models/main/models", true},
		{"127.0.0.1:3000", "/proxy/services/", true},
		{"127.0.0.1:3000", "/v1/models", true},
		{"dstack.example.com", "/v1", true},
		{"127.0.0.1:3000", "/v1x", false},
		{"127.0.0.1:3000", "/proxy/other", false},
		{"127.0.0.1:3000", "/%70roxy/services/main/llama/", false},
	}
	for _, c := range cases {
		r := httptest.NewRequest("GET", "http://x"+c.path, nil)
		r.Host = c.host
		if got := g.Serves(r); got != c.want {
			t.Errorf("%s%s: %v", c.host, c.path, got)
		}
	}
}

func TestAuthorize(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("llama", up), publicRoute("open", up), route.Route{
		Run: "theirs", Project: "team", Name: "theirs", Auth: true, Ready: []route.Target{up}})
	cases := []struct {
		name, url string
		header    []string
		status    int
		kind      string
	}{
		{"right token", "http://llama.localhost/", withToken(member), 200, ""},
		{"admin", "http://llama.localhost/", withToken(admin), 200, ""},
		{"scheme in capitals", "http://llama.localhost/", []string{"Authorization", "BEARER " + member}, 200, ""},
		{"by path", "http://127.0.0.1/proxy/services/main/llama/", withToken(member), 200, ""},
		{"by path, project in capitals", "http://127.0.0.1/proxy/services/Main/llama/", withToken(member), 200, ""},
		{"public", "http://open.localhost/", nil, 200, ""},
		{"public with a wrong token", "http://open.localhost/", withToken("wrong"), 200, ""},
		{"other project", "http://theirs.team.localhost/", withToken(other), 200, ""},

		{"no token", "http://llama.localhost/", nil, 401, "unauthorized"},
		{"wrong token", "http://llama.localhost/", withToken("wrong"), 401, "unauthorized"},
		{"the digest itself", "http://llama.localhost/", withToken(hashToken(admin)), 401, "unauthorized"},
		{"empty token", "http://llama.localhost/", []string{"Authorization", "Bearer "}, 401, "unauthorized"},
		{"no scheme", "http://llama.localhost/", []string{"Authorization", admin}, 401, "unauthorized"},
		{"other scheme", "http://llama.localhost/", []string{"Authorization", "Basic " + admin}, 401, "unauthorized"},
		{"two headers", "http://llama.localhost/", append(withToken("wrong"), withToken(admin)...), 401, "unauthorized"},
		{"in the query", "http://llama.localhost/?token=" + admin, nil, 401, "unauthorized"},
		{"SQL", "http://llama.localhost/", withToken("' OR 1=1 --"), 401, "unauthorized"},
		{"somebody else's token", "http://llama.localhost/", withToken(other), 403, "forbidden"},
		{"named by Connection", "http://llama.localhost/", []string{"Connection", "Authorization"}, 401, "unauthorized"},

		// A caller without access to a project learns nothing about its runs.
		{"absent run, no token", "http://absent.localhost/", nil, 401, "unauthorized"},
		{"absent run, wrong token", "http://absent.localhost/", withToken("wrong"), 401, "unauthorized"},
		{"absent run, other's token", "http://absent.localhost/", withToken(other), 403, "forbidden"},
		{"theirs", "http://theirs.team.localhost/", withToken(member), 403, "forbidden"},
		{"not even theirs", "http://absent.team.localhost/", withToken(member), 403, "forbidden"},
		{"absent project", "http://absent.nobody.localhost/", withToken(member), 403, "forbidden"},
		{"absent run, right token", "http://absent.localhost/", withToken(member), 404, "not_found"},
		{"absent project, admin", "http://absent.nobody.localhost/", withToken(admin), 404, "not_found"},
		{"nothing named", "http://a.b.c.localhost/", nil, 404, "not_found"},
		{"nothing named by path", "http://127.0.0.1/proxy/services/main", withToken(admin), 404, "not_found"},
	}
	for _, c := range cases {
		got := r.get(c.url, c.header...)
		if got.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d: %s", c.name, got.StatusCode, c.status, got.body)
			continue
		}
		if c.status == 200 {
			continue
		}
		var answer struct {
			Error struct{ Kind, Message, Hint string }
		}
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Error.Kind != c.kind || answer.Error.Message == "" {
			t.Errorf("%s: %s", c.name, got.body)
		}
		if asks := got.Header.Get("Www-Authenticate") != ""; asks != (c.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", c.name, got.Header.Get("Www-Authenticate"))
		}
	}
}

func TestAuthorize_AbsentAndForeignRunsLookTheSame(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("llama", up))
	for _, header := range [][]string{nil, withToken("wrong"), withToken(other)} {
		there, absent := r.get("http://llama.localhost/", header...), r.get("http://nobody.localhost/", header...)
		if there.body != absent.body || there.StatusCode != absent.StatusCode {
			t.Errorf("%v: %s and %s", header, there.body, absent.body)
		}
	}
}

func TestReplicaSeesNoTokenOfThePlatform(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Join(r.Header["Authorization"], "|")+r.Header.Get("X-Dstack-Secret")+r.Header.Get("Proxy-Authorization"))
	})
	r := startGateway(t, gateway.Limits{}, serviceRoute("llama", up), publicRoute("open", up), modelRoute("m", "org/m", up))
	cases := []struct {
		name, url, want string
		header          []string
	}{
		{"service", "http://llama.localhost/", "", withToken(member)},
		{"service by path", "http://x/proxy/services/main/llama/", "", withToken(member)},
		{"service, more of it", "http://llama.localhost/", "", append(withToken(member), "X-Dstack-Secret", "1", "x_dstack_secret", "1", "Proxy-Authorization", "Bearer "+member)},
		{"the application's own", "http://open.localhost/", "Bearer its-own", withToken("its-own")},
		{"the application's own, basic", "http://open.localhost/", "Basic abc", []string{"Authorization", "Basic abc"}},
		{"ours, where none is asked for", "http://open.localhost/", "", withToken(member)},
		{"ours, without its scheme", "http://open.localhost/", "", []string{"Authorization", member}},
		{"ours, after a tab", "http://open.localhost/", "", []string{"Authorization", "Bearer\t" + member}},
		{"ours, as a password", "http://open.localhost/", "", []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+member))}},
		{"ours among others", "http://open.localhost/", "", append(withToken("its-own"), withToken(member)...)},
	}
	for _, c := range cases {
		if got := r.get(c.url, c.header...); got.StatusCode != 200 || got.body != c.want {
			t.Errorf("%s: the replica saw %q, want %q (%d)", c.name, got.body, c.want, got.StatusCode)
		}
	}
	got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(`{"model":"org/m"}`), withToken(member)...))
	if got.StatusCode != 200 || got.body != "" {
		t.Errorf("model: the replica saw %q (%d)", got.body, got.StatusCode)
	}
}

func TestErrors_FormByAcceptHeader(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, serviceRoute("llama"))
	page := r.get("http://llama.localhost/<script>", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if ct := page.Header.Get("Content-Type"); page.StatusCode != 401 || !strings.HasPrefix(ct, "text/html") || !strings.Contains(page.body, "<h1>Sign in to llama</h1>") || strings.Contains(page.body, "<script") {
		t.Errorf("browser: %d %s %s", page.StatusCode, ct, page.body)
	}
	if got := r.get("http://llama.localhost/", "Accept", "*/*"); got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("curl: %s", got.Header.Get("Content-Type"))
	}
	for _, method := range []string{"TRACE"} {
		if got := r.do(r.newRequest(method, "http://llama.localhost/", nil, withToken(member)...)); got.StatusCode != 405 {
			t.Errorf("%s: %d", method, got.StatusCode)
		}
	}
	escaped := r.get("http://llama.localhost/", append(withToken(other), "Accept", "text/html")...)
	if strings.Contains(escaped.body, "<script") {
		t.Error(escaped.body)
	}
}

func TestRequestID(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "the replica's own")
		io.WriteString(w, r.Header.Get("X-Request-Id"))
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	kept := r.get("http://open.localhost/", "X-Request-Id", "abc-123")
	if kept.body != "abc-123" || strings.Join(kept.Header["X-Request-Id"], "|") != "abc-123" {
		t.Errorf("given: replica %q, client %q", kept.body, kept.Header["X-Request-Id"])
	}
	made := r.get("http://open.localhost/")
	if len(made.body) < 16 || made.Header.Get("X-Request-Id") != made.body {
		t.Errorf("made: replica %q, client %q", made.body, made.Header["X-Request-Id"])
	}
	for _, bad := range []string{strings.Repeat("x", 200), "a b", `a"b`, "a\tb"} {
		if got := r.get("http://open.localhost/", "X-Request-Id", bad); got.body == bad {
			t.Errorf("%.20q was kept", bad)
		}
	}
	if got := r.get("http://absent.localhost/"); got.Header.Get("X-Request-Id") == "" {
		t.Error("an error without a request id")
	}
}

func TestAccessLog_HasNoSecrets(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, modelRoute("llama", "org/m", up))
	r.get("http://llama.localhost/path?prompt=canary", append(withToken(member), "Cookie", "canary")...)
	r.get("http://llama.localhost/path", withToken("canary")...)
	r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(`{"model":"org/m","prompt":"canary"}`), withToken(member)...))
	r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(`{"model":"org/m","prompt":canary}`), withToken(member)...))
	waitUntil(t, "four lines in the log", func() bool { return strings.Count(r.log.String(), "msg=request") == 4 })
	for _, secret := range []string{"canary", member, hashToken(member)} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, r.log)
		}
	}
	if !strings.Contains(r.log.String(), "status=200") || !strings.Contains(r.log.String(), "path=/path") {
		t.Errorf("the log lacks fields:\n%s", r.log)
	}
}

func TestPanic_RespondsAndCloses(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	w := &panicky{ResponseRecorder: httptest.NewRecorder()}
	ctx, cancel := context.WithCancel(t.Context())
	r.gateway.ServeHTTP(w, httptest.NewRequest("GET", "http://open.localhost/", nil).WithContext(ctx))
	cancel() // as a server does
	if w.Code != 500 || w.Result().Header.Get("Connection") != "close" {
		t.Errorf("got %d %v", w.Code, w.Result().Header)
	}
	if load := r.gateway.Load()["run-open"]; load.InFlight != 0 {
		t.Errorf("%d in flight after a panic", load.InFlight)
	}
}

// panicky is a writer that panics once.
type panicky struct {
	*httptest.ResponseRecorder
	done bool
}

func (p *panicky) Header() http.Header {
	if !p.done {
		p.done = true
		panic("boom")
	}
	return p.ResponseRecorder.Header()
}

// TestRequestLine checks what HTTP/2 lets clients write into a method, a path and a host: a replica must not read another request
// line, or another Host field.
func TestRequestLine(t *testing.T) {
	replica := startRecordingReplica(t)
	r := startGateway(t, gateway.Limits{}, publicRoute("open", replica.target))
	for _, c := range []struct {
		method, target, host string
		status               int
	}{
		{"GET", "/a?b", "open.localhost", 200},
		{"PROPFIND", "/a?b", "open.localhost", 200},
		{"GET /other", "/", "open.localhost", 400},
		{"G:T", "/", "open.localhost", 400},
		{"GET", "/?a b", "open.localhost", 400},
		{"GET", "/proxy/services/main/open/", "a@b", 400},
		{"GET", "/proxy/services/main/open/", "a/b", 400},
		{"GET", "/proxy/services/main/open/", "a b", 400},
		{"GET", "/proxy/services/main/open/", "a_b:1", 200},
	} {
		replica.expect("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
		request := httptest.NewRequest("GET", "/", nil)
		request.Method, request.Host, request.RequestURI = c.method, c.host, c.target
		request.URL, _ = request.URL.Parse(c.target)
		w := httptest.NewRecorder()
		r.gateway.ServeHTTP(w, request)
		got := replica.taken()
		if w.Code != c.status || (len(got) > 0) != (c.status == 200) {
			t.Errorf("%s %s at %s: status %d, and the replica gets %q", c.method, c.target, c.host, w.Code, got)
		}
	}
}
