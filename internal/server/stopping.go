package server

import "context"

type stoppingKey struct{}

// WithStopping returns a context for requests to the API. Calls that wait for a change or follow logs end once stopping
// ends; the others are completed.
func WithStopping(ctx, stopping context.Context) context.Context {
	return context.WithValue(ctx, stoppingKey{}, stopping)
}

// endWhenStopping makes the context of a call end when the server begins to stop. Call release at the end of the call.
func (c *apiCall) endWhenStopping() (release func()) {
	stopping, ok := c.ctx.Value(stoppingKey{}).(context.Context)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	stop := context.AfterFunc(stopping, cancel)
	c.ctx = ctx
	return func() {
		stop()
		cancel()
	}
}
