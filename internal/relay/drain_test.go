package relay

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	idle, silent, busy, waits := r.dial(), r.dial(), r.dial(), r.dial()
	idle.send(get)
	p := s.accept()
	p.serveOne(get)
	idle.expect(ok + empty)
	r.expectEnd(Complete, 200)
	busy.send(get)
	p.expect(get)
	eventually(t, "all connections", func() bool { return r.relay.Counts().Connections == 4 })
	drained := make(chan struct{})
	_ = r.listener.inner.Close()
	go func() {
		r.relay.Drain(t.Context())
		close(drained)
	}()
	idle.expectEOF()
	begin := time.Now()
	silent.expectEOF()                                   // it had the time to send a request
	if took := time.Since(begin); took > 5*time.Second { // HeadTimeout is twice that
		t.Fatalf("a connection without a request ends after %v", took)
	}
	waits.expectEOF()
	select {
	case <-drained:
		t.Fatal("drained while an exchange is in flight")
	case <-time.After(20 * time.Millisecond):
	}
	p.send(ok + empty)
	busy.expect(ok + "Connection: close\r\n" + empty)
	busy.expectEOF()
	<-drained
}

// TestDrain_Ends returns when its context ends.
func TestDrain_Ends(t *testing.T) {
	r := newRig(t, "", Options{})
	r.director.onNext(func(*Exchange, Event) Step { return Wait })
	r.dial().send(get)
	eventually(t, "an exchange", func() bool { return r.relay.Counts().Exchanges == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r.relay.Drain(ctx)
	if ctx.Err() == nil {
		t.Fatal("Drain returned early")
	}
}

// TestStop closes everything, ends each exchange, and leaves no file descriptors and goroutines.
func TestStop(t *testing.T) {
	s := newReplicaServer(t)
	before, goroutines := countFiles(t), runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		r := newRig(t, s.Addr().String(), Options{Loops: 2, Openings: newRecordingOpenings(100)})
		idle := r.dial()
		idle.send(get)
		s.t = t
		s.accept().serveOne(get)
		idle.expect(ok + empty)
		for range 4 {
			r.dial().send(get)
			c := r.dial()
			c.send(post + "Content-Length: 10\r\n\r\nab")
			r.dial().send("GET")
		}
		for range 7 {
			_ = s.accept()
		}
		eventually(t, "the exchanges", func() bool { return r.relay.Counts().Exchanges == 8 })
		r.forgetEnds()
		r.stop()
		for range 8 {
			if e := r.end(); e.outcome != WasCut {
				t.Fatalf("ended with %+v", e)
			}
		}
		idle.expectEOF()
		if c := r.relay.Counts(); c != (Counts{}) {
			t.Fatalf("counts %+v", c)
		}
	})
	eventually(t, "no file descriptor more than before", func() bool { return countFiles(t) <= before })
	eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// TestStop_WhileConnecting leaks no connection that arrives when the loops end.
func TestStop_WhileConnecting(t *testing.T) {
	before := countFiles(t)
	for range 20 {
		r := newRig(t, "127.0.0.1:1", Options{})
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 20 {
					conn, err := net.Dial("tcp", r.address)
					if err != nil {
						return
					}
					_, _ = conn.Write([]byte(get))
					_ = conn.Close()
				}
			})
		}
		time.Sleep(time.Millisecond)
		r.stop()
		all.Wait()
		if c := r.relay.Counts(); c.Connections != 0 {
			t.Fatalf("counts %+v", c)
		}
	}
	eventually(t, "no file descriptor more than before", func() bool { return countFiles(t) <= before })
}
