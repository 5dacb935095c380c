package gateway

import (
	"container/list"
	"sync"
	"time"

	"dstack/internal/spec"
)

// signInLimit is how many wrong tokens one client may try: ten, and then one
// every six seconds.
var signInLimit = spec.RateLimit{Key: spec.RateLimitKey{Type: "ip_address"}, RPS: 10.0 / 60, Burst: 9}

// signInLimiter counts attempts to sign in by client, for all runs together.
type signInLimiter struct {
	mu       sync.Mutex
	attempts runBuckets
}

func newSignInLimiter() *signInLimiter {
	return &signInLimiter{attempts: runBuckets{buckets: map[bucketKey]*list.Element{}}}
}

// take counts an attempt, or returns how long until the client has another.
func (l *signInLimiter) take(caller callerKey, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempts.take(bucketKey{&signInLimit, caller}, now)
}

// giveBack takes back that an attempt was counted: its token was right.
func (l *signInLimiter) giveBack(caller callerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.attempts.buckets[bucketKey{&signInLimit, caller}]; e != nil {
		one := e.Value.(*bucket)
		one.tokens = min(one.size(), one.tokens+1)
	}
}
