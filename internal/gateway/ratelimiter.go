package gateway

import (
	"container/list"
	"crypto/sha256"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// maxCallers is how many callers of one run the gateway knows at once, for all
// limits of the run together.
const maxCallers = 10_000

// callerKey is a digest of what a limit tells callers apart by.
type callerKey [sha256.Size]byte

// rateLimiter limits how many requests a second each caller may send to a run.
type rateLimiter struct {
	mu   sync.Mutex
	runs map[dstack.RunID]*runBuckets
}

// runBuckets has a token bucket for each caller and limit of one run: it fills
// at the limit's rate, and a request takes one token. As long as the table has
// the same limit, the bucket stays as it is.
type runBuckets struct {
	rules     []*spec.RateLimit // each once
	buckets   map[bucketKey]*list.Element
	byUse     list.List // of *bucket, the longest unused first
	evictedAt time.Time
}

type bucketKey struct {
	limit  *spec.RateLimit // of the rules
	caller callerKey
}

type bucket struct {
	bucketKey
	tokens float64
	at     time.Time // when there were so many
}

func newRateLimiter() *rateLimiter { return &rateLimiter{runs: map[dstack.RunID]*runBuckets{}} }

// applyTable forgets the limits that a table does not have any more.
func (l *rateLimiter) applyTable(x *route.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	runs := map[dstack.RunID]*runBuckets{}
	x.Runs(func(r *route.Route) {
		if b := l.runs[r.Run]; b != nil && len(r.Rules.Limits) > 0 {
			isGone := func(rule *spec.RateLimit) bool { return !slices.Contains(r.Rules.Limits, *rule) }
			b.removeIf(func(b *bucket) bool { return isGone(b.limit) })
			b.rules = slices.DeleteFunc(b.rules, isGone)
			runs[r.Run] = b
		}
	})
	l.runs = runs
}

// take takes a token for a request, or returns how long until there is one.
func (l *rateLimiter) take(run dstack.RunID, rule spec.RateLimit, caller callerKey) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs[run] == nil {
		l.runs[run] = &runBuckets{buckets: map[bucketKey]*list.Element{}}
	}
	b := l.runs[run]
	return b.take(bucketKey{b.storedRule(rule), caller}, time.Now())
}

// storedRule returns the pointer that stands for a rule in keys.
func (b *runBuckets) storedRule(rule spec.RateLimit) *spec.RateLimit {
	for _, r := range b.rules {
		if *r == rule {
			return r
		}
	}
	b.rules = append(b.rules, &rule)
	return &rule
}

func (b *runBuckets) take(key bucketKey, now time.Time) time.Duration {
	e := b.buckets[key]
	if e == nil {
		if len(b.buckets) >= maxCallers {
			b.evict(now)
		}
		e = b.byUse.PushBack(&bucket{bucketKey: key, tokens: key.size(), at: now})
		b.buckets[key] = e
	}
	b.byUse.MoveToBack(e)
	one := e.Value.(*bucket)
	one.tokens, one.at = one.level(now), now
	if one.tokens >= 1 {
		one.tokens--
		return 0
	}
	return time.Duration((1 - one.tokens) / one.limit.RPS * float64(time.Second))
}

// size is how many tokens a bucket has at most.
func (k bucketKey) size() float64 { return float64(1 + k.limit.Burst) }

// level is how many tokens a bucket has by now.
func (b *bucket) level(now time.Time) float64 {
	return min(b.size(), b.tokens+max(0, now.Sub(b.at).Seconds())*b.limit.RPS)
}

// evict removes full buckets, which are as good as new, at most once a second;
// without any, the one that is longest unused.
func (b *runBuckets) evict(now time.Time) {
	if now.Sub(b.evictedAt) >= time.Second {
		b.evictedAt = now
		b.removeIf(func(one *bucket) bool { return one.level(now) >= one.size() })
	}
	if len(b.buckets) >= maxCallers {
		b.remove(b.byUse.Front())
	}
}

func (b *runBuckets) removeIf(matches func(*bucket) bool) {
	for e := b.byUse.Front(); e != nil; {
		next := e.Next()
		if matches(e.Value.(*bucket)) {
			b.remove(e)
		}
		e = next
	}
}

func (b *runBuckets) remove(e *list.Element) {
	b.byUse.Remove(e)
	delete(b.buckets, e.Value.(*bucket).bucketKey)
}

// checkRateLimit refuses a request whose caller sends a run too many. A request
// is counted once for a run, however often it tries to get a replica.
func (a *replicaAcquirer) checkRateLimit(r *route.Route) error {
	if a.limited == r.Run || len(r.Rules.Limits) == 0 {
		return nil
	}
	p := a.request
	rule, ok := longestRule(r.Rules.Limits, path.Clean("/"+p.pathAt(r)))
	if !ok {
		return nil
	}
	wait := p.gateway.rateLimiter.take(r.Run, rule, p.callerKey(rule.Key))
	if wait == 0 {
		a.limited = r.Run
		return nil
	}
	p.gateway.loads.countLimited(r.Run)
	seconds := int(max(1, math.Ceil(wait.Seconds())))
	return &responseError{retryAfter: seconds, details: details{Kind: tooManyRequests,
		Message: "too many requests: " + r.Name + " takes " + strconv.FormatFloat(rule.RPS, 'g', 3, 64) +
			" a second of one caller",
		Hint: "try again in " + (time.Duration(seconds) * time.Second).String()}}
}

// longestRule returns the limit with the longest prefix of a path, which is
// clean and unescaped.
func longestRule(rules []spec.RateLimit, path string) (longest spec.RateLimit, ok bool) {
	for _, rule := range rules {
		// A prefix with a slash at its end covers the path without it, too, since
		// cleaning removes the slash.
		if strings.HasPrefix(path+"/", rule.Prefix) && (!ok || len(rule.Prefix) > len(longest.Prefix)) {
			longest, ok = rule, true
		}
	}
	return longest, ok
}

// callerKey identifies the caller of a request for a limit.
func (p *proxyRequest) callerKey(key spec.RateLimitKey) callerKey {
	if key.Type == "header" {
		values := p.r.Header.Values(key.Header)
		if strings.EqualFold(key.Header, "Host") { // net/http removes it from the headers
			values = []string{p.r.Host}
		}
		if len(values) == 0 {
			return callerKey{} // all requests without the header count as one caller
		}
		return sha256.Sum256([]byte(strings.ToLower(key.Header) + "\x00" + strings.Join(values, "\x00")))
	}
	ip := p.client.Address
	if ip.Is6() {
		network, _ := ip.Prefix(64) // one caller has all of it; it never fails, as an IPv6 address has more bits
		ip = network.Addr()
	}
	return sha256.Sum256(ip.AsSlice())
}
