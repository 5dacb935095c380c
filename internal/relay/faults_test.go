package relay

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// TestFaults_ReplicaDiesAtEachByte breaks a response after each of its bytes: the client gets no more than what was sent, and
// knows that it is not complete, or an error.
func TestFaults_ReplicaDiesAtEachByte(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	for _, response := range []string{
		ok + "Content-Length: 5\r\n\r\nhello", ok + chunked + "\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
	} {
		for n := range len(response) {
			for _, isReset := range []bool{false, true} {
				c := r.dial()
				c.send(get)
				p := s.accept()
				p.expect(get)
				p.send(response[:n])
				if isReset {
					_ = p.SetLinger(0)
				}
				_ = p.Close()
				r.expectBroken(c, response, fmt.Sprintf("%d of %q, reset %v", n, response, isReset))
				_ = c.Close()
			}
		}
	}
	eventually(t, "nothing is left", func() bool { return r.relay.Counts() == Counts{} })
}

// expectBroken checks what a client gets of a response that a replica broke off.
func (r *rig) expectBroken(c *peer, response, what string) {
	r.t.Helper()
	e := r.end()
	switch {
	case e.outcome == Complete && e.status == 502:
		c.expect("HTTP/1.1 502 Bad Gateway\r\n")
	case e.outcome == ReplicaBroke && e.status == 200:
		c.limit()
		got, err := io.ReadAll(c.r)
		if !strings.HasPrefix(response, string(got)) || len(got) == len(response) {
			r.t.Fatalf("%s: the client received %q (%v)", what, got, err)
		}
	default:
		r.t.Fatalf("%s: ended with %+v", what, e)
	}
}

// TestFaults_UntilCloseIsReset tells a client of HTTP/1.0 by a reset that a response is not complete.
func TestFaults_UntilCloseIsReset(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	c := r.dial()
	c.send(oldGet)
	p := s.accept()
	p.expect(get)
	p.send(ok + "Content-Length: 5\r\n\r\nhi")
	c.expect(ok + "Connection: close\r\nContent-Length: 5\r\n\r\nhi")
	_ = p.Close()
	c.expectEOF() // the length tells
	c = r.dial()
	c.send(oldGet)
	p = s.accept()
	p.expect(get)
	p.send(ok + chunked + "\r\n2\r\nhi")
	c.expect(ok + "Connection: close\r\n\r\nhi")
	_ = p.Close()
	c.limit()
	if _, err := c.r.ReadByte(); err == nil || err == io.EOF {
		t.Fatalf("the end of the connection reads as %v, want a reset", err)
	}
}

// TestFaults_ClientDiesAtEachByte breaks requests after each of their bytes: no exchange stays, and the connection to the
// replica is not used for another client.
func TestFaults_ClientDiesAtEachByte(t *testing.T) {
	r := newRig(t, echo(t), Options{})
	for _, request := range []string{post + "Content-Length: 5\r\n\r\nhello", post + chunked + "\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"} {
		for n := range len(request) + 1 {
			for _, isReset := range []bool{false, true} {
				c := r.dial()
				c.send(request[:n])
				if isReset {
					_ = c.SetLinger(0)
				}
				_ = c.Close()
			}
		}
		c := r.dial()
		c.send(post + "Content-Length: 2\r\n\r\nhi")
		line, _ := c.readHead()
		if line != "HTTP/1.1 200 OK" {
			t.Fatalf("received %q", line)
		}
		c.expect("POST / hi")
		_ = c.Close()
	}
	eventually(t, "nothing is left", func() bool { c := r.relay.Counts(); return c.Connections+c.Exchanges == 0 })
}

// TestFaults_ClientDiesWithinResponse lets clients leave while a response is sent.
func TestFaults_ClientDiesWithinResponse(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	for _, isReset := range []bool{false, true} {
		c := r.dial()
		c.send(get)
		p := s.accept()
		p.expect(get)
		p.send(ok + chunked + "\r\n2\r\nhi\r\n")
		c.expect(ok + chunked + "\r\n2\r\nhi\r\n")
		if isReset {
			_ = c.SetLinger(0)
		}
		_ = c.Close()
		p.expectEOF()
		r.expectEnd(ClientLeft, 200)
	}
}

// TestCut_WithinResponse cuts a response from outside.
func TestCut_WithinResponse(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	handles := make(chan Handle, 1)
	r.director.onRespond(func(x *Exchange) { handles <- x.Handle() })
	for _, request := range []string{get, oldGet} {
		c := r.dial()
		c.send(request)
		p := s.accept()
		p.expect(get)
		p.send(ok + chunked + "\r\n2\r\nhi\r\n")
		c.readHead()
		h := <-handles
		time.Sleep(2 * time.Millisecond)
		h.Cut()
		r.expectEnd(WasCut, 200)
		p.expectEOF()
		c.limit()
		if _, err := io.Copy(io.Discard, c.r); request == oldGet && err == nil {
			t.Fatal("the client takes the response for complete")
		}
	}
}

// TestFields checks what a director adds and drops.
func TestFields(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	r.director.onNext(func(x *Exchange, e Event) Step {
		x.Target, x.Extra = []byte("/other?x"), []byte("X-Extra: 1\r\n")
		for i := range x.Request.Fields {
			x.Request.Fields[i].Drop = x.Request.Fields[i].Drop || string(x.Request.Fields[i].Name) == "Secret"
		}
		return r.director.send(x, e)
	})
	r.director.onRespond(func(x *Exchange) {
		x.ResponseExtra, x.CloseClient = []byte("X-More: 2\r\n"), true
		for i := range x.Response.Fields {
			x.Response.Fields[i].Drop = x.Response.Fields[i].Drop || string(x.Response.Fields[i].Name) == "Inner"
		}
	})
	c := r.dial()
	c.send("GET /path HTTP/1.1\r\nHost: a\r\nSecret: s\r\nother:  o \r\nConnection: named, keep-alive\r\nNamed: n\r\nKeep-Alive: 1\r\n\r\n")
	p := s.accept()
	p.expect("GET /other?x HTTP/1.1\r\nHost: a\r\nother: o\r\nX-Extra: 1\r\n\r\n")
	p.send("HTTP/1.1 200 Fine\r\nInner: i\r\nOuter: o\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n")
	line, fields := c.readHead()
	if got := fmt.Sprint(line, fields); !strings.HasPrefix(got, "HTTP/1.1 200 Fine[Outer: o X-More: 2 Date: ") ||
		!strings.HasSuffix(got, " GMT Connection: close Content-Length: 0]") {
		t.Fatalf("received %s", got)
	}
	c.expectEOF()
}

// TestRefused checks how requests are refused that are not valid.
func TestRefused(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	for _, request := range []string{
		"GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"\x16\x03\x01\x00", "GET / HTTP/3.0\r\n\r\n", "GET /" + strings.Repeat("x", 70000),
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70000) + "\r\n\r\n" + strings.Repeat("z", 100000),
	} {
		c := r.dial()
		c.send(request)
		if line, fields := c.readHead(); !strings.HasPrefix(line, "HTTP/1.1 4") && !strings.HasPrefix(line, "HTTP/1.1 5") ||
			!strings.Contains(fmt.Sprint(fields), "Connection: close") {
			t.Fatalf("%.40q: received %q %q", request, line, fields)
		}
		_ = c.CloseWrite()
		c.limit()
		if _, err := io.Copy(io.Discard, c.r); err != nil {
			t.Fatalf("%.40q: the connection ends with %v", request, err)
		}
	}
	s.expectNone()
	eventually(t, "nothing is left", func() bool { return r.relay.Counts() == Counts{} })
}

// TestPanic ends the exchange alone in which a director panics.
func TestPanic(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	r.director.onNext(func(x *Exchange, e Event) Step {
		switch string(x.Request.Target) {
		case "/next":
			panic("a mistake")
		case "/watch":
			x.Watcher = r.director
		}
		return r.director.send(x, e)
	})
	r.director.onRespond(func(x *Exchange) {
		if string(x.Request.Target) == "/respond" {
			panic("a mistake")
		}
	})
	other := r.dial()
	other.send(get)
	p := s.accept()
	p.expect(get)
	for _, path := range []string{"/next", "/respond", "/watch"} {
		c := r.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if path != "/next" {
			q := s.accept()
			q.expect("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
			q.send(ok + "Content-Length: 1\r\n\r\na")
		}
		c.limit()
		got, err := io.ReadAll(c.r)
		if path == "/watch" && (err == nil || len(got) > 0) || path != "/watch" && (err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 500 ")) {
			t.Fatalf("%s: received %q (%v)", path, got, err)
		}
		if e := r.end(); e.outcome != WasCut {
			t.Fatalf("%s: outcome %d", path, e.outcome)
		}
	}
	p.send(ok + empty)
	other.expect(ok + empty)
	r.expectEnd(Complete, 200)
	_ = other.Close()
	_ = p.Close()
	eventually(t, "the connections are gone", func() bool { return r.relay.Counts() == Counts{} })
}

// Watch is a mistake.
func (d *testDirector) Watch([]byte) { panic("a mistake") }
