package relay

import "runtime/debug"

// nextStep asks the director. Where that panics, the exchange ends, and no other: so does net/http with its handlers.
func (c *clientConn) nextStep(e Event) (step Step) {
	defer func() {
		if p := recover(); p != nil {
			c.logPanic(p)
			step = Cut
		}
	}()
	return c.worker.relay.options.Director.Next(&c.x, e)
}

// rewriteResponse calls Director.Respond. It reports false if that panicked.
func (c *clientConn) rewriteResponse() (isDone bool) {
	defer func() {
		if p := recover(); p != nil {
			c.logPanic(p)
		}
	}()
	c.worker.relay.options.Director.Respond(&c.x)
	return true
}

// tellEnd calls Director.End.
func (c *clientConn) tellEnd() {
	defer func() {
		if p := recover(); p != nil {
			c.logPanic(p)
			c.x.State = nil
		}
	}()
	c.worker.relay.options.Director.End(&c.x)
}

// showPiece calls Watcher.Watch. A watcher that panicked sees no more.
func (c *clientConn) showPiece(piece []byte) {
	defer func() {
		if p := recover(); p != nil {
			c.logPanic(p)
			c.x.Watcher = nil
		}
	}()
	c.x.Watcher.Watch(piece)
}

func (c *clientConn) logPanic(p any) {
	c.worker.relay.options.Log.Error("a request ended with a panic", "client", c.x.Client, "panic", p, "stack", string(debug.Stack()))
}
