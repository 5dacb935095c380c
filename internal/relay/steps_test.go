package relay

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestHandOver(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	r.director.onNext(func(x *Exchange, e Event) Step {
		if strings.HasPrefix(string(x.Request.Target), "/slow") {
			return HandOver
		}
		return r.director.send(x, e)
	})
	for name, request := range map[string]string{
		"without a body":        "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"with a body":           "POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
		"with a chunked body":   "POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"more than one request": "GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			c.send(request)
			c.limit()
			got, err := io.ReadAll(c.r)
			body := ""
			if strings.HasPrefix(request, "POST") {
				body = "abc"
			}
			method, _, _ := strings.Cut(request, " ")
			if want := "slow: " + method + " /slow " + body; err != nil || strings.Count(string(got), want) != strings.Count(request, "/slow") {
				t.Fatalf("received %q (%v), want %q", got, err, want)
			}
		})
	}
	c := r.dial()
	c.send(get)
	p := s.accept()
	p.expect(get)
	p.send(ok + empty)
	c.expect(ok + empty)
	c.send("GET /slow/2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if got, err := io.ReadAll(c.r); err != nil || !strings.HasSuffix(string(got), "slow: GET /slow/2 ") {
		t.Fatalf("received %q (%v)", got, err)
	}
	eventually(t, "no connection is counted", func() bool { return r.relay.Counts().Connections == 0 })
}

// TestHandOver_AfterReading hands requests over whose body was collected in part or wholly.
func TestHandOver_AfterReading(t *testing.T) {
	for _, framing := range []string{"Content-Length: 2600\r\n\r\n%s", "Transfer-Encoding: chunked\r\n\r\na28\r\n%s\r\n0\r\n\r\n"} {
		for _, room := range []int{1, 100, 3000} {
			r := newRig(t, "", Options{})
			r.director.onNext(func(x *Exchange, e Event) Step {
				if e == HeadArrived {
					x.Body = make([]byte, 0, room)
					return ReadBody
				}
				if e == BodyArrived && room > 2600 {
					return ReadBody
				}
				return HandOver
			})
			c := r.dial()
			body := strings.Repeat("0123456789abcdef....abcdef", 100)
			c.send("POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + fmt.Sprintf(framing, body))
			c.limit()
			if got, err := io.ReadAll(c.r); err != nil || !strings.Contains(string(got), "slow: POST /slow "+body) {
				t.Fatalf("%d, %s: received %q (%v)", room, framing, got, err)
			}
		}
	}
}

func TestReadBody(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	var events atomic.Int32
	r.director.onNext(func(x *Exchange, e Event) Step {
		switch e {
		case HeadArrived:
			x.Body = make([]byte, 0, 2)
			return ReadBody
		case BodyArrived:
			events.Add(1)
			if len(x.Body) == cap(x.Body) {
				x.Body = append(make([]byte, 0, 2*cap(x.Body)), x.Body...)
			}
			return ReadBody
		case BodyComplete:
			return r.director.send(x, HeadArrived)
		default:
		}
		return Cut
	})
	var p *peer
	for _, request := range []string{
		post + "Content-Length: 12\r\n\r\nhello world!",
		post + chunked + "\r\n6\r\nhello \r\n6;x\r\nworld!\r\n0\r\nX-T: 1\r\n\r\n",
	} {
		for _, send := range []func(*peer, string){(*peer).send, (*peer).sendSlowly} {
			c := r.dial()
			send(c, request)
			if p == nil {
				p = s.accept()
			}
			p.expect(post + "Content-Length: 12\r\n\r\nhello world!")
			p.send(ok + empty)
			c.expect(ok + empty)
			r.expectEnd(Complete, 200)
			if events.Swap(0) == 0 {
				t.Fatal("the director was not told of the body")
			}
		}
	}
}

// TestReadBody_WithoutRoom stops reading until the director is woken and gives room.
func TestReadBody_WithoutRoom(t *testing.T) {
	r := newRig(t, "", Options{})
	handles := make(chan Handle, 1)
	r.director.onNext(func(x *Exchange, e Event) Step {
		switch e {
		case HeadArrived:
			x.Body = make([]byte, 0, 2)
			handles <- x.Handle()
		case Woken:
			x.Body = append(make([]byte, 0, 100), x.Body...)
		case BodyComplete:
			x.Reply = []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + string(x.Body))
			return Reply
		default:
		}
		return ReadBody
	})
	c := r.dial()
	c.send(post + "Content-Length: 5\r\n\r\nhello")
	h := <-handles
	time.Sleep(10 * time.Millisecond)
	h.Wake()
	c.expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	r.expectEnd(Complete, 200)
}

func TestWait(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	handles := make(chan Handle, 1)
	var events []Event
	r.director.onNext(func(x *Exchange, e Event) Step {
		events = append(events, e)
		switch e {
		case HeadArrived:
			x.WakeAt(x.StartedAt.Add(30 * time.Millisecond))
			return Wait
		case TimePassed:
			handles <- x.Handle()
			return Wait
		case Woken:
			return r.director.send(x, HeadArrived)
		default:
		}
		return Cut
	})
	c := r.dial()
	begin := time.Now()
	c.send(post + "Content-Length: 2\r\n\r\nhi")
	h := <-handles
	if took := time.Since(begin); took < 20*time.Millisecond {
		t.Fatalf("woken after %v", took)
	}
	if r.relay.Counts().Exchanges != 1 {
		t.Fatal("the exchange that waits is not counted")
	}
	h.Wake()
	p := s.accept()
	p.expect(post + "Content-Length: 2\r\n\r\nhi")
	p.send(ok + empty)
	c.expect(ok + empty)
	r.expectEnd(Complete, 200)
	h.Wake()
	h.Cut()
	c.send(get)
	if h = <-handles; fmt.Sprint(events) != fmt.Sprint([]Event{HeadArrived, TimePassed, Woken, HeadArrived, TimePassed}) {
		t.Fatal("events", events)
	}
	h.Cut()
	r.expectEnd(WasCut, 0)
	c.expectEOF()
}

func TestWait_ClientLeaves(t *testing.T) {
	r := newRig(t, "", Options{})
	arrived := make(chan struct{}, 1)
	r.director.onNext(func(*Exchange, Event) Step {
		arrived <- struct{}{}
		return Wait
	})
	for name, request := range map[string]string{
		"without a body":         get,
		"with a body":            post + "Content-Length: 2\r\n\r\nhi",
		"with a large body":      post + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), // the buffers of the sockets hold it
		"with a part of a body":  post + "Content-Length: 200000\r\n\r\n" + strings.Repeat("x", 2000),
		"with the next requests": get + strings.Repeat(get, 1),
	} {
		for _, isReset := range []bool{false, true} {
			if strings.Contains(name, "next") && !isReset {
				continue // a client that sends requests and ends its side waits for the responses
			}
			t.Run(fmt.Sprint(name, isReset), func(t *testing.T) {
				r.t = t
				c := r.dial()
				c.send(request)
				<-arrived
				if isReset {
					_ = c.SetLinger(0)
				}
				_ = c.Close()
				r.expectEnd(ClientLeft, 0)
			})
		}
	}
	eventually(t, "nothing is counted", func() bool { return r.relay.Counts() == Counts{} })
}

func TestReply(t *testing.T) {
	r := newRig(t, "", Options{})
	const reply = "HTTP/1.1 418 Teapot\r\nContent-Length: 2\r\n\r\nhi"
	r.director.onNext(func(x *Exchange, _ Event) Step {
		x.Reply = []byte(reply)
		x.CloseClient = string(x.Request.Target) == "/close"
		return Reply
	})
	c := r.dial()
	for _, request := range []string{
		get, post + "Content-Length: 3\r\n\r\nabc", post + chunked + "\r\n1\r\na\r\n0\r\n\r\n", post + "Content-Length: 200000\r\n\r\n" + strings.Repeat("x", 200000), get,
	} {
		c.send(request)
		if strings.Contains(request, "chunked") {
			c.expect("HTTP/1.1 418 Teapot\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
			c.expectEOF()
			c = r.dial()
		} else {
			c.expect(reply)
		}
		if e := r.end(); e.outcome != Complete || e.status != 418 || e.sent != 2 {
			t.Fatalf("ended with %+v", e)
		}
	}
	c.send(get + get + "GET /close HTTP/1.1\r\nHost: a\r\n\r\n" + get)
	c.expect(reply + reply + "HTTP/1.1 418 Teapot\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
	c.expectEOF()
}

// TestReply_LargeBodyUnread answers before a body that the client insists on sending: the client gets the response, and no
// reset before it.
func TestReply_LargeBodyUnread(t *testing.T) {
	r := newRig(t, "", Options{})
	r.director.onNext(func(x *Exchange, _ Event) Step {
		x.Reply = []byte("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		return Reply
	})
	c := r.dial()
	c.send(post + "Content-Length: 100000000\r\n\r\n" + strings.Repeat("x", 3<<20))
	c.expect("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	c.expectEOF()
}

func TestWriteFirst(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	handles := make(chan Handle, 1)
	r.director.onNext(func(x *Exchange, e Event) Step {
		switch e {
		case HeadArrived:
			handles <- x.Handle()
			x.WriteFirst([]byte("HTTP/1.1 200 OK\r\nX: y\r\n\r\n"), []byte(":\n"))
			return Wait
		case Woken:
			x.WriteFirst(nil, []byte(": 2\n"))
			return r.director.send(x, HeadArrived)
		default:
		}
		x.Reply = []byte("failed")
		return Reply
	})
	for _, c := range []struct{ request, first, second, response, third string }{
		{get, ok[:17] + "X: y\r\n" + chunked + "\r\n2\r\n:\n\r\n", "4\r\n: 2\n\r\n", ok + "Content-Length: 2\r\n\r\nhi", "2\r\nhi\r\n0\r\n\r\n"},
		{get, ok[:17] + "X: y\r\n" + chunked + "\r\n2\r\n:\n\r\n", "4\r\n: 2\n\r\n", ok + chunked + "\r\n2\r\nhi\r\n0\r\n\r\n", "2\r\nhi\r\n0\r\n\r\n"},
		{get, ok[:17] + "X: y\r\n" + chunked + "\r\n2\r\n:\n\r\n", "4\r\n: 2\n\r\n", "", "6\r\nfailed\r\n0\r\n\r\n"},
		{oldGet, ok[:17] + "X: y\r\nConnection: close\r\n\r\n:\n", ": 2\n", ok + chunked + "\r\n2\r\nhi\r\n0\r\n\r\n", "hi"},
		{oldGet, ok[:17] + "X: y\r\nConnection: close\r\n\r\n:\n", ": 2\n", "", "failed"},
	} {
		client := r.dial()
		client.send(c.request)
		client.expect(c.first)
		(<-handles).Wake()
		client.expect(c.second)
		p := s.accept()
		p.expect(get)
		if c.response == "" {
			_ = p.Close()
		} else {
			p.send(c.response)
		}
		client.expect(c.third)
		if c.request == oldGet {
			client.expectEOF()
		}
		r.expectEnd(Complete, 200)
		_ = p.Close()
		eventually(t, "no connection to the replica is kept", func() bool { return r.relay.Counts().Kept == 0 })
	}
}

// TestReadBody_SmallChunks reads a body in chunks of one byte each: its framing must cost neither memory nor a copy of all for each.
func TestReadBody_SmallChunks(t *testing.T) {
	const size = 300_000
	r := newRig(t, "", Options{})
	var handsOver atomic.Bool
	r.director.onNext(func(x *Exchange, e Event) Step {
		switch {
		case e == HeadArrived:
			x.Body = make([]byte, 0, size+1) // the end takes no room, but the relay asks before it
			return ReadBody
		case e != BodyComplete:
			return ReadBody
		case handsOver.Load():
			return HandOver
		}
		x.Reply = []byte("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + strconv.Itoa(len(x.Body)))
		return Reply
	})
	request := post + chunked + "\r\n" + strings.Repeat("1\r\na\r\n", size) + "0\r\n\r\n"
	c := r.dial()
	c.limit()
	c.send(request)
	c.expect("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n300000")
	r.expectEnd(Complete, 200)
	handsOver.Store(true)
	c.send(request)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "slow: POST / "+strings.Repeat("a", size) {
		t.Fatalf("%d bytes (%v)", len(body), err)
	}
}

// TestHandOver_AfterAnotherRequest hands a connection over that begins HTTP/2 after a request was served.
func TestHandOver_AfterAnotherRequest(t *testing.T) {
	r := newRig(t, echo(t), Options{})
	c := r.dial()
	c.send(post + chunked + "\r\n1\r\na\r\n0\r\n\r\n")
	c.readHead()
	c.expect("POST / a")
	r.expectEnd(Complete, 200)
	c.send("PRI * HTTP/2.0\r\n\r\n")
	if line, _ := c.readHead(); !strings.HasPrefix(line, "HTTP/1.1 ") {
		t.Fatalf("received %q", line)
	}
}
