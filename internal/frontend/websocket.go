package frontend

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/frontend/extendedconnect"
)

func init() { extendedconnect.Restore() }

// protocolHeader is where net/http has the pseudo-header of an extended CONNECT.
const protocolHeader = ":protocol"

// AcceptWebSockets lets a handler that serves WebSockets over HTTP/1.1 serve those over HTTP/2, too. A stream that is
// opened by an extended CONNECT (RFC 8441) becomes a request to upgrade the connection; what the handler hijacks is the
// stream. Other requests are unchanged.
func AcceptWebSockets(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol := r.Header[protocolHeader]
		if r.ProtoMajor != 2 || r.Method != http.MethodConnect || len(protocol) != 1 || protocol[0] != "websocket" {
			next.ServeHTTP(w, r)
			return
		}
		stream := newWebSocketStream(w, r)
		next.ServeHTTP(stream, newUpgradeRequest(r))
		stream.wait()
	})
}

// newUpgradeRequest returns the request to upgrade an HTTP/1.1 connection that means the same as an extended CONNECT.
func newUpgradeRequest(r *http.Request) *http.Request {
	up := r.Clone(r.Context())
	up.Method, up.Proto, up.ProtoMajor, up.ProtoMinor = http.MethodGet, "HTTP/1.1", 1, 1
	up.Body, up.ContentLength = http.NoBody, 0
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	delete(up.Header, protocolHeader)
	up.Header["Connection"], up.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	up.Header["Sec-Websocket-Key"] = []string{base64.StdEncoding.EncodeToString(key)}
	return up
}

// webSocketStream is the response to a request that newUpgradeRequest made. Hijack returns the stream as a connection,
// to which the handler writes the response of HTTP/1.1 that accepts the WebSocket, and then its frames.
type webSocketStream struct {
	http.ResponseWriter
	control  *http.ResponseController
	request  *http.Request
	accepted bool // WriteHeader got 101; used by the handler alone

	life       sync.RWMutex // held for reading while the response is used, for writing to end that
	isHijacked bool
	isClosed   bool
	closed     chan struct{}

	writing sync.Mutex // held by the one that writes
	writers atomic.Int32
	head    []byte // of the response, while it is incomplete
	isOpen  bool   // the head is sent
}

func newWebSocketStream(w http.ResponseWriter, r *http.Request) *webSocketStream {
	return &webSocketStream{ResponseWriter: w, control: http.NewResponseController(w), request: r, closed: make(chan struct{})}
}

// Unwrap gives http.ResponseController the methods that webSocketStream lacks.
func (s *webSocketStream) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// WriteHeader sends a status. That of an accepted WebSocket is sent once the handler hijacks the stream.
func (s *webSocketStream) WriteHeader(status int) {
	if s.accepted = status == http.StatusSwitchingProtocols; !s.accepted {
		s.ResponseWriter.WriteHeader(status)
	}
}

// Hijack returns the stream.
func (s *webSocketStream) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.isHijacked {
		return nil, nil, http.ErrHijacked
	}
	s.isHijacked = true
	if s.accepted {
		if err := s.open(s.Header()); err != nil {
			return nil, nil, err
		}
	}
	conn := &streamConn{s}
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}

// wait returns once the hijacked stream is closed: the stream ends when its handler returns.
func (s *webSocketStream) wait() {
	s.life.RLock()
	isHijacked := s.isHijacked
	s.life.RUnlock()
	if !isHijacked {
		return
	}
	select {
	case <-s.closed:
	case <-s.request.Context().Done():
		s.end()
	}
}

// end keeps everybody from using the response: it ends when its handler returns.
func (s *webSocketStream) end() {
	s.life.RLock()
	if s.writers.Load() > 0 && !s.isClosed {
		_ = s.control.SetWriteDeadline(time.Now()) // HTTP/2 has deadlines
	}
	s.life.RUnlock()
	s.life.Lock()
	defer s.life.Unlock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closed)
	}
}

// open accepts the WebSocket, with the header of the response of HTTP/1.1. Only one goroutine calls it.
func (s *webSocketStream) open(from http.Header) error {
	h := s.Header()
	for name, values := range from {
		h[name] = values
	}
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept", "Content-Length", "Transfer-Encoding"} {
		delete(h, name)
	}
	s.ResponseWriter.WriteHeader(http.StatusOK)
	s.isOpen, s.head = true, nil
	return s.control.Flush()
}

// maxResponseHead is how long the head of a response may be.
const maxResponseHead = 64 << 10

// write sends what a handler writes to the connection.
func (s *webSocketStream) write(p []byte) (int, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.isClosed {
		return 0, net.ErrClosed
	}
	s.writers.Add(1)
	defer s.writers.Add(-1)
	s.writing.Lock()
	defer s.writing.Unlock()
	data := p
	if !s.isOpen {
		s.head = append(s.head, p...)
		head, rest, isComplete := bytes.Cut(s.head, []byte("\r\n\r\n"))
		if !isComplete {
			if len(s.head) > maxResponseHead {
				return 0, errors.New("the head of the response is too long")
			}
			return len(p), nil
		}
		if err := s.acceptResponse(head); err != nil {
			return 0, err
		}
		data = rest
	}
	if len(data) > 0 {
		if _, err := s.ResponseWriter.Write(data); err != nil {
			return 0, err
		}
		if err := s.control.Flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// acceptResponse parses the head of a response of HTTP/1.1, without the empty line, and accepts the WebSocket.
func (s *webSocketStream) acceptResponse(head []byte) error {
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(head)+"\r\n\r\n")), nil)
	if err != nil {
		return fmt.Errorf("the response to a WebSocket: %w", err)
	}
	_ = res.Body.Close() // it is empty
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the response to a WebSocket has status %d", res.StatusCode)
	}
	return s.open(res.Header)
}

// streamConn is the stream as a connection.
type streamConn struct{ stream *webSocketStream }

// Read reads what the client sends.
func (c *streamConn) Read(p []byte) (int, error) { return c.stream.request.Body.Read(p) }

// Write sends to the client.
func (c *streamConn) Write(p []byte) (int, error) { return c.stream.write(p) }

// Close ends the stream.
func (c *streamConn) Close() error {
	c.stream.end()
	return nil
}

// LocalAddr returns the address of the connection.
func (c *streamConn) LocalAddr() net.Addr {
	address, _ := c.stream.request.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return address
}

// RemoteAddr returns the address of the client.
func (c *streamConn) RemoteAddr() net.Addr { return streamAddr(c.stream.request.RemoteAddr) }

// SetDeadline sets both deadlines.
func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline limits Read.
func (c *streamConn) SetReadDeadline(t time.Time) error {
	return c.stream.limit(c.stream.control.SetReadDeadline, t)
}

// SetWriteDeadline limits Write.
func (c *streamConn) SetWriteDeadline(t time.Time) error {
	return c.stream.limit(c.stream.control.SetWriteDeadline, t)
}

func (s *webSocketStream) limit(set func(time.Time) error, t time.Time) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.isClosed {
		return net.ErrClosed
	}
	return set(t)
}

// streamAddr is the address of a client.
type streamAddr string

// Network returns the network of the address.
func (streamAddr) Network() string { return "tcp" }

// String returns the address.
func (a streamAddr) String() string { return string(a) }
