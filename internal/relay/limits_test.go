package relay

import (
	"io"
	"strings"
	"testing"
	"time"
)

// sendZeros sends zeros until its connection breaks.
func (p *peer) sendZeros() {
	zeros := make([]byte, 64<<10)
	for {
		if _, err := p.Write(zeros); err != nil {
			return
		}
	}
}

func TestLimits_ClientReadsNothing(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{Limits: Limits{StallTimeout: 100 * time.Millisecond}})
	for _, head := range []string{ok + "\r\n", ok + "Content-Length: 1000000000\r\n\r\n", ok + chunked + "\r\n3b9aca00\r\n"} {
		c := r.dial()
		c.send(get)
		p := s.accept()
		p.expect(get)
		p.send(head)
		p.sendZeros()
		r.expectEnd(ClientLeft, 200)
		_ = c.Close()
	}
}

func TestLimits_ReplicaReadsNothing(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{Limits: Limits{ResponseTimeout: 200 * time.Millisecond}})
	for _, head := range []string{post + "Content-Length: 1000000000\r\n\r\n", post + chunked + "\r\n3b9aca00\r\n"} {
		c := r.dial()
		c.send(head)
		p := s.accept()
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		c.sendZeros()
		c.expect("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n")
		r.expectEnd(Complete, 502)
		_ = p.Close()
		_ = c.Close()
	}
}

func TestLimits_ClientSendsNothing(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{Limits: Limits{StallTimeout: 50 * time.Millisecond, HeadTimeout: 200 * time.Millisecond,
		IdleTimeout: 50 * time.Millisecond}})
	for name, begin := range map[string]string{"nothing": "", "a part of a head": "GET / HTTP/1.1\r\n"} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			c.send(begin)
			c.expectEOF()
		})
	}
	t.Run("a part of a body", func(t *testing.T) {
		c := r.dial()
		c.send(post + "Content-Length: 10\r\n\r\nab")
		p := s.accept()
		p.expect(post + "Content-Length: 10\r\n\r\nab")
		c.expect("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 2\r\nX-Event: 10\r\n\r\n10")
		c.expectEOF()
		p.expectEOF()
		r.expectEnd(Complete, 502)
	})
	t.Run("a part of a body, after the response began", func(t *testing.T) {
		c := r.dial()
		c.send(post + "Content-Length: 10\r\n\r\nab")
		p := s.accept()
		p.expect(post + "Content-Length: 10\r\n\r\nab")
		p.send(ok + chunked + "\r\n1\r\na\r\n")
		r.expectEnd(BodyFailed, 200)
		c.expect(ok + "Connection: close\r\n" + chunked + "\r\n1\r\na\r\n")
		c.expectEOF()
		p.expectEOF()
	})
	t.Run("no request after one", func(t *testing.T) {
		c := r.dial()
		c.send(get)
		p := s.accept()
		p.expect(get)
		time.Sleep(100 * time.Millisecond) // no limit for clients runs while the replica is to respond
		p.send(ok + empty)
		c.expect(ok + empty)
		c.expectEOF()
		r.expectEnd(Complete, 200)
	})
	t.Run("a slow head", func(t *testing.T) {
		c := r.dial()
		for range 100 {
			if _, err := io.WriteString(c.TCPConn, "G"); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatal("500 ms for a head are accepted")
	})
}

func TestLimits_ReplicaTakesLong(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{Limits: Limits{ResponseTimeout: 200 * time.Millisecond}})
	for _, part := range []string{"", "HTTP/1.1 200", "HTTP/1.1 103 Early\r\n\r\n"} {
		c := r.dial()
		c.send(get)
		p := s.accept()
		p.expect(get)
		p.send(part)
		if strings.Contains(part, "103") {
			c.expect(part)
		}
		c.expect("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 7\r\n\r\n07")
		p.expectEOF()
		r.expectEnd(Complete, 502)
	}
	c := r.dial()
	c.send(get)
	p := s.accept()
	p.expect(get)
	p.send(ok + "Content-Length: 2\r\n\r\na")
	time.Sleep(300 * time.Millisecond) // pauses within a response are not limited
	p.send("b")
	c.expect(ok + "Content-Length: 2\r\n\r\nab")
}
