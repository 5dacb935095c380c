package relay

import (
	"net/netip"
	"time"

	"dstack/internal/httpwire"
)

// Exchange is one request and its response. The director sets what is said to be its own.
type Exchange struct {
	Request       httpwire.RequestHead  // of the client; valid until the exchange ends: while it waits, the relay keeps a copy
	Response      httpwire.ResponseHead // of the replica, during Director.Respond
	Client, Local netip.AddrPort        // the two ends of the client's connection
	StartedAt     time.Time             // when the head was complete
	FirstByteAt   time.Time             // when the first byte of the response's body arrived, or of its head where it has no body
	Status        int                   // of the response that the client gets; 0: none was begun
	Sent          int64                 // bytes of the response's body, without framing
	Outcome       Outcome               // during Director.End
	Failure       error                 // during Next with an event that is a failure
	IsBodySent    bool                  // a part of a body that was not collected was sent: Send is not possible any more

	// The director's own: how the request is sent.
	Replica      string // address, host:port with an IP address as host
	Target       []byte // of the request line; nil: as the client sent it
	Extra        []byte // more fields for the replica, each with its line end
	IsReplayable bool   // the request may be sent again over another connection of the same replica where a kept one breaks
	// Body is what ReadBody collects: the relay appends up to its capacity, and asks with BodyArrived for more room when it is
	// full, and whenever something arrived. The memory is the director's, also after the end.
	Body []byte
	// Hold is how many bytes of a body that was not collected the relay may read while the exchange waits: the end of a client that
	// leaves comes behind its body. 0: none. Once they are read and more have arrived, Next is called with BodyHeld, which may raise
	// it.
	Hold int64

	// The director's own: how the response is passed on.
	ResponseExtra []byte  // more fields for the client, each with its line end
	Watcher       Watcher // nil: nobody watches the body
	// Withhold is set by Respond for a response that goes on after WriteFirst: nothing of it is passed on, but the Watcher sees the
	// body and may unset this: then the rest is passed on, the piece that it sees included. If the response ends before, Next is
	// called with Withheld; without a Watcher it is at once.
	Withhold        bool
	NoInformational bool // informational responses of the replica are not passed on
	CloseClient     bool // the client's connection is closed after the response

	Reply []byte // for the step Reply: a whole response, head and body; after WriteFirst more body, without framing
	State any    // what the director knows of the exchange; kept from one exchange of a connection to the next, to be used again
	Memo  any    // what the director knows of the client's connection

	conn *clientConn
}

// Handle names an exchange beyond the calls of a director. All of its methods may be called by any goroutine at any time; they
// do nothing once the exchange has ended.
type Handle struct {
	conn       *clientConn
	generation uint64
}

// Handle returns the handle of an exchange. That of one without a connection, which only tests make, does nothing.
func (x *Exchange) Handle() Handle {
	if x.conn == nil {
		return Handle{}
	}
	return Handle{x.conn, x.conn.generation}
}

// Wake makes the loop call Next with Woken. While a response is being sent, the step is Cut or Wait.
func (h Handle) Wake() { h.send(messageWake) }

// Cut ends the exchange as the step Cut does; Next and Respond are not called any more.
func (h Handle) Cut() { h.send(messageCut) }

// WakeAt makes the loop call Next with TimePassed at a time, once, while the exchange waits or its replica has not begun to
// respond. It replaces the time that was set before; the zero time means never.
func (x *Exchange) WakeAt(at time.Time) {
	loop, timer := x.conn.worker.loop, &x.conn.wakeTimer
	if at.IsZero() {
		loop.Clear(timer)
		return
	}
	loop.SetAt(timer, at)
}

// WriteFirst begins the response before the replica does: head is a whole head without framing fields (the relay adds
// Transfer-Encoding: chunked, or closes the connection after an HTTP/1.0 request), body is its first piece. Called again, it sends
// another piece; head is nil then. Only during Next.
func (x *Exchange) WriteFirst(head, body []byte) { x.conn.writeFirst(head, body) }

// reset forgets the last exchange of the connection.
func (x *Exchange) reset() {
	*x = Exchange{Request: x.Request, Client: x.Client, Local: x.Local, State: x.State, Memo: x.Memo, conn: x.conn}
}

func (h Handle) send(kind uint64) {
	if h.conn != nil {
		h.conn.worker.loop.Send(h.conn, h.generation*messageKinds+kind)
	}
}

// ask asks the director.
func (c *clientConn) ask(e Event) Step {
	c.worker.asks = c
	step := c.worker.relay.options.Director.Next(&c.x, e)
	c.worker.asks = nil
	return step
}
