package cli

import (
	"context"
	"iter"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// reconnectDelay is the time between two attempts to continue a stream.
const reconnectDelay = 300 * time.Millisecond

// maxReadSilence is how long logs without --follow waits for a server that
// cannot be reached.
const maxReadSilence = 2 * time.Second

// logReader reads the output of a run. It reconnects after the connection breaks,
// and continues with the line after the last one of each attempt.
type logReader struct {
	client     *api.Client
	project    string
	request    api.FollowLogs
	notify     func(string) // shows a message to the user
	retryDelay time.Duration
}

// entries yields the lines of output. An error is the last element.
func (l *logReader) entries(ctx context.Context) iter.Seq2[api.LogEntry, error] {
	return func(yield func(api.LogEntry, error) bool) {
		l.request.After = map[dstack.AttemptID]time.Time{}
		var silentSince time.Time
		for {
			received, stopped, err := l.readStream(ctx, yield)
			switch {
			case stopped:
				return
			case ctx.Err() != nil:
				yield(api.LogEntry{}, context.Cause(ctx))
				return
			case err == nil:
				var ended bool
				if ended, err = l.hasEnded(ctx); ended {
					return
				}
			}
			if received || err == nil {
				silentSince = time.Time{}
			}
			if err != nil && silentSince.IsZero() {
				silentSince = time.Now()
				if l.request.Follow && dstack.KindOf(err) == dstack.Unavailable {
					l.notify(err.Error() + "; trying again")
				}
			}
			if !l.mayRetry(err, silentSince) {
				yield(api.LogEntry{}, err)
				return
			}
			_ = loop.Sleep(ctx, l.retryDelay)
		}
	}
}

// readStream yields the new lines of one stream. received: there was at least one
// line. stopped: the consumer stopped.
func (l *logReader) readStream(
	ctx context.Context, yield func(api.LogEntry, error) bool,
) (received, stopped bool, err error) {
	seen := l.request.After
	for entry, err := range l.client.Follow(ctx, l.project, l.request) {
		if err != nil {
			return received, false, err
		}
		if entry.Error == "" {
			received = true
			if !entry.Timestamp.After(seen[entry.Attempt]) {
				continue
			}
			seen[entry.Attempt] = entry.Timestamp
		}
		if !yield(entry, nil) {
			return received, true, nil
		}
	}
	return received, false, nil
}

// hasEnded reports whether there is no further output to wait for.
func (l *logReader) hasEnded(ctx context.Context) (bool, error) {
	if !l.request.Follow {
		return true, nil
	}
	view, err := l.client.GetRunView(ctx, l.project, api.RunViewRequest{RunName: l.request.RunName})
	if dstack.KindOf(err) == dstack.NotFound {
		return true, nil // deleted in the meantime
	}
	return err == nil && view.Status.IsFinished(), err
}

// mayRetry reports whether another attempt may help.
func (l *logReader) mayRetry(err error, silentSince time.Time) bool {
	switch {
	case err == nil:
		return true // the server ended the stream, but the run goes on
	case dstack.KindOf(err) != dstack.Unavailable:
		return false
	case !l.request.Follow:
		return time.Since(silentSince) < maxReadSilence
	}
	return time.Since(silentSince) < maxServerSilence
}
