package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/eventloop"
	"dstack/internal/loop"
)

// testDirector sends everything to one replica, unless next says otherwise.
type testDirector struct {
	replica string
	ended   chan ending

	mu      sync.Mutex
	next    func(x *Exchange, e Event) Step
	respond func(x *Exchange)
}

// ending is what was known at the end of an exchange.
type ending struct {
	outcome Outcome
	status  int
	sent    int64
}

func (d *testDirector) Next(x *Exchange, e Event) Step {
	d.mu.Lock()
	next := d.next
	d.mu.Unlock()
	if next != nil {
		return next(x, e)
	}
	return d.send(x, e)
}

// onNext replaces the plain policy.
func (d *testDirector) onNext(next func(x *Exchange, e Event) Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = next
}

// onRespond says what is done with responses.
func (d *testDirector) onRespond(respond func(x *Exchange)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.respond = respond
}

// send is the plain policy: all requests go to the replica, failures are answered with 502.
func (d *testDirector) send(x *Exchange, e Event) Step {
	if e == HeadArrived {
		x.Replica = d.replica
		return Send
	}
	x.Reply = []byte(fmt.Sprintf("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: %d\r\n\r\n%02d", e, e))
	return Reply
}

func (d *testDirector) Respond(x *Exchange) {
	d.mu.Lock()
	respond := d.respond
	d.mu.Unlock()
	if respond != nil {
		respond(x)
	}
}

func (d *testDirector) End(x *Exchange) {
	select {
	case d.ended <- ending{x.Outcome, x.Status, x.Sent}:
	default:
	}
}

// rig is a relay that runs, with an http.Server behind it.
type rig struct {
	t        *testing.T
	relay    *Relay
	listener *Listener
	director *testDirector
	address  string
	server   *http.Server
	stop     func() // ends the tasks and waits for that
}

// newRig starts a relay in front of a replica. The server behind it answers with "slow: " and the body of the request.
func newRig(t *testing.T, replica string, o Options) *rig {
	t.Helper()
	if !eventloop.IsSupported {
		t.Skip("needs event loops")
	}
	r := &rig{t: t, director: &testDirector{replica: replica, ended: make(chan ending, 10000)}}
	o.Director = r.director
	if o.Loops == 0 {
		o.Loops = 1
	}
	var err error
	if r.relay, err = New(o); err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = inner.Addr().String()
	r.listener = r.relay.Listener(inner)
	r.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "slow: %s %s %s", q.Method, q.RequestURI, body)
	})}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = r.server.Serve(r.listener) })
	accept := loop.Task{Name: "accept", Run: func(ctx context.Context) error {
		_ = r.listener.Run(ctx)
		<-ctx.Done() // a relay goes on without its listener
		return ctx.Err()
	}}
	done.Go(func() { _ = loop.Run(ctx, append(r.relay.Tasks(), accept)...) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		_ = r.server.Close()
		done.Wait()
	})
	t.Cleanup(r.stop)
	return r
}

// end waits for the end of an exchange.
func (r *rig) end() ending {
	r.t.Helper()
	select {
	case e := <-r.director.ended:
		return e
	case <-time.After(10 * time.Second):
		r.t.Fatal("the exchange does not end")
		return ending{}
	}
}

// forgetEnds drops what an earlier part of a test left.
func (r *rig) forgetEnds() {
	for len(r.director.ended) > 0 {
		<-r.director.ended
	}
}

// expectEnd checks how the next exchange ended.
func (r *rig) expectEnd(o Outcome, status int) {
	r.t.Helper()
	if e := r.end(); e.outcome != o || e.status != status {
		r.t.Fatalf("the exchange ended with outcome %d, status %d, want %d, %d", e.outcome, e.status, o, status)
	}
}

// eventually waits until a condition is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// peer is one end of a raw connection.
type peer struct {
	*net.TCPConn
	t *testing.T
	r *bufio.Reader
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{TCPConn: conn.(*net.TCPConn), t: t, r: bufio.NewReader(conn)}
}

// dial opens a raw connection of a client.
func (r *rig) dial() *peer {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	return newPeer(r.t, conn)
}

// send writes bytes.
func (p *peer) send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.TCPConn, s); err != nil {
		p.t.Fatalf("cannot send: %v", err)
	}
}

// expect reads exactly these bytes.
func (p *peer) expect(want string) {
	p.t.Helper()
	p.limit()
	got := make([]byte, len(want))
	n, err := io.ReadFull(p.r, got)
	if string(got[:n]) != want {
		p.t.Fatalf("received %q (%v), want %q", got[:n], err, want)
	}
}

func (p *peer) limit() { _ = p.SetReadDeadline(time.Now().Add(10 * time.Second)) }

// expectEOF reads the end of the connection, and nothing before it.
func (p *peer) expectEOF() {
	p.t.Helper()
	p.limit()
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		p.t.Fatalf("received %q (%v), want the end of the connection", rest, err)
	}
}

// readHead reads a head: its first line, and its fields.
func (p *peer) readHead() (line string, fields []string) {
	p.t.Helper()
	p.limit()
	var lines []string
	for {
		l, err := p.r.ReadString('\n')
		if err != nil {
			p.t.Fatalf("received %q and %q: %v", lines, l, err)
		}
		if l == "\r\n" {
			return lines[0], lines[1:]
		}
		lines = append(lines, strings.TrimSuffix(l, "\r\n"))
	}
}

// replicaServer is a replica whose connections a test serves itself.
type replicaServer struct {
	t *testing.T
	*net.TCPListener
}

func newReplicaServer(t *testing.T) *replicaServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &replicaServer{t, l.(*net.TCPListener)}
}

// accept takes the next connection.
func (s *replicaServer) accept() *peer {
	s.t.Helper()
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	conn, err := s.Accept()
	if err != nil {
		s.t.Fatalf("no connection to the replica: %v", err)
	}
	return newPeer(s.t, conn)
}

// expectNone checks that no connection arrives.
func (s *replicaServer) expectNone() {
	s.t.Helper()
	_ = s.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if conn, err := s.Accept(); err == nil {
		_ = conn.Close()
		s.t.Fatal("the relay opened a connection to the replica")
	}
}

// echo is a replica that net/http serves: it answers with the request's method, path and body.
func echo(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// countFiles returns how many file descriptors the process has open.
func countFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
