package gateway

import "dstack/internal/relay"

// DirectorOptions configure the director of one listener.
type DirectorOptions struct {
	// Accepts reports whether a request may take the fast path at this listener; nil: every request may. It must not wait.
	Accepts func(host string, x *relay.Exchange) bool
	// IsLast reports that responses are the last ones of their connections from now on; nil: they are not.
	IsLast func() bool
	// Began is called for each request that takes the fast path, and Ended when it is over; nil: nobody counts them. They must
	// not wait.
	Began, Ended func()
}

// Director returns the policy of the fast path for one listener: what ServeHTTP does, for the requests that are plain; the
// table in docs/reference/data-plane.md says which are. All others are handed over before anything of them was counted.
func (g *Gateway) Director(o DirectorOptions) relay.Director {
	return &director{gateway: g, options: o}
}

// director decides about the exchanges of a relay. It has no state of its own: Exchange.State is a fastRequest.
type director struct {
	gateway *Gateway
	options DirectorOptions
}

var _ relay.Director = (*director)(nil)

// Next implements relay.Director.
func (d *director) Next(x *relay.Exchange, e relay.Event) relay.Step {
	f := d.requestOf(x)
	switch e {
	case relay.HeadArrived:
		if d.options.IsLast != nil && d.options.IsLast() {
			x.CloseClient = true
		}
		return f.begin()
	case relay.BodyArrived, relay.BodyComplete:
		return f.readModel(e)
	case relay.Woken:
		return f.wake()
	case relay.TimePassed:
		return f.passTime()
	case relay.ConnectFailed:
		return f.leaveRefused()
	case relay.BrokenBefore:
		return f.leaveBroken()
	case relay.TimedOut, relay.BadResponse:
		return f.failAtReplica(e)
	case relay.Withheld:
		return f.endWithheld()
	case relay.BodyHeld:
		return f.holdMore()
	case relay.BadBody:
		return f.fail(bodyError())
	default:
		return relay.Cut
	}
}

// requestOf returns the state of an exchange: the memory of one that has ended, if there is any.
func (d *director) requestOf(x *relay.Exchange) *fastRequest {
	if f, ok := x.State.(*fastRequest); ok {
		f.x = x
		return f
	}
	f, ok := d.gateway.fastRequests.Get().(*fastRequest)
	if !ok {
		f = newFastRequest(d.gateway)
	}
	x.State, f.director, f.x = f, d, x
	return f
}

// Respond implements relay.Director.
func (d *director) Respond(x *relay.Exchange) { d.requestOf(x).rewriteResponse() }

// End implements relay.Director.
func (d *director) End(x *relay.Exchange) {
	f := d.requestOf(x)
	f.finish()
	f.reset()
	x.State = nil
	d.gateway.fastRequests.Put(f)
}
