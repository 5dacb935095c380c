package relay

import (
	"strings"
	"testing"
	"time"
)

// oneExchange is what two raw peers see of an exchange.
type oneExchange struct {
	name              string
	request, received string // what the client sends, and the replica gets
	response, passed  string // what the replica sends, and the client gets
	replicaCloses     bool   // after its response
	outcome           Outcome
	status            int
	clientEnds        bool // the relay closes the client's connection after it
	replicaEnds       bool // the relay closes the replica's connection, and uses it no more
	isReframed        bool // what the client gets depends on how the response arrives
}

const (
	get     = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	oldGet  = "GET / HTTP/1.0\r\nHost: a\r\n\r\n"
	post    = "POST / HTTP/1.1\r\nHost: a\r\n"
	ok      = "HTTP/1.1 200 OK\r\nDate: d\r\n"
	chunked = "Transfer-Encoding: chunked\r\n"
	empty   = "Content-Length: 0\r\n\r\n"
)

var exchanges = []oneExchange{
	{
		name: "chunked body of a response", request: get, received: get,
		response: ok + chunked + "\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
		passed:   ok + chunked + "\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
	}, {
		name: "chunked body of a request", request: post + chunked + "\r\n3\r\nabc\r\n0\r\n\r\n",
		received: post + chunked + "\r\n3\r\nabc\r\n0\r\n\r\n",
		response: ok + empty, passed: ok + empty,
	}, {
		name: "body until close becomes chunks", request: get, received: get, response: ok + "\r\nhello", replicaCloses: true,
		passed: ok + chunked + "\r\n5\r\nhello\r\n0\r\n\r\n", replicaEnds: true, isReframed: true,
	}, {
		name: "empty body until close", request: get, received: get, response: ok + "\r\n", replicaCloses: true,
		passed: ok + chunked + "\r\n0\r\n\r\n", replicaEnds: true,
	}, {
		name: "replica of HTTP/1.0", request: get, received: get, response: "HTTP/1.0 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi",
		passed: ok + "Content-Length: 2\r\n\r\nhi", replicaEnds: true,
	}, {
		name: "replica of HTTP/1.0 that keeps its connection", request: get, received: get,
		response: "HTTP/1.0 200 OK\r\nDate: d\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
		passed:   ok + "Content-Length: 2\r\n\r\nhi",
	}, {
		name: "replica of HTTP/1.0 until close", request: get, received: get, response: "HTTP/1.0 200 OK\r\nDate: d\r\n\r\nhi", replicaCloses: true,
		passed: ok + chunked + "\r\n2\r\nhi\r\n0\r\n\r\n", replicaEnds: true, isReframed: true,
	}, {
		name: "client of HTTP/1.0", request: oldGet, received: get, response: ok + "Content-Length: 2\r\n\r\nhi",
		passed: ok + "Connection: close\r\nContent-Length: 2\r\n\r\nhi", clientEnds: true,
	}, {
		name: "client of HTTP/1.0 that keeps its connection", request: "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", received: get,
		response: ok + "Content-Length: 2\r\n\r\nhi", passed: ok + "Connection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
	}, {
		name: "chunks for a client of HTTP/1.0", request: "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", received: get,
		response: ok + chunked + "\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", passed: ok + "Connection: close\r\n\r\nabcd", clientEnds: true,
	}, {
		name: "until close for a client of HTTP/1.0", request: oldGet, received: get, replicaCloses: true,
		response: ok + "\r\nabcd", passed: ok + "Connection: close\r\n\r\nabcd", clientEnds: true, replicaEnds: true,
	}, {
		name: "HEAD", request: "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", received: "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
		response: ok + "Content-Length: 5\r\n\r\n", passed: ok + "Content-Length: 5\r\n\r\n",
		replicaEnds: true, // careless applications send the body, which the next client would get
	}, {
		name: "HEAD without a length", request: "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", received: "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
		response: ok + "\r\n", passed: ok + "\r\n",
	}, {
		name: "204", request: get, received: get, status: 204,
		response: "HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n", passed: "HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n",
	}, {
		name: "304", request: get, received: get, status: 304,
		response: "HTTP/1.1 304 Not Modified\r\nDate: d\r\nEtag: e\r\nContent-Length: 5\r\n\r\n",
		passed:   "HTTP/1.1 304 Not Modified\r\nDate: d\r\nEtag: e\r\n\r\n", replicaEnds: true,
	}, {
		name: "103 is passed on, 100 is not", request: get, received: get,
		response: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + empty,
		passed:   "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + empty,
	}, {
		name: "up to 16 informational responses", request: get, received: get,
		response: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 20) + ok + empty,
		passed:   strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 16) + ok + empty,
	}, {
		name: "informational responses without end", request: get, received: get, isReframed: true,
		response: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1001),
		passed:   "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 8\r\n\r\n08", status: 502, replicaEnds: true,
	}, {
		name: "no informational responses for HTTP/1.0", request: oldGet, received: get, clientEnds: true,
		response: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + empty, passed: ok + "Connection: close\r\n" + empty,
	}, {
		name: "client that closes", request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", received: get,
		response: ok + empty, passed: ok + "Connection: close\r\n" + empty, clientEnds: true,
	}, {
		name: "replica that closes", request: get, received: get, response: ok + "Connection: close\r\n" + empty, passed: ok + empty, replicaEnds: true,
	}, {
		name: "bytes behind a response", request: get, received: get, response: ok + empty + "x", passed: ok + empty, replicaEnds: true,
	}, {
		name: "bytes behind the last chunk", request: get, received: get, response: ok + chunked + "\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
		passed: ok + chunked + "\r\n0\r\n\r\n", replicaEnds: true,
	}, {
		name: "trailers of a response", request: get, received: get,
		response: ok + "Trailer: X-Sum\r\n" + chunked + "\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\n\r\n",
		passed:   ok + "Trailer: X-Sum\r\n" + chunked + "\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
	}, {
		name: "trailers of a request", request: post + chunked + "\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: b\r\nHost: b\r\nx.real~ip: c\r\n\r\n",
		received: post + chunked + "\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", response: ok + empty, passed: ok + empty,
	}, {
		name: "response ends early", request: get, received: get, response: ok + "Content-Length: 5\r\n\r\nhi", replicaCloses: true,
		passed: ok + "Content-Length: 5\r\n\r\nhi", outcome: ReplicaBroke, clientEnds: true, replicaEnds: true,
	}, {
		name: "chunks end early", request: get, received: get, response: ok + chunked + "\r\n5\r\nhi", replicaCloses: true,
		passed: ok + chunked + "\r\n5\r\nhi", outcome: ReplicaBroke, clientEnds: true, replicaEnds: true,
	}, {
		name: "chunks that are not valid", request: get, received: get, response: ok + chunked + "\r\nzz\r\n",
		outcome: ReplicaBroke, isReframed: true, clientEnds: true, replicaEnds: true,
	}, {
		name: "head that is not valid", request: get, received: get, response: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		passed: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 8\r\n\r\n08", status: 502, replicaEnds: true,
	}, {
		name: "switch that nobody asked for", request: get, received: get, response: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		passed: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 8\r\n\r\n08", status: 502, replicaEnds: true,
	}, {
		name: "head that ends early", request: get, received: get, response: "HTTP/1.1 200 OK\r\nConte", replicaCloses: true,
		passed: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 8\r\n\r\n08", status: 502, replicaEnds: true,
	}, {
		name: "no response", request: get, received: get, replicaCloses: true,
		passed: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 6\r\n\r\n06", status: 502, replicaEnds: true,
	},
}

// TestFraming_Whole sends each message at once; TestFraming_Slowly byte by byte.
func TestFraming_Whole(t *testing.T)  { testFraming(t, (*peer).send, false) }
func TestFraming_Slowly(t *testing.T) { testFraming(t, (*peer).sendSlowly, true) }

func testFraming(t *testing.T, send func(*peer, string), isSlow bool) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{Limits: Limits{HeadTimeout: time.Minute}})
	for _, e := range exchanges {
		t.Run(e.name, func(t *testing.T) {
			if e.isReframed && isSlow {
				return
			}
			r.t, s.t = t, t
			r.forgetEnds()
			e.run(r, s, send)
		})
	}
}

// run plays an exchange.
func (e oneExchange) run(r *rig, s *replicaServer, send func(*peer, string)) {
	if e.status == 0 {
		e.status = 200
	}
	c := r.dial()
	send(c, e.request)
	p := s.accept()
	p.expect(e.received)
	send(p, e.response)
	if e.replicaCloses {
		_ = p.Close()
	}
	c.expect(e.passed)
	r.expectEnd(e.outcome, e.status)
	if e.clientEnds {
		c.expectEOF()
	}
	if e.replicaEnds && !e.replicaCloses {
		p.limit()
		if _, err := p.r.ReadByte(); err == nil {
			r.t.Fatal("the replica got more")
		}
	}
	if !e.clientEnds {
		c.send(get)
		if e.replicaEnds {
			p = s.accept()
		}
		p.expect(get)
		p.send(ok + empty)
		c.expect(ok + empty)
		r.expectEnd(Complete, 200)
	}
	_ = c.Close()
	_ = p.Close()
	eventually(r.t, "the connections are gone", func() bool { return r.relay.Counts() == Counts{} })
}

// sendSlowly writes each byte by itself.
func (p *peer) sendSlowly(s string) {
	p.t.Helper()
	for i := range len(s) {
		if _, err := p.Write([]byte{s[i]}); err != nil {
			return // what matters is what the other side gets
		}
		time.Sleep(50 * time.Microsecond)
	}
}
