package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"dstack/internal/relay"
)

// wake goes on after Handle.Wake: the wait for a replica is over, or the request's key has ended.
func (f *fastRequest) wake() relay.Step {
	switch {
	case f.keyEnded.Load():
		return f.stopByKey()
	case f.acquirer.isWaiting:
		return f.acquirer.wake()
	case f.model.isAsking:
		f.model.isAsking = false
		return f.send()
	}
	return relay.Wait // late: a deadline has ended the wait
}

// stopByKey ends the request because its key has ended. Nothing shows the client why once the response has begun.
func (f *fastRequest) stopByKey() relay.Step {
	f.acquirer.stopWaiting()
	if f.x.Status != 0 {
		return relay.Cut
	}
	return f.fail(newKeyEndedError())
}

// passTime goes on at the time of nextTime.
func (f *fastRequest) passTime() relay.Step {
	if f.model.isCall && !f.model.body.isRead {
		return f.passBodyTime()
	}
	if f.acquirer.isWaiting && !time.Now().Before(f.acquirer.deadline) {
		if next := f.nextModelTime(); !next.IsZero() && next.Before(f.acquirer.deadline) {
			f.passModelTime() // it is late
		}
		return f.acquirer.passDeadline()
	}
	f.passModelTime()
	f.x.WakeAt(f.nextTime())
	return relay.Wait
}

// nextTime is when passTime has something to do; zero: never.
func (f *fastRequest) nextTime() time.Time {
	next := f.nextModelTime()
	if a := &f.acquirer; a.isWaiting && (next.IsZero() || a.deadline.Before(next)) {
		next = a.deadline
	}
	return next
}

// leaveRefused leaves a replica that accepts no connection, and so got nothing of the request, for another one, or
// waits for one.
func (f *fastRequest) leaveRefused() relay.Step {
	f.logReplica("replica refuses connections", f.x.Failure)
	a := &f.acquirer
	if a.retries.refusedSince.IsZero() {
		a.retries.refusedSince = time.Now()
	}
	a.retries.lastErr = f.x.Failure
	a.leaveFailed()
	if f.x.IsBodySent {
		return f.fail(f.newReplicaError(relay.ConnectFailed, f.x.Failure))
	}
	return a.acquire()
}

// leaveBroken moves a request whose connection broke to another replica that is ready, if HTTP allows to send it again.
func (f *fastRequest) leaveBroken() relay.Step {
	a, failure := &f.acquirer, f.x.Failure
	if !f.replays {
		return f.failAtReplica(relay.BrokenBefore)
	}
	if a.retries.resends++; a.retries.resends > maxResends {
		return f.failAtReplica(relay.BrokenBefore)
	}
	f.logReplica("replica breaks connections", failure)
	a.leaveFailed()
	if !a.tryAcquire() || a.handsOver {
		return f.fail(f.newReplicaError(relay.BrokenBefore, failure))
	}
	return a.conclude()
}

// failAtReplica answers with the error of a replica that did not answer.
func (f *fastRequest) failAtReplica(e relay.Event) relay.Step {
	return f.fail(f.newReplicaError(e, f.x.Failure))
}

// newReplicaError returns the error of the latest replica, which did not answer, and logs it.
func (f *fastRequest) newReplicaError(e relay.Event, err error) *responseError {
	failure := responseFailed
	switch e {
	case relay.ConnectFailed:
		failure = connectFailed
	case relay.TimedOut:
		failure = responseLate
	default: // the response failed
	}
	return f.gateway.newReplicaError(f.acquirer.lastReplica, string(f.id), f.conn.destination.Project, failure, err)
}

// logReplica logs what went wrong between the gateway and the request's replica.
func (f *fastRequest) logReplica(message string, err error) {
	if r := f.acquirer.replica; r != nil && f.gateway.log.Enabled(context.Background(), slog.LevelDebug) {
		f.gateway.log.Debug(message, "id", string(f.id), "run", r.route.Name, "replica", r.target.Num, "err", err)
	}
}

// finish releases all that the request holds, and logs it, when all is sent or lost.
func (f *fastRequest) finish() {
	f.finishModel()
	f.release()
	f.recordCounts()
	f.gateway.fastServed.Add(1)
	f.logRequest()
	f.end()
}

// recordCounts counts the request at its run for Prometheus.
func (f *fastRequest) recordCounts() {
	a, status := &f.acquirer, f.status()
	if last := a.lastReplica; last != nil {
		end := time.Now()
		first := end
		if at := f.x.FirstByteAt; !at.IsZero() {
			first = at
		}
		last.counts.countResponse(status, first.Sub(f.x.StartedAt), end.Sub(f.x.StartedAt))
		return
	}
	r := cmp.Or(a.waitsFor, a.chosen)
	if r == nil && f.run != nil {
		r = f.run.route
	}
	if r == nil { // no model yet: names that callers make up are not counted
		return
	}
	if counts := f.gateway.loads.countsOf(r.Run); counts != nil {
		counts.countAnswer(status)
	}
}

// status is that of the response, for the log and the metrics.
func (f *fastRequest) status() int {
	if failed := f.model.wait.failed; failed != 0 {
		return failed
	}
	if f.x.Status == 0 {
		return statusClientClosed
	}
	return f.x.Status
}

// release gives back what the request holds. It may be repeated.
func (f *fastRequest) release() {
	f.acquirer.stopWaiting()
	f.acquirer.release()
	f.endKeyUse()
	f.endHold()
}

// logRequest logs the request without its body and query, which are private.
func (f *fastRequest) logRequest() {
	if !f.gateway.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	escaped, _, _ := strings.Cut(string(f.x.Request.Target), "?")
	path, _ := url.PathUnescape(escaped) // isPlain has checked it
	f.gateway.log.LogAttrs(context.Background(), slog.LevelDebug, "request",
		slog.String("id", string(f.id)), slog.String("from", f.client.AddressText()),
		slog.String("method", string(f.x.Request.Method)), slog.String("host", f.conn.host),
		slog.String("path", path), slog.Int("status", f.status()), slog.Int64("bytes", f.x.Sent),
		slog.Duration("took", time.Since(f.x.StartedAt)),
		slog.String("project", f.conn.destination.Project), slog.String("run", f.conn.destination.Run))
}
