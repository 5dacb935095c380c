package relay

import "testing"

// panicWatcher panics at the first piece.
type panicWatcher struct{}

func (panicWatcher) Watch([]byte) { panic("watch") }

// TestPanic lets the director panic: the exchange ends, and all others go on.
func TestPanic(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	held := make(chan Handle, 1)
	r.director.onNext(func(x *Exchange, e Event) Step {
		switch string(x.Request.Target) {
		case "/wait":
			if e == HeadArrived {
				held <- x.Handle()
				return Wait
			}
		case "/next":
			panic("next")
		}
		return r.director.send(x, HeadArrived)
	})
	r.director.onRespond(func(x *Exchange) {
		switch string(x.Request.Target) {
		case "/respond":
			panic("respond")
		case "/watch":
			x.Watcher = panicWatcher{}
		}
	})
	other := r.dial()
	other.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	h := <-held

	c := r.dial()
	c.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	c.expectEOF()
	r.expectEnd(WasCut, 0)

	c = r.dial()
	c.send("GET /respond HTTP/1.1\r\nHost: a\r\n\r\n")
	p := s.accept()
	p.serveOne("GET /respond HTTP/1.1\r\nHost: a\r\n\r\n")
	c.expectEOF()
	p.expectEOF()
	r.expectEnd(WasCut, 0)

	c = r.dial()
	c.send("GET /watch HTTP/1.1\r\nHost: a\r\n\r\n")
	p = s.accept()
	p.expect("GET /watch HTTP/1.1\r\nHost: a\r\n\r\n")
	p.send(ok + "Content-Length: 2\r\n\r\nhi")
	c.expect(ok + "Content-Length: 2\r\n\r\nhi")
	r.expectEnd(Complete, 200)

	h.Wake()
	p.serveOne("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	other.expect(ok + empty)
	r.expectEnd(Complete, 200)
	_, _ = c.Close(), other.Close()
	eventually(t, "no exchange and no client is left", func() bool {
		counts := r.relay.Counts()
		return counts.Connections == 0 && counts.Exchanges == 0
	})
}
