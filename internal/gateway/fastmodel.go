package gateway

import (
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/relay"
)

// fastModel is what a fastRequest knows of a call to a model.
type fastModel struct{}

func (m *fastModel) reset() { *m = fastModel{} }

// heldBytes is how much memory the body takes while the request waits.
func (m *fastModel) heldBytes() int64 { return 0 }

// beginModel begins a call to the models of a project, after identify and readFields: nothing of it is counted yet.
func (f *fastRequest) beginModel() relay.Step { return relay.HandOver }

// readModel goes on after relay.ReadBody.
func (f *fastRequest) readModel(relay.Event) relay.Step { return relay.Cut }

// isBodyRead reports whether the body is in memory.
func (f *fastRequest) isBodyRead() bool { return false }

// reauthorize repeats the authorization by another view, while the request waits: see authorizeAgain. It reads nothing of the
// exchange.
func (f *fastRequest) reauthorize(v *view) bool { return f.authorizeAgain(v, time.Now()) }

// beginWaiting is called when the request begins to wait for a replica.
func (f *fastRequest) beginWaiting() {}

// isConverted reports whether the replicas of a route need other calls than the client's.
func (f *fastRequest) isConverted(r *route.Route) bool {
	return f.conn.destination.Models && r.Format == "tgi"
}

// modelTarget is the target of a call at a replica of the route.
func (f *fastRequest) modelTarget(*route.Route) []byte { return nil }

// nextModelTime is when passModelTime is due; zero: never.
func (f *fastRequest) nextModelTime() time.Time { return time.Time{} }

// passModelTime sends a comment or a newline to a client that waits.
func (f *fastRequest) passModelTime() {}

// respondModel goes on with rewriteResponse for a call to a model. It may append to responseExtra.
func (f *fastRequest) respondModel() {}

// failModel ends a response that comments or newlines have begun with an error, by x.Reply. It reports whether they have.
func (f *fastRequest) failModel(*responseError) bool { return false }

// finishModel releases the memory of the body, and counts the call; release has not been called yet, or fail has called it.
func (f *fastRequest) finishModel() {}
