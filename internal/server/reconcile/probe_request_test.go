package reconcile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"dstack/internal/decide/job"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// newTransport returns a transport as the prober has it.
func newTransport() http.RoundTripper { return newProber(nil, &dial.Dialer{}).transport }

func serve(t *testing.T, handler http.HandlerFunc) dstack.Endpoint {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return dstack.Endpoint{Address: s.Listener.Addr().String()}
}

func TestSendProbe_SendsWhatIsConfigured(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	got := make(chan string, 1)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var header bytes.Buffer
		_ = r.Header.Write(&header)
		got <- fmt.Sprintf("%s %s %s length %d\n%s\n%s", r.Method, r.RequestURI, r.Host, r.ContentLength, header.String(), body)
	})
	cases := []struct {
		name  string
		probe job.Probe
		want  string
	}{
		{"plain", newProbe(), "GET /health " + address.Address + " length 0\nConnection: close\r\nUser-Agent: dstack-probe\r\n\n"},
		{"with all", newProbe(func(q *spec.Probe) {
			q.Method, q.URL, q.Body = "post", "/v1/x?a=1&b=%20", `{"a": 1}`
			q.Headers = []spec.Header{{Name: "host", Value: "model.example"}, {Name: "x-a", Value: "1"}, {Name: "X-A", Value: "2"}, {Name: "user-agent", Value: "mine"}}
		}), "POST /v1/x?a=1&b=%20 model.example length 8\nConnection: close\r\nContent-Length: 8\r\nUser-Agent: mine\r\nX-A: 1\r\nX-A: 2\r\n\n{\"a\": 1}"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if fail := sendProbe(t.Context(), newTransport(), address, c.probe); fail != nil {
				t.Fatal(fail.reason)
			}
			if got := <-got; got != c.want {
				t.Errorf("sent\n%q, want\n%q", got, c.want)
			}
		})
	}
}

// Two hosts have a replica at the same address: each probe reaches its own host, and a replica sees the address that
// it has on that host.
func TestSendProbe_ReplicaOnAnotherHost(t *testing.T) {
	var dialer dial.Dialer
	for host, status := range map[string]int{"gpu1": 200, "gpu2": 503} {
		replica := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "10.0.0.5:8000" {
				t.Errorf("the Host header is %q", r.Host)
			}
			w.WriteHeader(status)
		})
		dialer.AddHost(host, func(ctx context.Context, _ string) (net.Conn, error) {
			return new(dial.Dialer).Dial(ctx, replica)
		})
	}
	dialer.AddHost("gpu3", func(context.Context, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED })
	transport := newProber(nil, &dialer).transport
	for host, want := range map[string]probeFailure{
		"gpu1": {},
		"gpu2": {reason: "GET /health answered 503"},
		"gpu3": {reason: "GET /health: connection refused"},
		"gpu4": {reason: `GET /health: there is no connection to the host "gpu4"`, isLocal: true},
	} {
		var got probeFailure
		if fail := sendProbe(t.Context(), transport, dstack.Endpoint{Host: host, Address: "10.0.0.5:8000"}, newProbe()); fail != nil {
			got = *fail
		}
		if got != want {
			t.Errorf("the host %s: %+v, want %+v", host, got, want)
		}
	}
}

func TestSendProbe_AnswersThatSucceed(t *testing.T) {
	var followed atomic.Bool
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/other")
			w.WriteHeader(code)
		}
	}
	raw := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}
	}
	cases := []struct {
		name   string
		answer http.HandlerFunc
		want   string // empty: success
	}{
		{"200", status(200), ""},
		{"299", status(299), ""},
		{"300", status(300), "GET /health answered 300, and probes do not follow redirects"},
		{"302", status(302), "GET /health answered 302, and probes do not follow redirects"},
		{"404", status(404), "GET /health answered 404"},
		{"500", status(500), "GET /health answered 500"},
		{"upgrade", raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), "GET /health answered 101"},
		{"hints first", raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody"), ""},
		{"closed", raw(""), "GET /health: it closed the connection without an answer"},
		{"cut off", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), "GET /health: its answer was cut off"},
		{"a body without end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 8<<10))
			}
		}, ""},
		{"a long header", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n"), "GET /health: server response headers exceeded 65536 bytes; aborted"},
		{"a header that comes in time and a body that does not", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "GET /health did not answer within 1s"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/other" {
					followed.Store(true)
				}
				c.answer(w, r)
			})
			got := ""
			if fail := sendProbe(t.Context(), newTransport(), address, newProbe(func(q *spec.Probe) { q.Timeout = 1 })); fail != nil {
				got = fail.reason
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestSendProbe_ReasonsAreShortAndPrintable(t *testing.T) {
	long := strings.Repeat("ä", 300)
	cases := []struct {
		name, url, want string
	}{
		{"no query, which may hold a key", "/health?key=secret", "GET /health: connection refused"},
		{"a long path", "/" + long, "GET /" + strings.Repeat("ä", 58) + "…: connection refused"},
		{"control characters", "/a\x1b[31m\nb", "GET /a [31m b: invalid control character in URL"},
		{"an invalid path", "/%zz", `GET /%zz: invalid URL escape "%zz"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fail := sendProbe(t.Context(), newTransport(), closedPort(t), newProbe(atPath(c.url)))
			if fail == nil || fail.reason != c.want {
				t.Errorf("%+v, want %q", fail, c.want)
			}
		})
	}
	hostile := "HTTP/1.1 \x1b]0;owned\x07" + strings.Repeat("\x9b\u202e", 4000) + "\r\n\r\n"
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(c, hostile)
		_ = c.Close()
	})
	why := sendProbe(t.Context(), newTransport(), address, newProbe()).reason
	if utf8.RuneCountInString(why) > maxReasonLength || strings.ContainsFunc(why, func(c rune) bool { return !unicode.IsPrint(c) }) {
		t.Errorf("the reason is too long or not printable: %q", why)
	}
}

func closedPort(t *testing.T) dstack.Endpoint {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return dstack.Endpoint{Address: l.Addr().String()}
}

// The kernel accepts the connections of a stopped process, which never answers.
func TestProber_AStoppedProcessIsOutWithinTwoIntervals(t *testing.T) {
	before := goleak.IgnoreCurrent()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	stopped := &stoppable{Listener: listener}
	done := make(chan error, 1)
	go func() { done <- served.Serve(stopped) }()

	changed := make(chan struct{}, 100)
	p := newProber(func(context.Context, dstack.InstanceID) { changed <- struct{}{} }, &dial.Dialer{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	one := target{Attempt: "a", Endpoint: dstack.Endpoint{Address: listener.Addr().String()}, Probes: []job.Probe{newProbe(every(1), func(q *spec.Probe) { q.Timeout = 1 })}}
	until := func(what string, want func() bool) {
		t.Helper()
		limit := time.After(10 * time.Second)
		for !want() {
			select {
			case <-changed:
			case <-time.After(10 * time.Millisecond):
			case <-limit:
				t.Fatalf("not %s: %+v", what, p.statusOf("a"))
			}
		}
	}
	until("ready", func() bool {
		p.setTargets("i", []target{one})
		got := p.statusOf("a")
		return got != nil && got.Ready
	})
	stopped.now.Store(true)
	from := time.Now()
	until("out", func() bool { return !p.statusOf("a").Ready })
	if took := time.Since(from); took > 2*time.Second+200*time.Millisecond {
		t.Errorf("out after %v", took)
	}
	if why := p.statusOf("a").Message; why != "GET /health did not answer within 1s" {
		t.Error(why)
	}
	cancel() // during a request or an interval
	<-ended
	_ = served.Close()
	<-done
	stopped.close()
	goleak.VerifyNone(t, before)
}

// stoppable is a listener that accepts connections and does not serve them once it is stopped.
type stoppable struct {
	net.Listener
	now  atomic.Bool
	held []net.Conn
}

func (s *stoppable) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil || !s.now.Load() {
			return c, err
		}
		s.held = append(s.held, c)
	}
}

func (s *stoppable) close() {
	for _, c := range s.held {
		_ = c.Close()
	}
}
