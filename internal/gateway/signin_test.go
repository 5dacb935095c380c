package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

// browser is a client with cookies that sends what browsers send.
type browser struct {
	*testGateway
	jar http.CookieJar
}

func (r *testGateway) newBrowser() *browser {
	r.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return &browser{r, jar}
}

// send sends a request with the browser's cookies, and keeps those of the
// response. More are pairs of header and value; an empty value removes a header.
func (b *browser) send(method, address, body string, more ...string) response {
	b.t.Helper()
	req := b.newRequest(method, address, strings.NewReader(body))
	at, err := url.Parse(address)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", at.Scheme+"://"+at.Host)
	}
	for i := 0; i < len(more); i += 2 {
		if req.Header.Set(more[i], more[i+1]); more[i+1] == "" {
			req.Header.Del(more[i])
		}
	}
	for _, c := range b.jar.Cookies(at) {
		req.AddCookie(c)
	}
	res := b.do(req)
	b.jar.SetCookies(at, res.Cookies())
	return res
}

func (b *browser) get(address string, more ...string) response {
	b.t.Helper()
	return b.send("GET", address, "", more...)
}

// signIn sends the form of the sign-in page at a host.
func (b *browser) signIn(host, token, next string, more ...string) response {
	b.t.Helper()
	return b.send("POST", host+"/.dstack/sign-in", url.Values{"token": {token}, "next": {next}}.Encode(), more...)
}

// seenRequests is a replica that records what it sees.
type seenRequests struct {
	mu  sync.Mutex
	all []string
}

func (s *seenRequests) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.all = append(s.all, fmt.Sprintf("%s %s %v %s", r.Method, r.URL, r.Header, body))
	s.mu.Unlock()
	w.Header().Add("Set-Cookie", "app=1; Path=/")
	w.Header().Add("Set-Cookie", "dstack-session=evil; Path=/")
	w.Header().Add("Set-Cookie", "__Host-dstack-session=evil; Path=/; Secure")
	w.Header().Add("Set-Cookie", "=dstack-session=evil; Path=/")
	fmt.Fprintf(w, "cookies %q authorization %q", strings.Join(r.Header["Cookie"], "|"), r.Header.Get("Authorization"))
}

func (s *seenRequests) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.all, "\n")
}

func TestSignIn(t *testing.T) {
	seen := &seenRequests{}
	up := startReplica(t, 0, seen.serve)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up), serviceRoute("two", up))
	const web = "http://web.localhost:3000"
	b := r.newBrowser()

	page := b.get(web + "/docs/a?q=1&r=<x>")
	if page.StatusCode != 401 || page.Header.Get("Www-Authenticate") == "" || !strings.Contains(page.body, `action="/.dstack/sign-in"`) ||
		!strings.Contains(page.body, `name="next" value="/docs/a?q=1&amp;r=%3Cx%3E"`) && !strings.Contains(page.body, `name="next" value="/docs/a?q=1&amp;r=&lt;x&gt;"`) {
		t.Fatalf("%d %v\n%s", page.StatusCode, page.Header, page.body)
	}
	policy := page.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(page.body, "<script") ||
		page.Header.Get("Cache-Control") != "no-store" || page.Header.Get("Referrer-Policy") == "no-referrer" {
		t.Errorf("%v", page.Header)
	}

	wrong := b.signIn(web, "wrong", "/docs/a")
	if wrong.StatusCode != 401 || !strings.Contains(wrong.body, "This token is not valid") ||
		!strings.Contains(wrong.body, `value="/docs/a"`) || len(wrong.Cookies()) != 0 || strings.Contains(wrong.body, "wrong\"") {
		t.Errorf("wrong token: %d %s", wrong.StatusCode, wrong.body)
	}
	foreign := b.signIn(web, other, "/")
	if foreign.StatusCode != 403 || !strings.Contains(foreign.body, "gives no access to the project main") || len(foreign.Cookies()) != 0 {
		t.Errorf("another project's token: %d %s", foreign.StatusCode, foreign.body)
	}

	right := b.signIn(web, " "+member+"\n", "/docs/a?q=1")
	cookies := right.Cookies()
	if right.StatusCode != 303 || right.Header.Get("Location") != "/docs/a?q=1" || len(cookies) != 1 {
		t.Fatalf("%d %v", right.StatusCode, right.Header)
	}
	c := cookies[0]
	if c.Name != "dstack-session" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.Domain != "" || c.Path != "/" ||
		c.MaxAge != 7*24*3600 || strings.Contains(c.Value, member) || strings.Contains(c.Value, hashToken(member)) {
		t.Errorf("the cookie is %+v", c)
	}

	got := b.get(web+"/docs/a?q=1", "Cookie", "other=2; x=\"a\"")
	if got.StatusCode != 200 || got.body != `cookies "other=2; x=\"a\"" authorization ""` {
		t.Errorf("signed in: %d %s", got.StatusCode, got.body)
	}
	if got.Header.Get("Cache-Control") != "private" {
		t.Errorf("caches may keep what the session authorized: %v", got.Header)
	}
	if got := r.get(web+"/", withToken(member)...); got.StatusCode != 200 || got.Header.Get("Cache-Control") != "" {
		t.Errorf("without a session: %d %v", got.StatusCode, got.Header)
	}
	for _, set := range got.Header["Set-Cookie"] {
		if strings.Contains(set, "dstack-session") {
			t.Errorf("the replica sets a session: %s", set)
		}
	}
	// An application's own token does not end the session, and reaches it; one of
	// the platform does not.
	if got := b.get(web+"/", "Authorization", "Bearer its-own"); got.StatusCode != 200 || !strings.Contains(got.body, `authorization "Bearer its-own"`) {
		t.Errorf("with a token of its own: %d %s", got.StatusCode, got.body)
	}
	if got := b.get(web+"/", "Authorization", "Basic "+member); got.StatusCode != 200 || !strings.Contains(got.body, `authorization ""`) {
		t.Errorf("with ours: %d %s", got.StatusCode, got.body)
	}
	if got := b.get("http://two.localhost:3000/"); got.StatusCode != 401 {
		t.Errorf("another service: %d", got.StatusCode)
	}
	if got := r.get("http://two.localhost:3000/", "Cookie", "dstack-session="+c.Value); got.StatusCode != 401 {
		t.Errorf("the cookie at another service: %d", got.StatusCode)
	}
	if got := r.get("http://127.0.0.1:3000/proxy/services/main/web/", "Cookie", "dstack-session="+c.Value); got.StatusCode != 401 {
		t.Errorf("the cookie at the path address: %d", got.StatusCode)
	}
	if got := r.get("http://gateway.localhost:3000/v1/models", "Cookie", "dstack-session="+c.Value); got.StatusCode != 401 {
		t.Errorf("the cookie at the model endpoint: %d", got.StatusCode)
	}
	for _, secret := range []string{member, "wrong", c.Value, "sign-in", "dstack-session"} {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("the replica saw %s:\n%s", secret, seen)
		}
	}
}

func TestSignOut(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	const web = "http://web.localhost:3000"
	b := r.newBrowser()
	b.signIn(web, member, "/")
	if got := b.get(web + "/.dstack/sign-out"); got.StatusCode != 200 || !strings.Contains(got.body, `method="post" action="/.dstack/sign-out"`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := b.get(web + "/"); got.StatusCode != 200 {
		t.Errorf("opening the page signed out: %d", got.StatusCode)
	}
	if got := b.send("POST", web+"/.dstack/sign-out", "", "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"); got.StatusCode != 403 {
		t.Errorf("by another site: %d", got.StatusCode)
	}
	if got := b.send("POST", web+"/.dstack/sign-out", ""); got.StatusCode != 200 {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := b.get(web + "/"); got.StatusCode != 401 {
		t.Errorf("after signing out: %d", got.StatusCode)
	}
}

// TestSignIn_EndsWithTheToken: a token that the table does not have any more, or
// that loses the project, ends its sessions at once.
func TestSignIn_EndsWithTheToken(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	b := r.newBrowser()
	b.signIn("http://web.localhost", member, "/")
	for i, step := range []struct {
		tokens map[string][]string
		status int
	}{
		{map[string][]string{hashToken(member): {"main"}}, 200},
		{map[string][]string{hashToken(member): {"team"}}, 403},
		{map[string][]string{}, 401},
		{map[string][]string{hashToken(member): {"*"}}, 200},
	} {
		r.plane.setTokens(step.tokens)
		waitUntil(t, fmt.Sprintf("step %d", i), func() bool { return b.get("http://web.localhost/").StatusCode == step.status })
	}
}

// setTokens publishes the same routes with other tokens.
func (p *fakeControlPlane) setTokens(tokens map[string][]string) {
	p.mu.Lock()
	p.table.Version++
	p.table.Tokens = tokens
	p.mu.Unlock()
	p.changes.Notify()
}

func TestSignIn_SurvivesARestartWithTheSameKey(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	key := []byte(strings.Repeat("k", 32))
	one := startGatewayWith(t, gateway.Options{SessionKey: key}, serviceRoute("web", up))
	cookie := one.newBrowser().signIn("http://web.localhost", member, "/").Cookies()[0]
	two := startGatewayWith(t, gateway.Options{SessionKey: key}, serviceRoute("web", up))
	another := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	if got := two.get("http://web.localhost/", "Cookie", cookie.String()); got.StatusCode != 200 {
		t.Errorf("the same key: %d", got.StatusCode)
	}
	if got := another.get("http://web.localhost/", "Cookie", cookie.String()); got.StatusCode != 401 {
		t.Errorf("another key: %d", got.StatusCode)
	}
	for _, next := range [][]byte{key, key[1:]} { // the second has the wrong length
		another.gateway.SetSessionKey(next)
		if got := another.get("http://web.localhost/", "Cookie", cookie.String()); got.StatusCode != 200 {
			t.Errorf("after it got the key, of %d bytes: %d", len(next), got.StatusCode)
		}
	}
}

// TestSignIn_HTTPS: with https the cookie has a name that neighbours below the
// domain cannot set, and the other name does not count.
func TestSignIn_HTTPS(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGatewayWith(t, gateway.Options{Site: route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}}},
		serviceRoute("web", up))
	const host = "http://web.dstack.example.com" // as a proxy that ends TLS sends it on
	b := r.newBrowser()
	got := b.signIn(host, member, "/", "Origin", "https://web.dstack.example.com")
	if got.StatusCode != 303 {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	c := got.Cookies()[0]
	if c.Name != "__Host-dstack-session" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is %+v", c)
	}
	if got := r.get(host+"/", "Cookie", c.Name+"="+c.Value); got.StatusCode != 200 {
		t.Errorf("%d", got.StatusCode)
	}
	if got := r.get(host+"/", "Cookie", "dstack-session="+c.Value); got.StatusCode != 401 {
		t.Errorf("by the other name: %d", got.StatusCode)
	}
	if got := b.signIn(host, member, "/", "Origin", "http://web.dstack.example.com"); got.StatusCode != 403 {
		t.Errorf("from a page without TLS: %d", got.StatusCode)
	}
	if got := b.send("POST", host+"/.dstack/sign-out", "", "Origin", "https://web.dstack.example.com"); len(got.Cookies()) != 2 {
		t.Errorf("signing out removes %v", got.Cookies())
	}
}

// TestSignIn_BehindAProxy: the scheme is what a trusted proxy says.
func TestSignIn_BehindAProxy(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, c := range []struct {
		proxies []netip.Prefix
		name    string
	}{{loopback, "__Host-dstack-session"}, {nil, "dstack-session"}} {
		r := startGatewayWith(t, gateway.Options{Site: route.Site{Domain: "apps.example.com"}, Proxies: c.proxies}, serviceRoute("web", up))
		got := r.newBrowser().signIn("http://web.apps.example.com", member, "/", "Origin", "https://web.apps.example.com", "X-Forwarded-Proto", "https")
		if got.StatusCode != 303 || got.Cookies()[0].Name != c.name || got.Cookies()[0].Secure != (c.proxies != nil) {
			t.Errorf("%d %v, want %s", got.StatusCode, got.Header, c.name)
		}
	}
}

// TestSession_OtherPages: a cookie authorizes only what the host's own pages and
// the user do.
func TestSession_OtherPages(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	const web = "http://web.localhost:3000"
	b := r.newBrowser()
	cookie := b.signIn(web, member, "/").Cookies()[0]
	for _, c := range []struct {
		name, method string
		header       []string
		status       int
	}{
		{"its own page", "GET", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 200},
		{"the user", "GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		{"an old browser", "GET", nil, 200},
		{"a link of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		{"a frame of a neighbour", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"an image of a neighbour", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403},
		{"a fetch of a neighbour", "GET", []string{"Origin", "http://evil.localhost:3000"}, 403},
		{"its own form", "POST", []string{"Origin", web}, 200},
		{"its own form, in capitals", "POST", []string{"Origin", "http://WEB.localhost:3000"}, 200},
		{"a form without a referrer", "POST", []string{"Origin", "null", "Sec-Fetch-Site", "same-origin"}, 200},
		{"a form in a sandbox", "POST", []string{"Origin", "null", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a form of nobody", "POST", []string{"Origin", "null"}, 403},
		{"a form of a neighbour", "POST", []string{"Origin", "http://evil.localhost:3000", "Sec-Fetch-Site", "same-site"}, 403},
		{"a form of another port", "POST", []string{"Origin", "http://web.localhost:8000"}, 403},
		{"a form of another site, loading a page", "POST", []string{"Origin", "https://evil.example", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a suffix of the host", "POST", []string{"Origin", "http://evil-web.localhost:3000"}, 403},
		{"two origins", "POST", []string{"Origin", web, "Origin", "http://evil.example"}, 403},
		{"no origin", "POST", nil, 403},
		{"DELETE without an origin", "DELETE", nil, 403},
		{"a method of its own", "PROPFIND", nil, 403},
		{"with a token nobody asks", "POST", append(withToken(member), "Origin", "http://evil.example"), 200},
	} {
		got := r.do(r.newRequest(c.method, web+"/", strings.NewReader(""), append(c.header, "Cookie", cookie.Name+"="+cookie.Value)...))
		if got.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, got.StatusCode, c.status, got.body)
		}
	}
	for origin, status := range map[string]int{"": 303, web: 303, "http://evil.localhost:3000": 403, "https://evil.example": 403, "null": 403} {
		if got := r.newBrowser().signIn(web, member, "/", "Origin", origin, "Sec-Fetch-Site", ""); got.StatusCode != status {
			t.Errorf("sign in from %q: %d, want %d", origin, got.StatusCode, status)
		}
	}
}

func TestSession_WebSocket(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // leaves the origin to the gateway
		if err != nil {
			return
		}
		defer ws.CloseNow()
		if err := ws.Write(r.Context(), websocket.MessageText, []byte(strings.Join(r.Header["Cookie"], "|"))); err == nil {
			_ = ws.Close(websocket.StatusNormalClosure, "")
		}
	})
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	cookie := r.newBrowser().signIn("http://web.localhost:3000", member, "/").Cookies()[0]
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	dial := func(origin string) (*websocket.Conn, *http.Response, error) {
		header := http.Header{"Cookie": {"a=1; " + cookie.Name + "=" + cookie.Value}}
		if origin != "" {
			header.Set("Origin", origin)
		}
		return websocket.Dial(ctx, r.server.URL+"/socket", &websocket.DialOptions{HTTPClient: r.client, Host: "web.localhost:3000", HTTPHeader: header})
	}
	for _, origin := range []string{"", "http://evil.localhost:3000", "https://evil.example", "null"} {
		if ws, res, err := dial(origin); err == nil || res == nil || res.StatusCode != 403 {
			t.Errorf("from %q: %v, %v", origin, res, err)
			if ws != nil {
				ws.CloseNow()
			}
		}
	}
	ws, _, err := dial("http://web.localhost:3000")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, text, err := ws.Read(ctx); err != nil || string(text) != "a=1" {
		t.Errorf("the replica saw the cookies %q, %v", text, err)
	}
}

func TestSignIn_GoesOnAtThisHostOnly(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, serviceRoute("web"))
	for next, want := range map[string]string{
		"": "/", "/": "/", "/a/b?c=d": "/a/b?c=d", "/a%2Fb": "/a%2Fb", "/?next=//evil.example": "/?next=//evil.example",
		"//evil.example": "/", "///evil.example": "/", `/\evil.example`: "/", `\\evil.example`: "/", "/\t/evil.example": "/", "/\n/evil.example": "/",
		"https://evil.example": "/", "http:evil.example": "/", "javascript:alert(1)": "/", "evil.example": "/", "/a\r\nSet-Cookie: x=y": "/",
		" //evil.example": "/", "/.dstack/sign-out": "/", "/%0d%0aSet-Cookie:x": "/%0d%0aSet-Cookie:x", "/\u2028/a": "/", "/%zz": "/",
	} {
		got := r.newBrowser().signIn("http://web.localhost", member, next)
		if got.StatusCode != 303 || strings.Join(got.Header["Location"], "|") != want || len(got.Cookies()) != 1 {
			t.Errorf("%q: %d, Location %q, want %q", next, got.StatusCode, got.Header["Location"], want)
		}
	}
}

func TestSignIn_LimitsWrongTokens(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	b := r.newBrowser()
	for range 30 { // right ones do not count
		if got := b.signIn("http://web.localhost", member, "/"); got.StatusCode != 303 {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
	}
	statuses := map[int]int{}
	for i := range 20 {
		statuses[b.signIn(fmt.Sprintf("http://web%d.localhost", i), "wrong", "/").StatusCode]++
	}
	if statuses[401] != 10 || statuses[429] != 10 {
		t.Errorf("of 20 wrong tokens: %v", statuses)
	}
	got := b.signIn("http://web.localhost", member, "/")
	if got.StatusCode != 429 || got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, "too many wrong tokens") || len(got.Cookies()) != 0 {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
	if got := r.get("http://web.localhost/", withToken(member)...); got.StatusCode != 200 {
		t.Errorf("programs are limited, too: %d", got.StatusCode)
	}
}

// TestSignIn_PageIsForPeople: programs get JSON as before, and only navigations
// of browsers get the form.
func TestSignIn_PageIsForPeople(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, serviceRoute("web"))
	const form = "/.dstack/sign-in"
	for _, c := range []struct {
		name, method, url string
		header            []string
		want              string
	}{
		{"a browser", "GET", "http://web.localhost/", []string{"Accept", "text/html,*/*"}, form},
		{"a service that does not exist looks the same", "GET", "http://nobody.localhost/", []string{"Accept", "text/html"}, form},
		{"curl", "GET", "http://web.localhost/", []string{"Accept", "*/*"}, `{"error":{"kind":"unauthorized","message":"this needs a token"`},
		{"no Accept", "GET", "http://web.localhost/", nil, `"kind":"unauthorized"`},
		{"a fetch of a page", "GET", "http://web.localhost/", []string{"Accept", "*/*", "Sec-Fetch-Mode", "cors"}, `"kind":"unauthorized"`},
		{"a fetch of HTML", "GET", "http://web.localhost/", []string{"Accept", "text/html", "Sec-Fetch-Mode", "cors"}, "<h1>401 Unauthorized</h1>"},
		{"a form", "POST", "http://web.localhost/", []string{"Accept", "text/html"}, "<h1>401 Unauthorized</h1>"},
		{"a wrong token", "GET", "http://web.localhost/", append(withToken("wrong"), "Accept", "text/html"), "<h1>401 Unauthorized</h1>"},
		{"by path", "GET", "http://127.0.0.1/proxy/services/main/web/a?b=c", []string{"Accept", "text/html", "X-Forwarded-For", "1.2.3.4"}, "<h1>401 Unauthorized</h1>"},
		{"models", "GET", "http://gateway.localhost/v1/models", []string{"Accept", "text/html"}, `"code":"invalid_api_key"`},
	} {
		got := r.do(r.newRequest(c.method, c.url, nil, c.header...))
		if got.StatusCode != 401 || !strings.Contains(got.body, c.want) || (c.want != form && strings.Contains(got.body, form)) {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
	}
}

// TestPathAddress_LinksToTheName: there a browser cannot sign in, but it learns
// where it can.
func TestPathAddress_LinksToTheName(t *testing.T) {
	far := route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}}
	for _, c := range []struct {
		site       route.Site
		host, path string
		link       string
	}{
		{far, "dstack.example.com", "/proxy/services/main/web/a/b?c=d&e=f", "https://web.dstack.example.com/a/b?c=d&amp;e=f"},
		{far, "dstack.example.com", "/proxy/services/Team/web/", "https://web.team.dstack.example.com/"},
		{route.Site{}, "127.0.0.1:3000", "/proxy/services/main/web/", "http://web.localhost:3000/"},
		{route.Site{}, "10.0.0.5:3000", "/proxy/services/main/web/", ""},
		{far, "dstack.example.com", "/proxy/services/main/x@evil.example/", ""},
		{far, "dstack.example.com", "/proxy/services/main/evil.example%2f/", ""},
	} {
		r := startGatewayWith(t, gateway.Options{Site: c.site}, serviceRoute("web"))
		got := r.get("http://"+c.host+c.path, "Accept", "text/html")
		if got.StatusCode != 401 || strings.Contains(got.body, "<form") || strings.Contains(got.body, "<a ") != (c.link != "") ||
			!strings.Contains(got.body, c.link) {
			t.Errorf("%s%s: %d %s", c.host, c.path, got.StatusCode, got.body)
		}
	}
}

// TestGatewayPath: nothing below it reaches a replica, whatever its service asks
// for.
func TestGatewayPath(t *testing.T) {
	seen := &seenRequests{}
	up := startReplica(t, 0, seen.serve)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up), publicRoute("open", up))
	for _, host := range []string{"http://web.localhost", "http://open.localhost"} {
		for _, c := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/.dstack/sign-in", "", 200},
			{"GET", "/.dstack/", "", 404},
			{"GET", "/%2edstack/x", "", 404},
			{"GET", "/.dstack/../", "", 404},
			{"PUT", "/.dstack/sign-in", "token=x", 405},
			{"POST", "/.dstack/sign-in", "token=" + member, 303},
			{"POST", "/.dstack/sign-in", "token=%zz", 400},
			{"POST", "/.dstack/sign-in", "", 400},
			{"POST", "/.dstack/sign-in", "token=" + strings.Repeat("x", 10<<10), 400},
		} {
			got := r.do(r.newRequest(c.method, host+c.path, strings.NewReader(c.body), "Content-Type", "application/x-www-form-urlencoded"))
			if got.StatusCode != c.status {
				t.Errorf("%s %s%s: %d, want %d: %s", c.method, host, c.path, got.StatusCode, c.status, got.body)
			}
		}
		if got := r.do(r.newRequest("POST", host+"/.dstack/sign-in", strings.NewReader(`{"token":"x"}`), "Content-Type", "application/json")); got.StatusCode != 400 {
			t.Errorf("JSON: %d", got.StatusCode)
		}
	}
	if seen.String() != "" {
		t.Errorf("the replica saw %s", seen)
	}
}

func TestSessionCookie_IsStrippedEverywhere(t *testing.T) {
	up := startReplica(t, 0, (&seenRequests{}).serve)
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	for sent, want := range map[string]string{
		"a=1; dstack-session=x; b=2":                "a=1; b=2",
		"dstack-session=x; a=1":                     "a=1",
		"a=1;dstack-session=x":                      "a=1",
		"dstack-session=x":                          "",
		"__Host-dstack-session=x; dstack-session=y": "",
		"a=\"1; dstack-session=x; b=\"2":            "a=\"1; b=\"2",
		"dstack-session=x; dstack-session=y; a=1":   "a=1",
		"my-dstack-session=x; a = 1 ;  b=2":         "my-dstack-session=x; a = 1 ;  b=2",
		"a=dstack-session":                          "a=dstack-session",
		"Dstack-Session=x":                          "Dstack-Session=x",
		" dstack-session =x; a=1":                   "a=1",
		"dstack-session; a=1":                       "a=1",
	} {
		for _, at := range []string{"http://open.localhost/", "http://127.0.0.1/proxy/services/main/open/"} {
			if got := r.get(at, "Cookie", sent); got.body != fmt.Sprintf("cookies %q authorization \"\"", want) {
				t.Errorf("%s: %q became %s", at, sent, got.body)
			}
		}
	}
	several := r.get("http://open.localhost/", "Cookie", "a=1", "Cookie", "dstack-session=x", "Cookie", "b=2; __Host-dstack-session=y")
	if several.body != `cookies "a=1|b=2" authorization ""` {
		t.Errorf("several headers: %s", several.body)
	}
}

func TestContentType_IsNotMadeUp(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if kind := r.URL.Query().Get("kind"); kind != "" {
			w.Header().Set("Content-Type", kind)
		} else {
			w.Header()["Content-Type"] = nil
		}
		io.WriteString(w, "<html><script>alert(1)</script></html>")
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	for _, at := range []string{"http://open.localhost/", "http://127.0.0.1/proxy/services/main/open/"} {
		if got := r.get(at); len(got.Header["Content-Type"]) != 0 || !strings.Contains(got.body, "<html>") {
			t.Errorf("%s: %v", at, got.Header)
		}
	}
	if got := r.get("http://open.localhost/?kind=a/b"); got.Header.Get("Content-Type") != "a/b" {
		t.Errorf("%v", got.Header)
	}
}
