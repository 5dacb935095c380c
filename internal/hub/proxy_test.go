package hub

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

// forwardProxy is a company's proxy. It reaches every name at one address.
type forwardProxy struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // the request lines and tokens
}

func startForwardProxy(t *testing.T, to string) *forwardProxy {
	p := &forwardProxy{}
	transport := &http.Transport{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization"))
		p.mu.Unlock()
		if r.Method == http.MethodConnect {
			tunnelTo(w, to)
			return
		}
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Host = "", to
		res, err := transport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		for name, values := range res.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}))
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
		transport.CloseIdleConnections()
	})
	return p
}

func tunnelTo(w http.ResponseWriter, address string) {
	there, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(there, buffered); there.Close() })
	both.Go(func() { _, _ = io.Copy(here, there); here.Close() })
	both.Wait()
}

func (p *forwardProxy) choose(*http.Request) (*url.URL, error) { return url.Parse(p.URL) }

func (p *forwardProxy) requests() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.seen, "\n")
}

// A hub that is reachable only through a proxy is asked through it.
func TestProxy_Hub(t *testing.T) {
	r := newRig(t)
	r.putModel()
	p := startForwardProxy(t, r.hub.Host())
	r.client = r.newClient(func(o *Options) { o.Base, o.Proxy = "http://hub.example.test", p.choose })
	defer r.client.Close()
	r.mustRead()
	if !strings.Contains(p.requests(), "GET http://hub.example.test/api/models/") {
		t.Errorf("the proxy got\n%s", p.requests())
	}
}

// The proxy of a hub with TLS sees no tokens.
func TestProxy_HubWithTLS(t *testing.T) {
	h := hubtest.New(t, hubtest.Options{TLS: true})
	h.Put(hubtest.Repo{Name: llama, Files: map[string]string{"tokenizer_config.json": config}, Private: true, Readers: []string{canary}})
	p := startForwardProxy(t, h.Host())
	r := &testRig{T: t, hub: h, dir: t.TempDir()}
	r.client = r.newClient(func(o *Options) {
		o.Base, o.Proxy, o.TLS = "https://example.com", p.choose, h.Trust()
		o.TLS.ServerName = "example.com"
	})
	defer r.client.Close()
	r.mustRead(canary)
	if got := p.requests(); !strings.Contains(got, "CONNECT example.com:443") || strings.Contains(got, "canary") || strings.Contains(got, "GET") {
		t.Errorf("the proxy got\n%s", got)
	}
}

// NO_PROXY, and a request for which there is no proxy.
func TestProxy_None(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } })
	r.putModel()
	r.mustRead()
}

// A redirect into the server's own network is not sent to the proxy, whatever its
// spelling.
func TestProxy_RedirectIntoOwnNetwork(t *testing.T) {
	for _, to := range []string{"http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "http://10.0.0.1:3000/", "http://localhost/",
		"http://web.localhost/", "http://localhost./", "http://intranet/", "http://127.1/", "http://0x7f.0.0.1/", "http://0x7f000001/", "http://2130706433/"} {
		r := newRig(t)
		p := startForwardProxy(t, r.hub.Host())
		r.client = r.newClient(func(o *Options) { o.Base, o.Proxy = "http://hub.example.test", p.choose })
		r.hub.Fail(hubtest.Fault{To: to})
		_, err := r.client.ChatTemplate(t.Context(), llama, nil)
		r.checkError(err, dstack.Unavailable, "cannot be reached", "")
		if n := strings.Count(p.requests(), "GET"); n != 1 || !strings.Contains(causeOf(err), "not in a public network") {
			t.Errorf("%s: %s; the proxy got\n%s", to, causeOf(err), p.requests())
		}
		r.client.Close()
	}
}

// A proxy that cannot be used is named, without its password.
func TestProxy_Errors(t *testing.T) {
	for _, c := range []struct {
		proxy         ProxyFunc
		says, message string
	}{
		{func(*http.Request) (*url.URL, error) { return nil, errors.New("bad: http://user:canary@x") }, "HTTPS_PROXY", "cannot be reached: HTTPS_PROXY or HTTP_PROXY is not the address of a proxy"},
		{func(*http.Request) (*url.URL, error) { return url.Parse("http://user:canary@127.0.0.1:1") }, "through the proxy 127.0.0.1:1: ", "cannot be reached through the proxy 127.0.0.1:1"},
	} {
		r := newRig(t, func(o *Options) { o.Proxy = c.proxy })
		_, err := r.client.ChatTemplate(t.Context(), llama, nil)
		r.checkError(err, dstack.Unavailable, c.message, "")
		if got := causeOf(err); !strings.Contains(got, c.says) || strings.Contains(got, "canary") {
			t.Errorf("%s", got)
		}
	}
}
