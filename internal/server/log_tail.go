package server

import (
	"context"
	"time"
)

// applyTail skips all but the last lines of each replica, as the request asks for: those of its
// last attempt, and if they are fewer than wanted those of the attempts before.
func (f *logStream) applyTail(ctx context.Context, sources []attemptSource) error {
	if f.request.Tail == nil {
		return nil
	}
	if newest := f.findNewestReceived(); !newest.IsZero() { // the client continues after a broken connection
		for _, src := range sources {
			if _, received := f.request.After[src.key.Attempt]; !received {
				f.sent[src.key.Attempt] = newest
			}
		}
		return nil
	}
	for _, chain := range groupByReplica(sources) {
		left := *f.request.Tail
		for i := len(chain) - 1; i >= 0; i-- {
			id := chain[i].key.Attempt
			if left == 0 && i < len(chain)-1 {
				f.sent[id] = skipAttempt
				continue
			}
			start, found, err := f.server.output.FindTail(ctx, chain[i].key, f.findResumeTime(id), time.Time{}, left)
			if err != nil {
				return err
			}
			f.sent[id] = start
			left -= found
		}
	}
	return nil
}

// findNewestReceived returns the time of the latest line that the client has received, zero if
// it has none.
func (f *logStream) findNewestReceived() time.Time {
	var newest time.Time
	for _, at := range f.request.After {
		if at.After(newest) {
			newest = at
		}
	}
	return newest
}
