package gatewaylink

import (
	"context"
	"time"
)

// defaultOffline is for how long tokens are accepted without word from a server, if the server does not say.
const defaultOffline = 24 * time.Hour

// isOfflineTooLong reports whether tokens are not accepted any more. l.mu is held.
func (l *Link) isOfflineTooLong(now time.Time) bool {
	return l.state != nil && !now.Before(l.offlineEnd())
}

// offlineEnd returns when tokens end unless a server answers. l.mu is held.
func (l *Link) offlineEnd() time.Time {
	limit := time.Duration(l.state.settings.OfflineSeconds) * time.Second
	if limit <= 0 {
		limit = defaultOffline
	}
	return l.seenAt.Add(limit)
}

const maxOfflineCheck = time.Minute

// watchOfflineBound ends the tokens and keys for callers of a state that no server has confirmed for too long: they may be
// revoked. Public services go on.
func (l *Link) watchOfflineBound(ctx context.Context) error {
	for {
		changed := l.changed.Changed()
		l.mu.Lock()
		wait := maxOfflineCheck
		if l.state != nil && !l.hasEnded {
			wait = min(time.Until(l.offlineEnd()), maxOfflineCheck)
		}
		isDue := l.state != nil && !l.hasEnded && !l.isRemoved && wait <= 0
		state, seenAt := l.state, l.seenAt
		l.mu.Unlock()
		if isDue {
			l.log.Error("no server has answered for too long: tokens and keys are not accepted any more", "last_answer", seenAt)
			l.setState(state, seenAt)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
