package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"dstack/internal/httpwire"
	"dstack/internal/relay"
)

// replicaCall is a request that is sent whole: without a body, or with one in memory.
type replicaCall struct {
	address string
	method  string
	message []byte // the head and the body
	// isReplayable says that HTTP allows to send the request twice.
	isReplayable bool
	// repeatsKept says that the request is sent again where a kept connection breaks before the response begins.
	repeatsKept   bool
	informational func(status int, h http.Header) // gets responses before the final one; nil: they are dropped
	repeated      func(err error)                 // is called before the request is sent again
}

// maxSkipped is how many responses are read until the final one; the others are informational.
const maxSkipped = 1000

// send sends a call to its replica, over a kept connection if there is one. Its error is a dialError where the replica got
// nothing, a brokenError where the call may be sent to another replica, or says what is wrong with the response.
func (p *replicaPool) send(ctx context.Context, call *replicaCall) (*http.Response, error) {
	began := time.Now()
	for {
		conn, err := p.get(ctx, call.address)
		if err != nil {
			return nil, err
		}
		exchange := &replicaExchange{ctx: ctx, conn: conn, call: call, stop: conn.watch(ctx)}
		res, err := exchange.begin()
		if err == nil {
			return res, nil
		}
		exchange.stop()
		_, isUnaccepted := errors.AsType[*unacceptedError](err)
		if isUnaccepted {
			conn.leaveOpening(relay.Hung)
		}
		conn.close()
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case isUnaccepted && time.Since(began) < p.dialer.limits.ConnectTimeout:
		case isUnaccepted:
			return nil, &dialError{err}
		case isTimeout(err) || exchange.hasBegun:
			return nil, err
		case conn.isKept && (call.repeatsKept || exchange.written == 0):
			call.repeated(err)
		case call.isReplayable:
			return nil, &brokenError{err}
		default:
			return nil, err
		}
	}
}

// replicaExchange is one request over a connection, and its response.
type replicaExchange struct {
	ctx      context.Context
	conn     *keptConn
	call     *replicaCall
	stop     func() bool // ends the watch of the request's context
	written  int
	hasBegun bool // the first byte of a response has arrived
	head     httpwire.ResponseHead
	deadline time.Time // for the head of the response
}

// begin sends the request and reads the head of the response.
func (x *replicaExchange) begin() (*http.Response, error) {
	limits := &x.conn.pool.dialer.limits
	x.deadline = time.Now().Add(limits.ResponseTimeout)
	if err := errors.Join(x.conn.SetDeadline(x.deadline), x.ctx.Err()); err != nil {
		return nil, err
	}
	var writeError error
	if x.written, writeError = x.conn.Write(x.call.message); writeError != nil && x.written == 0 {
		return nil, writeError
	}
	if writeError != nil { // the replica may have responded before
		if err := x.limitHead(time.Now().Add(lateReadTimeout)); err != nil {
			return nil, err
		}
	}
	for range maxSkipped {
		if err := x.readHead(); err != nil {
			if writeError != nil && !x.hasBegun {
				err = writeError
			}
			return nil, err
		}
		if x.head.Status == http.StatusSwitchingProtocols {
			return nil, errors.New("the replica switches protocols, which it was not asked for")
		}
		if x.head.Status >= http.StatusOK {
			return x.response(writeError != nil)
		}
		if x.call.informational != nil {
			x.call.informational(x.head.Status, x.header())
		}
		x.conn.begin += x.head.Size
	}
	return nil, errors.New("the replica sends too many informational responses")
}

// readHead reads until the head of a response is complete.
func (x *replicaExchange) readHead() error {
	method, seen := []byte(x.call.method), 0
	for {
		if b := x.conn.unread(); len(b) > seen && httpwire.HasHeadEnd(b, seen) {
			n, err := x.head.Parse(b, method)
			if n > 0 || err != nil {
				return err
			}
			seen = len(b)
		}
		if err := x.fill(); err != nil {
			return err
		}
		if !x.hasBegun {
			x.hasBegun = true
			x.conn.leaveOpening(relay.Opened)
		}
	}
}

// limitHead sets when the head of the response must be there. That an ended context has set an earlier deadline is not undone.
func (x *replicaExchange) limitHead(deadline time.Time) error {
	x.deadline = deadline
	return errors.Join(x.conn.SetReadDeadline(deadline), x.ctx.Err())
}

// fill waits for the next bytes of a head. Where a new connection is in no listen queue of its replica, it gives up after
// a while if the request may be sent again.
func (x *replicaExchange) fill() error {
	if x.conn.place == nil || !x.call.isReplayable {
		return eofIsUnexpected(x.conn.fill())
	}
	deadline := x.deadline
	if err := x.limitHead(time.Now().Add(openingTimeout)); err != nil {
		return err
	}
	err := x.conn.fill()
	if failed := x.limitHead(deadline); failed != nil {
		return failed
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return eofIsUnexpected(err)
	}
	if x.written > 0 && unacknowledged(x.conn.raw) >= x.written {
		return &unacceptedError{}
	}
	x.conn.leaveOpening(relay.Opened)
	return eofIsUnexpected(x.conn.fill())
}

func eofIsUnexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// header returns the fields that are passed on.
func (x *replicaExchange) header() http.Header {
	h := make(http.Header, len(x.head.Fields)+2)
	values := make([]string, len(x.head.Fields)) // one allocation for all of them
	for i := range x.head.Fields {
		field := &x.head.Fields[i]
		if field.Drop {
			continue
		}
		name := canonicalName(field.Name)
		if known := h[name]; known != nil {
			h[name] = append(known, string(field.Value))
			continue
		}
		values[i] = string(field.Value)
		h[name] = values[i : i+1 : i+1]
	}
	return h
}

// response returns the final response, whose body is read from the connection.
func (x *replicaExchange) response(mustClose bool) (*http.Response, error) {
	h := &x.head
	res := &http.Response{StatusCode: h.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: x.header(), ContentLength: h.Length}
	body := &replicaBody{ctx: x.ctx, conn: x.conn, stop: x.stop, left: h.Length, mustClose: h.CloseAfter || mustClose, response: res}
	switch {
	case h.IsBodiless:
		body.left = 0
	case h.Length < 0:
		res.ContentLength = -1
		res.Trailer = x.announcedTrailer()
	default:
		res.Header["Content-Length"] = []string{strconv.FormatInt(h.Length, 10)}
	}
	x.conn.begin += h.Size
	res.Body = body
	if body.left == 0 {
		body.finish()
	}
	return res, nil
}
