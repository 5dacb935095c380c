package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
	"dstack/internal/httpwire"
)

// bothPaths are two gateways with the same routes: one serves by the fast path, the other by the slow one alone.
type bothPaths struct {
	fast, slow string        // addresses
	served     *atomic.Int64 // requests that took the fast path
	lanes      chan *lane
}

// lane has services with a replica of its own. Requests that are compared at the same time use different ones.
type lane struct {
	number  int
	replica *recordingReplica
}

// fill puts the names of a lane into requests.
func (l *lane) fill(requests string) string {
	n := strconv.Itoa(l.number)
	return strings.NewReplacer("HOST", "lane"+n+".localhost", "AUTH", "auth"+n+".localhost", "PATH", "/proxy/services/main/lane"+n,
		"MODEL", "model"+n, "TOKEN", member, "OTHER", other, "BAD", "token-of-nobody").Replace(requests)
}

func startBothPaths(t testing.TB, lanes int) *bothPaths {
	t.Helper()
	b := &bothPaths{lanes: make(chan *lane, lanes)}
	var routes []route.Route
	for i := range lanes {
		l, n := &lane{i, startRecordingReplica(t)}, strconv.Itoa(i)
		routes = append(routes, publicRoute("lane"+n, l.replica.target), serviceRoute("auth"+n, l.replica.target),
			modelRoute("llm"+n, "model"+n, l.replica.target))
		b.lanes <- l
	}
	r := startGatewayWith(t, gateway.Options{}, routes...)
	b.fast, b.served = r.server.Listener.Addr().String(), &r.fast
	slow := httptest.NewUnstartedServer(r.server.Config.Handler)
	slow.Config.ConnContext = gateway.WithConn
	slow.Start()
	t.Cleanup(slow.Close)
	b.slow = slow.Listener.Addr().String()
	return b
}

// isPlain reports whether a request surely takes the fast path.
func (l *lane) isPlain(h *httpwire.RequestHead) bool {
	mayBeOwnPage := len(h.Target) > 1 && strings.ContainsRune("/.%", rune(h.Target[1]))
	return h.Oddities == 0 && !mayBeOwnPage && string(h.Host) == l.fill("HOST")
}

// conversation is what a client sends over one connection, and what the replica replies to each request.
type conversation struct {
	requests string // with the names that lane.fill replaces
	reply    string
	closes   bool // the replica closes its connection after the reply
}

// outcome is what came of a conversation.
type outcome struct {
	responses []string
	isCut     bool // within the last response
	received  []string
}

// compare has a conversation over both paths. What httpwire refuses may not get through the fast path; everything else has the
// same outcome on both.
func (b *bothPaths) compare(t testing.TB, c conversation) {
	t.Helper()
	l := <-b.lanes
	defer func() { b.lanes <- l }()
	c.requests = l.fill(c.requests)
	read := readAll(c.requests, l)
	isReplyRefused := slices.ContainsFunc(read.methods, c.isReplyRefused)
	if read.verdict == incomplete || read.isOdd && (read.verdict == refused || isReplyRefused) {
		return
	}
	fast := have(t, b.fast, l.replica, c, read.methods)
	switch {
	case read.verdict == refused:
		checkRefused(t, c, fast, len(read.methods))
		return
	case isReplyRefused:
		checkReplyRefused(t, c, fast, len(read.methods))
		return
	}
	slow := have(t, b.slow, l.replica, c, read.methods)
	if fast.text() != slow.text() {
		t.Errorf("the client sends %q, the replica replies %q\n--- fast path\n%s--- slow path\n%s", c.requests, c.reply, fast.text(), slow.text())
	}
}

type verdict uint8

const (
	accepted verdict = iota
	refused
	incomplete
)

// reading is what httpwire says to what a client sends.
type reading struct {
	methods []string // of the requests before the one that is refused, if any
	verdict verdict
	isOdd   bool // a request is handed over: net/http reads what follows by its own rules
}

func readAll(text string, l *lane) (r reading) {
	r.verdict = incomplete // as long as the connection stays open
	for b := []byte(text); len(b) > 0; {
		var h httpwire.RequestHead
		n, err := h.Parse(b)
		if err != nil {
			r.verdict = refused
			return r
		}
		if n == 0 || h.Oddities&httpwire.OddPreface != 0 {
			return r
		}
		r.isOdd = r.isOdd || !l.isPlain(&h)
		body, v := readBody(b[n:], h.Length)
		if v != accepted {
			r.verdict = v
			return r
		}
		b = b[n+body:]
		r.methods = append(r.methods, string(h.Method))
		if h.CloseAfter {
			r.verdict = accepted
			return r
		}
	}
	return r
}

// readBody returns how long a body is.
func readBody(b []byte, length int64) (n int, v verdict) {
	if length >= 0 {
		if length > int64(len(b)) {
			return 0, incomplete
		}
		return int(length), accepted
	}
	var s httpwire.ChunkScanner
	_, n, done, err := s.Scan(b, nil)
	switch {
	case err != nil:
		return 0, refused
	case !done:
		return 0, incomplete
	}
	return n, accepted
}

// isReplyRefused reports whether httpwire refuses the replica's reply.
func (c conversation) isReplyRefused(method string) bool {
	for b := []byte(c.reply); ; {
		var h httpwire.ResponseHead
		n, err := h.Parse(b, []byte(method))
		if err != nil || n == 0 {
			return true
		}
		b = b[n:]
		if h.Length == httpwire.Chunked {
			_, v := readBody(b, h.Length)
			return v == refused
		}
		if h.Status >= http.StatusOK {
			return false
		}
	}
}

// have has a conversation over one path.
func have(t testing.TB, address string, replica *recordingReplica, c conversation, methods []string) outcome {
	t.Helper()
	replica.expect(c.reply, c.closes)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, c.requests)
	}()
	defer func() { <-sent }()
	var o outcome
	for in := bufio.NewReader(conn); ; {
		method := http.MethodGet
		if final := o.finals(); final < len(methods) {
			method = methods[final]
		}
		text, err := readResponse(in, method)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Fatalf("%q, %q: no end after 20s: %q", c.requests, c.reply, o.responses)
		}
		if text != "" {
			o.responses = append(o.responses, text)
		}
		if err != nil {
			o.isCut = text != ""
			break
		}
	}
	o.received = replica.taken()
	if !strings.Contains(c.reply, "\n\r\n") {
		o.received = withoutRetries(o.received)
	}
	return o
}

// withoutRetries leaves out what is received again. A request without side effects may be sent again over another connection
// where the first ends without a response, which depends on the age of that.
func withoutRetries(received []string) []string {
	return slices.CompactFunc(received, func(a, b string) bool { return a == b && !strings.HasPrefix(a, "P") })
}

// finals counts the responses that are not informational.
func (o *outcome) finals() int {
	n := 0
	for _, r := range o.responses {
		if !strings.HasPrefix(r, "1") {
			n++
		}
	}
	return n
}

func (o *outcome) text() string {
	return fmt.Sprintf("responses (cut %v):\n%s\nthe replica gets:\n%s\n", o.isCut, strings.Join(o.responses, "\n"),
		strings.Join(o.received, "\n"))
}

// readResponse returns a response in a form that does not depend on the order of its fields. With text, an error is of the body.
func readResponse(in *bufio.Reader, method string) (text string, err error) {
	res, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if len(body) == 0 && res.ContentLength == 0 {
		res.Header.Del("Content-Length") // net/http adds it to an empty body that came in chunks
	}
	if method == http.MethodHead {
		res.Header.Del("Trailer") // net/http announces those of a body that is not sent
	}
	text = fmt.Sprintf("%d\n%s%q\n%s", res.StatusCode, fieldsText(res.Header), body, fieldsText(res.Trailer))
	if err == nil && res.StatusCode == http.StatusSwitchingProtocols {
		err = io.EOF
	}
	return text, err
}

// checkRefused checks that a request that httpwire refuses gets a response that says so, or none, and the replica nothing of it.
func checkRefused(t testing.TB, c conversation, o outcome, before int) {
	t.Helper()
	if len(o.received) > before {
		t.Errorf("the client sends %q: the replica gets it: %s", c.requests, o.text())
	}
	if len(o.responses) > before && o.responses[len(o.responses)-1][0] != '4' && o.responses[len(o.responses)-1][0] != '5' {
		t.Errorf("the client sends %q: it is accepted: %s", c.requests, o.text())
	}
}

// checkReplyRefused checks that a client gets an error, or a response that is cut, or none, instead of a reply that httpwire
// refuses.
func checkReplyRefused(t testing.TB, c conversation, o outcome, requests int) {
	t.Helper()
	if !o.isCut && o.finals() == requests && !strings.HasPrefix(o.responses[len(o.responses)-1], "502") {
		t.Errorf("the replica replies %q to %q: it gets through: %s", c.reply, c.requests, o.text())
	}
}

// last is the request that ends a conversation: it shows where the gateway takes the end of the one before.
const last = "GET /last HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"

const plainReply = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

func TestBothPathsAgree(t *testing.T) {
	b := startBothPaths(t, 8)
	var all []conversation
	for _, r := range agreedRequests {
		all = append(all, conversation{requests: strings.ReplaceAll(r, "\n", "\r\n") + last, reply: plainReply})
	}
	for _, r := range agreedReplies {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			first := method + " / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n"
			all = append(all, conversation{first + last, r.text, r.closes})
		}
	}
	for _, call := range agreedCalls {
		for _, reply := range policyReplies {
			all = append(all, conversation{callText(call) + last, reply, !strings.Contains(reply, "ength") && !strings.Contains(reply, "204")})
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		all = append(all, randomConversation(random))
	}
	var running sync.WaitGroup
	for worker := range cap(b.lanes) {
		running.Go(func() {
			for i := worker; i < len(all); i += cap(b.lanes) {
				b.compare(t, all[i])
			}
		})
	}
	running.Wait()
	if served := b.served.Load(); served < int64(len(all)/4) {
		t.Errorf("only %d requests of %d conversations took the fast path", served, len(all))
	}
}

// What a replica sends beyond a response is not taken for the next response, which may be another client's.
func TestBothPathsDropSurplusBytes(t *testing.T) {
	b := startBothPaths(t, 1)
	l := <-b.lanes
	const more = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus"
	for _, reply := range []string{plainReply + more, reply("204 No Content") + more, reply("304 Not Modified") + more,
		reply("200 OK", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\n\r\n" + more, reply("204 No Content", "Content-Length: 7") + "surplus",
		reply("200 OK", "Content-Length: 0") + "surplus"} {
		for range 20 {
			o := have(t, b.fast, l.replica, conversation{requests: l.fill(strings.Repeat("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n", 5) + last), reply: reply},
				[]string{"GET", "GET", "GET", "GET", "GET", "GET"})
			if o.finals() != 6 || strings.Contains(o.text(), "surplus") {
				t.Fatalf("the replica replies %q: %s", reply, o.text())
			}
		}
	}
}

// FuzzBothPaths compares what a client sends, and what a replica replies, that nobody has thought of.
func FuzzBothPaths(f *testing.F) {
	b := startBothPaths(f, 1)
	for i, r := range agreedReplies {
		f.Add(strings.ReplaceAll(agreedRequests[i], "\n", "\r\n"), r.text)
	}
	for i, call := range agreedCalls {
		f.Add(callText(call), policyReplies[i%len(policyReplies)])
	}
	random := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		f.Add(strings.TrimSuffix(randomConversation(random).requests, last), plainReply)
	}
	f.Fuzz(func(t *testing.T, requests, reply string) {
		if len(requests)+len(reply) > 32<<10 {
			return
		}
		b.compare(t, conversation{requests: requests + last, reply: plainReply})
		b.compare(t, conversation{requests: last, reply: reply, closes: true})
	})
}
