package server

import "context"

type stoppingKey struct{}

// Stopping says which calls end when a server stops. The others are completed.
type Stopping struct {
	Waits    context.Context // ends the calls that wait for a change or follow logs, which clients repeat
	Commands context.Context // ends the commands in replicas
}

// WithStopping returns a context for requests to the API.
func WithStopping(ctx context.Context, stopping Stopping) context.Context {
	return context.WithValue(ctx, stoppingKey{}, stopping)
}

// endWhenStopping makes the context of a call that waits end when the server begins to stop. Call release at the end of the
// call.
func (c *apiCall) endWhenStopping() (release func()) {
	stopping, _ := c.ctx.Value(stoppingKey{}).(Stopping)
	return c.endWith(stopping.Waits)
}

// endCommandWhenStopping is endWhenStopping for a call that runs a command.
func (c *apiCall) endCommandWhenStopping() (release func()) {
	stopping, _ := c.ctx.Value(stoppingKey{}).(Stopping)
	return c.endWith(stopping.Commands)
}

// endWith makes the context of a call end with another one; nil: it does not.
func (c *apiCall) endWith(stopping context.Context) (release func()) {
	if stopping == nil {
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
