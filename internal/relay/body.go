package relay

import (
	"errors"
	"io"

	"dstack/internal/httpwire"
)

// requestBody is how far the body of a request is.
type requestBody struct {
	left        int64 // bytes that were not read; of a body with a length
	isChunked   bool
	isDone      bool // all of it was read from the client
	isCollected bool // all of it is in Exchange.Body
	wasFull     bool // the director was asked for more room, and gave none
	scanner     httpwire.ChunkScanner
	hasGrown    bool   // since the director was asked
	whole       []byte // a body that arrived with its head, or was held
	askedAt     int64  // the Exchange.Hold for which the director was asked for more
	held        []byte // what was read while the exchange waited; the part of it that was not used yet is clientConn.rest
}

// maxJoined is the longest body that is copied behind its head, to be sent in one write.
const maxJoined = 16 << 10

// errBodyStalled says that a client stopped to send its body.
var errBodyStalled = errors.New("the client did not send the rest of the body in time")

func (b *requestBody) begin(length int64) {
	trailers := b.scanner.Trailers[:0]
	*b = requestBody{left: length, isChunked: length == httpwire.Chunked, isDone: length == 0}
	if b.isChunked {
		b.scanner = httpwire.ChunkScanner{Trailers: trailers}
	}
}

// release gives up what is kept of the body.
func (b *requestBody) release() { b.whole, b.held = nil, nil }

// appendRead appends what was read of the body, as it could have been received; collected is what of it is in Exchange.Body.
func (b *requestBody) appendRead(to, collected []byte) []byte {
	switch {
	case b.isChunked:
		return b.scanner.AppendRead(to, collected)
	case b.whole != nil:
		return append(to, b.whole...)
	default:
		return append(to, collected...)
	}
}

// frame takes the part of p that belongs to the body: pass is sent on, and after it end, with the fields of the trailer
// in the memory of trailer. n bytes of p are used.
func (b *requestBody) frame(p []byte, trailer []byte) (pass, end []byte, n int, err error) {
	if !b.isChunked {
		n = int(min(int64(len(p)), b.left))
		b.left -= int64(n)
		b.isDone = b.left == 0
		return p[:n], nil, n, nil
	}
	length, n, isDone, err := b.scanner.Scan(p, nil)
	if err != nil {
		return nil, nil, 0, err
	}
	b.isDone = isDone
	if isDone && len(b.scanner.Trailers) > 0 {
		end = appendTrailers(trailer, b.scanner.Trailers, true)
	}
	return p[:length], end, n, nil
}

// collectBody reads a body into Exchange.Body. It may result in an event.
func (c *clientConn) collectBody() (Event, bool) {
	c.state = collecting
	b, x, reads := &c.body, &c.x, 0
	for !b.isDone {
		if len(x.Body) == cap(x.Body) {
			if b.wasFull {
				return 0, false // until it is woken
			}
			b.wasFull, b.hasGrown = true, false
			return BodyArrived, true
		}
		b.wasFull = false
		if len(c.rest) == 0 && c.IsReadable {
			if reads++; reads > maxReads { // others have their turn
				c.Again()
				return 0, false
			}
		}
		n, err := c.collectPiece()
		switch {
		case err == nil && n > 0:
			b.hasGrown = true
		case err == nil && b.hasGrown:
			b.hasGrown = false
			return BodyArrived, true
		case err == nil:
			c.worker.loop.Set(&c.timer, c.worker.limits.StallTimeout)
			return 0, false
		case errors.Is(err, errLost):
			c.cut(ClientLeft)
			return 0, false
		default:
			return c.refuseBody(err)
		}
	}
	b.isCollected = true
	c.state = waiting
	c.limitClient()
	return BodyComplete, true
}

// errLost says that the client's connection has ended.
var errLost = errors.New("the client closed its connection")

// refuseBody is for a body that is not valid, or that does not arrive.
func (c *clientConn) refuseBody(err error) (Event, bool) {
	c.x.Failure = err
	c.willClose = true
	c.state = waiting
	return BadBody, true
}

// collectPiece reads once, and returns how many bytes that were; 0: nothing has arrived.
func (c *clientConn) collectPiece() (int, error) {
	b, x := &c.body, &c.x
	if !b.isChunked && len(c.rest) == 0 {
		room := x.Body[len(x.Body):min(int64(cap(x.Body)), int64(len(x.Body))+b.left)]
		n, err := c.read(room)
		x.Body = x.Body[:len(x.Body)+n]
		b.left -= int64(n)
		b.isDone = b.left == 0
		return n, err
	}
	if len(c.rest) == 0 {
		room := c.worker.input[frameRoom : frameRoom+maxHeadRead]
		n, err := c.read(room)
		if n == 0 || err != nil {
			return 0, err
		}
		c.keepMore(room[:n])
	}
	p := c.rest[:min(len(c.rest), cap(x.Body)-len(x.Body))]
	if !b.isChunked {
		pass, _, n, _ := b.frame(p, nil) // only chunks can be wrong
		x.Body = append(x.Body, pass...)
		c.rest = c.rest[n:]
		return n, nil
	}
	data, n, isDone, err := b.scanner.Next(p)
	if err != nil {
		return 0, err
	}
	b.isDone = isDone
	x.Body = append(x.Body, data...)
	c.rest = c.rest[n:]
	return n, nil
}

// read reads what has arrived; 0 without an error means nothing.
func (c *clientConn) read(room []byte) (int, error) {
	if !c.IsReadable {
		return 0, nil
	}
	n, err := c.Read(room)
	if err != nil {
		return 0, errLost
	}
	return n, nil
}

// wholeBody returns the body if all of it is in memory.
func (c *clientConn) wholeBody() (body []byte, isWhole bool) {
	b := &c.body
	switch {
	case b.isCollected:
		return c.x.Body, true
	case b.whole != nil:
		return b.whole, true
	case b.isDone && !c.x.IsBodySent:
		return nil, true
	case !b.isChunked && b.left > 0 && b.left == c.x.Request.Length && int64(len(c.rest)) >= b.left:
		b.whole, c.rest = c.rest[:b.left], c.rest[b.left:]
		b.left, b.isDone = 0, true
		return b.whole, true
	}
	return nil, false
}

// passBody sends on what has arrived of a body.
func (c *clientConn) passBody() {
	w := c.worker
	for range maxReads {
		r := c.replica
		if r == nil || c.body.isDone || r.out.isPending() || r.writeError != nil {
			break
		}
		p := c.rest[:min(len(c.rest), readSize)]
		if len(p) == 0 {
			if !c.IsReadable {
				break
			}
			room := w.input[frameRoom : frameRoom+readSize]
			n, err := c.Read(room)
			if err != nil {
				c.cut(ClientLeft)
				return
			}
			p = room[:n]
		}
		pass, end, n, err := c.body.frame(p, w.extra[:0])
		if err != nil {
			c.failBody(err)
			return
		}
		hasRest := len(c.rest) > 0
		if hasRest {
			c.rest = c.rest[n:]
		} else {
			c.keepMore(p[n:])
		}
		if len(pass) > 0 {
			c.x.IsBodySent = true
			r.write(pass)
		}
		if hasRest && len(c.rest) == 0 {
			c.rest, c.body.held = nil, nil
		}
		if len(end) > 0 {
			r.write(end)
		}
	}
	c.limitBody()
}

// limitBody sets the limits of time for a body that is passed on, and goes on with it soon if more has arrived.
func (c *clientConn) limitBody() {
	w, r := c.worker, c.replica
	switch {
	case r == nil:
		return
	case r.writeError != nil:
	case r.out.isPending() || c.body.isDone:
		r.limitResponse()
	default:
		if !c.response.hasBegun {
			w.loop.Clear(&r.timer)
		}
		if c.IsReadable || len(c.rest) > 0 {
			c.Again()
		}
	}
	c.limitClient()
}

// failBody is for a body that turns out to be wrong, or does not arrive, after a replica got its beginning.
func (c *clientConn) failBody(err error) {
	if c.response.hasBegun {
		c.cut(BodyFailed)
		return
	}
	c.leaveReplica()
	if e, isEvent := c.refuseBody(err); isEvent {
		c.proceed(e)
	}
}

// discard reads the rest of a body that nobody wants.
func (c *clientConn) discard() {
	w := c.worker
	for range maxReads {
		p := c.rest
		if len(p) == 0 {
			if !c.IsReadable {
				return
			}
			room := w.input[frameRoom : frameRoom+readSize]
			n, err := c.Read(room)
			if err != nil {
				c.close()
				return
			}
			p = room[:n]
		}
		_, _, n, err := c.body.frame(p, nil)
		if err != nil {
			c.close()
			return
		}
		if len(c.rest) > 0 {
			c.rest = c.rest[n:]
		} else {
			c.keepMore(p[n:])
		}
		if c.body.isDone {
			c.waitForRequest()
			return
		}
	}
	c.Again()
}

// isEnd reports whether a read ended because the other side closed the connection properly.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
