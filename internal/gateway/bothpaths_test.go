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
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
	"dstack/internal/httpwire"
)

// bothPaths are two gateways with the same routes: one serves by the fast path, the other by the slow one alone.
type bothPaths struct {
	fast, slow string // addresses
	lanes      chan *lane
}

// lane is a service with a replica of its own. Requests that are compared at the same time use different ones.
type lane struct {
	host    string
	replica *recordingReplica
}

func startBothPaths(t testing.TB, lanes int) *bothPaths {
	t.Helper()
	b := &bothPaths{lanes: make(chan *lane, lanes)}
	var routes []route.Route
	for i := range lanes {
		l := &lane{host: fmt.Sprintf("lane%d.localhost", i), replica: startRecordingReplica(t)}
		routes = append(routes, publicRoute(fmt.Sprintf("lane%d", i), l.replica.target))
		b.lanes <- l
	}
	r := startGatewayWith(t, gateway.Options{}, routes...)
	b.fast = r.server.Listener.Addr().String()
	slow := httptest.NewUnstartedServer(r.server.Config.Handler)
	slow.Config.ConnContext = gateway.WithConn
	slow.Start()
	t.Cleanup(slow.Close)
	b.slow = slow.Listener.Addr().String()
	return b
}

// conversation is what a client sends over one connection, and what the replica replies to each request.
type conversation struct {
	requests string // with HOST where the host of a lane goes
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
	c.requests = strings.ReplaceAll(c.requests, "HOST", l.host)
	methods, wanted := readMethods(c.requests)
	if wanted == incomplete {
		return
	}
	fast := have(t, b.fast, l.replica, c, methods)
	if wanted == refused {
		checkRefused(t, c, fast, len(methods))
		return
	}
	if isReplyRefused(c, methods[0]) {
		checkReplyRefused(t, c, fast)
		return
	}
	slow := have(t, b.slow, l.replica, c, methods)
	if fast.text() != slow.text() {
		t.Errorf("the client sends %q, the replica replies %q\n--- fast path\n%s--- slow path\n%s", c.requests, c.reply, fast.text(), slow.text())
	}
}

type verdict uint8

const (
	accepted verdict = iota
	refused
	incomplete // or not to be compared
)

// refusedAfter returns the verdict on a request that is refused. Behind an odd one, net/http reads it by its own rules.
func refusedAfter(isOdd bool) verdict {
	if isOdd {
		return incomplete
	}
	return refused
}

// readMethods returns the methods of the requests that httpwire accepts, and what it says to the rest.
func readMethods(text string) (methods []string, v verdict) {
	isOdd := false
	for b := []byte(text); len(b) > 0; {
		var h httpwire.RequestHead
		n, err := h.Parse(b)
		if err != nil {
			return methods, refusedAfter(isOdd)
		}
		if n == 0 {
			return methods, incomplete
		}
		b = b[n:]
		isOdd = isOdd || h.Oddities != 0
		switch {
		case h.Oddities&httpwire.OddPreface != 0:
			return methods, incomplete // not compared: another protocol
		case h.Length == httpwire.Chunked:
			var s httpwire.ChunkScanner
			_, n, done, err := s.Scan(b, nil)
			if err != nil {
				return methods, refusedAfter(isOdd)
			}
			if !done {
				return methods, incomplete
			}
			b = b[n:]
		case h.Length > int64(len(b)):
			return methods, incomplete
		default:
			b = b[h.Length:]
		}
		methods = append(methods, string(h.Method))
		if h.CloseAfter {
			return methods, accepted
		}
	}
	return methods, incomplete // the connection stays open
}

// isReplyRefused reports whether httpwire refuses the replica's reply.
func isReplyRefused(c conversation, method string) bool {
	for b := []byte(c.reply); ; {
		var h httpwire.ResponseHead
		n, err := h.Parse(b, []byte(method))
		if err != nil || n == 0 {
			return true
		}
		b = b[n:]
		if h.Length == httpwire.Chunked {
			var s httpwire.ChunkScanner
			_, _, _, err := s.Scan(b, nil)
			return err != nil
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

// checkReplyRefused checks that the client gets an error, or a response that is cut, instead of a reply that httpwire refuses.
func checkReplyRefused(t testing.TB, c conversation, o outcome) {
	t.Helper()
	if !o.isCut && (len(o.responses) == 0 || !strings.HasPrefix(o.responses[0], "502")) {
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
}
