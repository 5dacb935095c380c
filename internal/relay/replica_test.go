package relay

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// serveOne lets a replica's connection serve a plain request.
func (p *peer) serveOne(request string) {
	p.t.Helper()
	p.expect(request)
	p.send(ok + empty)
}

// TestKept_EndsAtRest lets the replica close a connection at rest: the next request takes a new one.
func TestKept_EndsAtRest(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	c := r.dial()
	for _, end := range []func(*peer){
		func(p *peer) { _ = p.Close() },
		func(p *peer) { _ = p.SetLinger(0); _ = p.Close() },
		func(p *peer) { _ = p.CloseWrite() },
		func(p *peer) { p.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, // a response that nobody asked for
	} {
		c.send(get)
		p := s.accept()
		p.serveOne(get)
		c.expect(ok + empty)
		end(p)
		eventually(t, "no connection is kept", func() bool { return r.relay.Counts().Kept == 0 })
	}
}

// TestKept_EndsWithRequest lets the replica close a kept connection when the next request arrives over it.
func TestKept_EndsWithRequest(t *testing.T) {
	for _, c := range []struct {
		name         string
		request      string
		isReplayable bool
		part         string // of a response
		isResent     bool
	}{
		{"may be sent again", get, true, "", true},
		{"may not be sent again", get, false, "", false},
		{"whole body, may be sent again", post + "Content-Length: 2\r\n\r\nhi", true, "", true},
		{"began to respond", get, true, "HTTP/1.1 ", false},
		{"began to respond early", get, true, "HTTP/1.1 103 Early\r\n\r\n", false},
	} {
		for _, isReset := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, isReset), func(t *testing.T) {
				s := newReplicaServer(t)
				r := newRig(t, s.Addr().String(), Options{})
				r.director.onNext(func(x *Exchange, e Event) Step {
					x.IsReplayable = c.isReplayable
					return r.director.send(x, e)
				})
				client := r.dial()
				client.send(get)
				p := s.accept()
				p.serveOne(get)
				client.expect(ok + empty)
				client.send(c.request)
				p.expect(c.request)
				p.send(c.part)
				if isReset {
					time.Sleep(5 * time.Millisecond) // a reset may overtake what was sent before
					_ = p.SetLinger(0)
				}
				_ = p.Close()
				if c.isResent {
					s.accept().serveOne(c.request)
					client.expect(ok + empty)
					return
				}
				if strings.Contains(c.part, "103") {
					client.expect(c.part)
				}
				client.expect("HTTP/1.1 502 Bad Gateway\r\n")
				s.expectNone()
			})
		}
	}
}

// TestKept_ManyEnd lets all kept connections end at once while requests arrive: each request that may be repeated succeeds.
func TestKept_ManyEnd(t *testing.T) {
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	replica := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	replica.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateIdle {
			conns[c] = true
		} else {
			delete(conns, c)
		}
	}
	replica.Start()
	t.Cleanup(replica.Close)
	r := newRig(t, replica.Listener.Addr().String(), Options{Loops: 2})
	r.director.onNext(func(x *Exchange, e Event) Step {
		x.IsReplayable = true
		return r.director.send(x, e)
	})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			c := r.dial()
			for range 100 {
				c.send(get)
				if line, _ := c.readHead(); line != "HTTP/1.1 200 OK" {
					t.Errorf("received %q", line)
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	var closer sync.WaitGroup
	closer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			mu.Lock()
			for c := range conns {
				_ = c.Close()
			}
			mu.Unlock()
		}
	})
	all.Wait()
	close(stop)
	closer.Wait()
}

// TestKept_IdleTimeout closes connections that are not used.
func TestKept_IdleTimeout(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{Limits: Limits{ReplicaIdle: 30 * time.Millisecond}})
	c := r.dial()
	c.send(get)
	p := s.accept()
	p.serveOne(get)
	p.expectEOF()
	c.expect(ok + empty)
	if r.relay.Counts().Kept != 0 {
		t.Fatal("the connection is still counted")
	}
}

func TestReplica_Refuses(t *testing.T) {
	s := newReplicaServer(t)
	address := s.Addr().String()
	_ = s.Close()
	for _, replica := range []string{address, "nonsense", "127.0.0.1", "255.255.255.255:1"} {
		r := newRig(t, replica, Options{})
		c := r.dial()
		c.send(get)
		c.expect("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 5\r\n\r\n05")
		r.expectEnd(Complete, 502)
		r.exchangeElsewhere(c)
	}
}

// exchangeElsewhere lets the director choose another replica.
func (r *rig) exchangeElsewhere(c *peer) {
	s := newReplicaServer(r.t)
	first := true
	r.director.onNext(func(x *Exchange, e Event) Step {
		if e == ConnectFailed && first {
			first = false
			x.Replica = s.Addr().String()
			return Send
		}
		return r.director.send(x, e)
	})
	c.send(get)
	s.accept().serveOne(get)
	c.expect(ok + empty)
	r.expectEnd(Complete, 200)
}

// TestEarlyResponse responds before the body is sent: the client gets the response, and the rest of the body is not needed.
func TestEarlyResponse(t *testing.T) {
	for _, closes := range []bool{false, true} {
		s := newReplicaServer(t)
		r := newRig(t, s.Addr().String(), Options{})
		c := r.dial()
		c.send(post + "Content-Length: 100000000\r\n\r\n" + strings.Repeat("x", 100000))
		p := s.accept()
		p.expect(post)
		p.send("HTTP/1.1 413 Too Large\r\nDate: d\r\nContent-Length: 2\r\n\r\nno")
		if closes {
			_ = p.Close() // with data unread: that resets
		}
		c.expect("HTTP/1.1 413 Too Large\r\nDate: d\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
		_ = c.CloseWrite()
		c.expectEOF()
		r.expectEnd(Complete, 413)
		eventually(t, "no connection is left", func() bool { return r.relay.Counts() == Counts{} })
	}
}

// TestFullDuplex passes both bodies at the same time.
func TestFullDuplex(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	c := r.dial()
	c.send(post + chunked + "\r\n")
	p := s.accept()
	p.expect(post + chunked + "\r\n")
	p.send(ok + chunked + "\r\n")
	c.expect(ok + "Connection: close\r\n" + chunked + "\r\n")
	for range 10 {
		c.send("2\r\nhi\r\n")
		p.expect("2\r\nhi\r\n")
		p.send("3\r\nyou\r\n")
		c.expect("3\r\nyou\r\n")
	}
	c.send("0\r\n\r\n")
	p.expect("0\r\n\r\n")
	p.send("0\r\n\r\n")
	c.expect("0\r\n\r\n")
	c.expectEOF()
	r.expectEnd(Complete, 200)
}

// TestLarge passes large bodies both ways, to ends that read slowly.
func TestLarge(t *testing.T) {
	const size = 24 << 20
	content := bytes.Repeat([]byte("0123456789abcdefghij"), size/20+1)[:size]
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(&pausing{r: q.Body})
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if q.URL.Query().Has("length") {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(replica.Close)
	r := newRig(t, replica.Listener.Addr().String(), Options{})
	for _, path := range []string{"/", "/?length"} {
		for _, isChunked := range []bool{false, true} {
			var body io.Reader = bytes.NewReader(content)
			if isChunked {
				body = io.MultiReader(body)
			}
			res, err := http.Post("http://"+r.address+path, "a/b", body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(&pausing{r: res.Body})
			_ = res.Body.Close()
			if err != nil || len(got) != size || sha256.Sum256(got) != sha256.Sum256(content) {
				t.Fatalf("%s: %d bytes (%v), or other ones", path, len(got), err)
			}
			if e := r.end(); e.sent != size || e.outcome != Complete {
				t.Fatalf("ended with %+v", e)
			}
		}
	}
}

// pausing reads slowly.
type pausing struct {
	r io.Reader
	n int
}

func (p *pausing) Read(b []byte) (int, error) {
	if p.n++; p.n%64 == 0 {
		time.Sleep(time.Millisecond)
	}
	return p.r.Read(b)
}

// TestPipelining sends many requests at once.
func TestPipelining(t *testing.T) {
	r := newRig(t, echo(t), Options{})
	c := r.dial()
	var requests strings.Builder
	for i := range 200 {
		fmt.Fprintf(&requests, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, i, strings.Repeat("y", i))
	}
	var sender sync.WaitGroup
	sender.Go(func() { c.send(requests.String()) })
	for i := range 200 {
		line, fields := c.readHead()
		body := fmt.Sprintf("POST /%d %s", i, strings.Repeat("y", i))
		if line != "HTTP/1.1 200 OK" || !strings.Contains(fmt.Sprint(fields), fmt.Sprintf("Content-Length: %d", len(body))) {
			t.Fatalf("received %q %q", line, fields)
		}
		c.expect(body)
	}
	sender.Wait()
	_ = c.CloseWrite()
	c.expectEOF()
}

// TestPipelining_HalfClosed serves all requests of a client that has ended its side of the connection, but the last one,
// where nothing tells that end from that of a client that has left.
func TestPipelining_HalfClosed(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	c := r.dial()
	c.send(get + get)
	_ = c.CloseWrite()
	p := s.accept()
	p.serveOne(get)
	c.expect(ok + empty)
	c.expectEOF()
	r.expectEnd(Complete, 200)
}
