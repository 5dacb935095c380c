package relay

import (
	"cmp"
	"errors"
	"time"

	"dstack/internal/eventloop"
	"dstack/internal/httpwire"
)

// replicaConn is a connection to a replica. It is used by the goroutine of its worker only.
type replicaConn struct {
	eventloop.Socket
	worker *worker
	pool   *replicaPool
	client *clientConn // whose exchange it serves; nil: it is at rest, or is being opened
	timer  eventloop.Timer
	out    output
	uses   int

	isOpening  bool
	place      Opening // nil: it was given back, or there are no Openings
	isProving  bool    // it is not known yet whether the replica's system has the connection
	ackedBytes uint64
	proofWait  time.Duration
	usedAt     time.Time

	hasWritten bool  // a part of the request
	writeError error // the request cannot be sent further; a response may have arrived before
	hasBegun   bool  // the response has
	isHeadDone bool  // of the response
	closeAfter bool
	isChunked  bool
	isToClose  bool   // the body ends with the connection
	left       int64  // of the body
	partial    []byte // of a head
	scanner    httpwire.ChunkScanner
}

// Times of connections that are new.
const (
	firstProof = 2 * time.Millisecond
	// lateReadTimeout is how long the next piece of a response is waited for once the rest of the request cannot be sent.
	lateReadTimeout = 5 * time.Second
)

// Why a response is of no use.
var (
	errSwitched = errors.New("the replica switched to another protocol, which was not asked for")
	errSkipped  = errors.New("the replica sends too many informational responses")
	errTimedOut = errors.New("the replica did not respond in time")
)

// Ready handles the events of the socket.
func (r *replicaConn) Ready() {
	switch {
	case r.isOpening:
		if r.IsWritable || r.HasFailed {
			r.finishOpening()
		}
		return
	case r.client == nil:
		if r.IsReadable { // its end, or bytes that nobody asked for
			r.pool.removeKept(r)
			r.close()
		}
		return
	case r.out.isPending() && r.IsWritable && r.writeError == nil:
		r.flush()
	}
	r.readResponse()
}

// finishOpening is called when the attempt to open the connection has ended.
func (r *replicaConn) finishOpening() {
	if err := r.ConnectError(); err != nil {
		r.endOpening(Refused, err)
		return
	}
	r.isOpening, r.isProving = false, true
	p := r.pool
	p.endAttempt(r)
	r.worker.loop.Clear(&r.timer)
	if r.place != nil {
		r.place.Connected()
	}
	if p.first == nil {
		r.leavePlace(Unused)
	}
	p.put(r)
}

// endOpening ends an attempt without success. The exchange that waits longest learns of a refusal; an attempt that hangs is
// made anew.
func (r *replicaConn) endOpening(result OpeningResult, err error) {
	p := r.pool
	p.endAttempt(r)
	r.leavePlace(result)
	r.close()
	if result == Refused {
		if c := p.takeWaiter(); c != nil {
			c.connectFailed(err)
		}
	}
	p.openMore()
	p.forgetUnused()
}

func (r *replicaConn) leavePlace(result OpeningResult) {
	if place := r.place; place != nil {
		r.place = nil
		place.Leave(result)
	}
}

// beginUse prepares for an exchange.
func (r *replicaConn) beginUse() {
	r.uses++
	r.hasWritten, r.hasBegun, r.isHeadDone, r.closeAfter = false, false, false, false
	if r.isProving {
		r.ackedBytes, _ = r.AckedBytes()
		r.proofWait, r.usedAt = firstProof, r.worker.loop.Now()
	}
}

// write sends a part of the request. An error is looked at later, after what the replica has sent.
func (r *replicaConn) write(p []byte) {
	if r.writeError != nil {
		return
	}
	if err := r.out.send(&r.Socket, &r.worker.memory, p); err != nil {
		r.failWrite(err)
		return
	}
	r.hasWritten = true
}

// writeWithBody sends a whole request.
func (r *replicaConn) writeWithBody(head, body []byte) {
	if err := r.out.sendTwo(&r.Socket, &r.worker.memory, head, body); err != nil {
		r.failWrite(err)
		return
	}
	r.hasWritten = true
}

// flush sends what waits of the request.
func (r *replicaConn) flush() {
	sent, err := r.out.flush(&r.Socket, &r.worker.memory)
	switch {
	case err != nil:
		r.failWrite(err)
	case r.out.isPending():
		if sent > 0 {
			r.limitResponse()
		}
	case !r.client.body.isDone:
		r.client.passBody()
	default:
		r.limitResponse()
	}
}

// failWrite is called when the rest of a request cannot be sent: the replica may have responded already.
func (r *replicaConn) failWrite(err error) {
	r.writeError = err
	r.out.release(&r.worker.memory)
	r.IsReadable = true
	r.Again()
	r.worker.loop.Set(&r.timer, lateReadTimeout)
}

// limitResponse limits the time until the response begins, or the replica reads on.
func (r *replicaConn) limitResponse() {
	switch {
	case r.isHeadDone && !r.out.isPending():
		r.worker.loop.Clear(&r.timer)
	case r.isProving && !r.isHeadDone:
		r.worker.loop.Set(&r.timer, r.proofWait)
	default:
		r.worker.loop.Set(&r.timer, r.worker.limits.ResponseTimeout)
	}
}

// Expire is called when something took too long.
func (r *replicaConn) Expire(*eventloop.Timer) {
	switch c := r.client; {
	case r.isOpening:
		r.endOpening(Hung, errHung)
	case c == nil:
		r.pool.removeKept(r)
		r.close()
	case r.isProving && !r.isHeadDone:
		r.prove()
	case r.isHeadDone && r.writeError == nil:
		r.failWrite(errTimedOut)
	case r.isHeadDone && c.out.isPending(): // the client is slow, not the replica
		r.worker.loop.Set(&r.timer, lateReadTimeout)
	case r.isHeadDone:
		r.breakOff(r.writeError)
	case r.writeError != nil:
		r.failBefore(BrokenBefore, r.writeError)
	default:
		r.failBefore(TimedOut, errTimedOut)
	}
}

// prove finds out whether the replica's system has taken the connection: a full listen queue makes Linux drop what the client
// sends, without a word. A connection of which nothing was taken is given up, and the request is sent over another one.
func (r *replicaConn) prove() {
	acked, _ := r.AckedBytes()
	waited := r.worker.loop.Now().Sub(r.usedAt)
	switch {
	case acked > r.ackedBytes:
		r.setProved()
		r.worker.loop.Set(&r.timer, r.worker.limits.ResponseTimeout-waited)
	case waited < r.worker.limits.ConnectTimeout:
		r.proofWait = min(4*r.proofWait, r.worker.limits.ConnectTimeout-waited)
		r.worker.loop.Set(&r.timer, max(r.proofWait, time.Millisecond))
	case r.client.x.IsBodySent:
		r.isProving = false
		r.leavePlace(Hung)
		r.worker.loop.Set(&r.timer, r.worker.limits.ResponseTimeout-waited)
	default:
		r.leavePlace(Hung)
		c, p := r.client, r.pool
		c.replica, r.client = nil, nil
		r.Reset()
		r.close()
		c.state = connecting
		p.addWaiter(c)
	}
}

// openingResult says how an attempt ended whose connection was given up.
func (r *replicaConn) openingResult() OpeningResult {
	if r.place == nil {
		return Unused
	}
	if acked, _ := r.AckedBytes(); r.uses == 0 || acked > r.ackedBytes {
		return Opened // the replica's system has taken the connection
	}
	return Hung
}

// setProved notes that the replica has the connection.
func (r *replicaConn) setProved() {
	r.isProving = false
	r.pool.succeededAt = r.worker.loop.Now()
	r.leavePlace(Opened)
}

// readFailed is called at the end of the connection.
func (r *replicaConn) readFailed(err error) {
	c := r.client
	switch {
	case r.isHeadDone && c.x.Withhold:
		if r.isToClose && isEnd(err) {
			err = nil
		}
		r.endWithheld(err)
	case r.isHeadDone && r.isToClose && isEnd(err):
		if c.response.inChunks && !c.write([]byte(httpwire.LastChunk)) {
			return
		}
		r.endResponse(false)
	case r.isHeadDone:
		c.cut(ReplicaBroke)
	case r.hasBegun:
		r.failBefore(BadResponse, err)
	default:
		r.failBefore(BrokenBefore, cmp.Or(r.writeError, err))
	}
}

// failBefore gives a connection up before the head of the response.
func (r *replicaConn) failBefore(e Event, err error) {
	c := r.client
	canResend := e == BrokenBefore && c.canResend(r)
	r.leavePlace(r.openingResult())
	c.leaveReplica()
	c.worker.loop.Clear(&c.timer)
	if !canResend {
		c.replicaFailed(e, err)
		return
	}
	if e, isEvent := c.sendRequest(); isEvent {
		c.proceed(e)
	}
}

// abandon closes the connection after a panic, whatever it is used for.
func (r *replicaConn) abandon() {
	if p := r.pool; p != nil {
		p.removeKept(r)
		p.endAttempt(r)
		r.close()
	}
}

// close closes the connection.
func (r *replicaConn) close() {
	if r.pool == nil {
		return
	}
	r.leavePlace(r.openingResult())
	r.Close()
	r.out.release(&r.worker.memory)
	r.worker.memory.give(r.partial)
	r.partial = nil
	r.worker.loop.Remove(&r.timer)
	p := r.pool
	r.pool = nil
	p.open--
	p.forgetUnused()
}
