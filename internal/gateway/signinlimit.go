package gateway

import (
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
	attempts *bucketSet
}

func newSignInLimiter() *signInLimiter {
	return &signInLimiter{attempts: newBucketSet("")}
}

// take counts an attempt, or returns how long until the client has another.
func (l *signInLimiter) take(caller callerKey, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempts.find(bucketKey{&signInLimit, caller}, now, wholeShare).Take(1, now)
}

// giveBack takes back that an attempt was counted: its token was right.
func (l *signInLimiter) giveBack(caller callerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.attempts.buckets[bucketKey{&signInLimit, caller}]; e != nil {
		one := e.Value.(*bucket)
		one.Tokens = min(one.SizeFor(1), one.Tokens+1)
	}
}
