package relay

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dstack/internal/eventloop"
)

// chunkedBody returns a body in chunks.
func chunkedBody(body string) string {
	const size = 10_000
	var b strings.Builder
	for ; len(body) > size; body = body[size:] {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", size, body[:size])
	}
	fmt.Fprintf(&b, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	return b.String()
}

// largeBody returns a body that no buffer of a connection holds, as it is sent with a length, and in chunks.
func largeBody(size int) (body string, requests []string) {
	body = strings.Repeat("0123456789abcde\n", size/16)
	return body, []string{
		post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body,
		post + chunked + "\r\n" + chunkedBody(body),
	}
}

// TestHold_ClientLeaves notices that a client leaves although its body is larger than all buffers of its connection.
func TestHold_ClientLeaves(t *testing.T) {
	r := newRig(t, "", Options{})
	r.director.onNext(func(x *Exchange, e Event) Step {
		x.Hold = max(1000, 2*x.Hold)
		return Wait
	})
	_, requests := largeBody(12 << 20)
	for _, request := range requests {
		c := r.dial()
		c.send(request)
		_ = c.Close()
		r.expectEnd(ClientLeft, 0)
	}
	eventually(t, "nothing is counted", func() bool { return r.relay.Counts() == Counts{} })
}

// TestHold_IsSentWhole sends bodies of which a part was held, and the requests behind them.
func TestHold_IsSentWhole(t *testing.T) {
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%s %d %x", r.Method, n, sum.Sum(nil))
	}))
	t.Cleanup(replica.Close)
	body, requests := largeBody(3 << 20)
	want := fmt.Sprintf("POST %d %x", len(body), sha256.Sum256([]byte(body)))
	for _, limit := range []int64{1, 20_000, 100_000, 1 << 20, 1 << 30} {
		for _, step := range []Step{Send, HandOver} {
			r := newRig(t, replica.Listener.Addr().String(), Options{})
			handles := make(chan Handle, 1)
			r.director.onNext(func(x *Exchange, e Event) Step {
				switch {
				case string(x.Request.Method) == "GET":
					return r.director.send(x, HeadArrived)
				case e == Woken && step == Send:
					return r.director.send(x, HeadArrived)
				case e == Woken:
					return HandOver
				case e == HeadArrived:
					handles <- x.Handle()
				}
				x.Hold = min(max(1000, 2*x.Hold), limit)
				return Wait
			})
			r.server.Handler = replica.Config.Handler
			for _, request := range requests {
				c := r.dial()
				go func() { _, _ = io.WriteString(c, request+get) }()
				h := <-handles
				time.Sleep(10 * time.Millisecond)
				h.Wake()
				for _, want := range []string{want, "GET 0 "} {
					c.limit()
					res, err := http.ReadResponse(c.r, nil)
					if err != nil {
						t.Fatal(limit, step, err)
					}
					if got, err := io.ReadAll(res.Body); err != nil || !strings.HasPrefix(string(got), want) {
						t.Fatalf("limit %d, step %d: %s (%v), want %s", limit, step, got, err, want)
					}
				}
			}
			r.stop()
		}
	}
}

// TestHold_WithoutMoreRoom asks for more room once, and leaves the rest with the client.
func TestHold_WithoutMoreRoom(t *testing.T) {
	r := newRig(t, "", Options{})
	events := make(chan Event, 100)
	handles := make(chan Handle, 1)
	r.director.onNext(func(x *Exchange, e Event) Step {
		if events <- e; e == HeadArrived {
			handles <- x.Handle()
			x.Hold = 1000
		}
		return Wait
	})
	_, requests := largeBody(1 << 20)
	c := r.dial()
	go func() { _, _ = io.WriteString(c, requests[0]) }()
	for _, want := range []Event{HeadArrived, BodyHeld} {
		if got := <-events; got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	time.Sleep(20 * time.Millisecond)
	if len(events) > 0 {
		t.Fatalf("event %d although there is no room", <-events)
	}
	(<-handles).Cut()
	r.expectEnd(WasCut, 0)
}

// TestLateRead_SlowClient has a replica break the connection within a response, before it has read the request wholly, while the
// client does not read: nothing is put behind the part of the response that the client gets.
func TestLateRead_SlowClient(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	c := r.dial()
	c.send(post + "Content-Length: 100000000\r\n\r\n")
	p := s.accept()
	p.expect(post + "Content-Length: 100000000\r\n\r\n")
	p.send(ok + "Content-Length: 100000000\r\n\r\n")
	part := strings.Repeat("x", 100000)
	for err := error(nil); err == nil; { // until all buffers are full
		_ = p.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = io.WriteString(p, part)
	}
	_ = p.SetLinger(0)
	_ = p.Close()
	w := r.relay.workers[0]
	isLate := make(chan bool)
	eventually(t, "the rest of the request cannot be sent", func() bool {
		c.send("more of the body")
		w.loop.Send(eventloop.Func(func() {
			client := w.clients.first
			is := client != nil && client.replica != nil && client.replica.writeError != nil
			if is {
				client.replica.Expire(&client.replica.timer)
			}
			isLate <- is
		}), 0)
		return <-isLate
	})
	c.limit()
	c.expect(ok + "Connection: close\r\nContent-Length: 100000000\r\n\r\n")
	rest, _ := io.ReadAll(c.r)
	if got := strings.Trim(string(rest), "x"); got != "" {
		t.Fatalf("the client gets %.200q within the response", got)
	}
	r.expectEnd(ReplicaBroke, 200)
}
