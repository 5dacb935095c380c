package gateway

import (
	"container/list"
	"time"

	"dstack/internal/decide/ratelimit"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// bucketSet has a token bucket for each caller and limit of one run, of one key for
// callers, or of sign-ins. As long as the table has the same limit, the bucket stays as
// it is.
type bucketSet struct {
	rules     []*spec.RateLimit // each once
	buckets   map[bucketKey]*list.Element
	byUse     list.List // of *bucket, the longest unused first
	evictedAt time.Time

	id     dstack.LimitID // stands for callers that no gateway knows yet; empty: only this gateway counts
	demand ratelimit.Mean // for the whole set
}

type bucketKey struct {
	limit  *spec.RateLimit // of the rules
	caller callerKey
}

type bucket struct {
	bucketKey
	ratelimit.Bucket
	id       dstack.LimitID // in reports
	reported float64        // the demand that the last report had
}

func newBucketSet(id dstack.LimitID) *bucketSet {
	return &bucketSet{buckets: map[bucketKey]*list.Element{}, id: id}
}

// storedRule returns the pointer that stands for a rule in keys.
func (b *bucketSet) storedRule(rule spec.RateLimit) *spec.RateLimit {
	for _, r := range b.rules {
		if *r == rule {
			return r
		}
	}
	b.rules = append(b.rules, &rule)
	return &rule
}

// find returns a bucket, a full one if there is none yet. share is this gateway's part
// of the limit of a new bucket.
func (b *bucketSet) find(key bucketKey, now time.Time, share func(*bucket) float64) *bucket {
	e := b.buckets[key]
	if e == nil {
		if len(b.buckets) >= maxCallers {
			b.evict(now, share)
		}
		one := &bucket{bucketKey: key, id: b.limitID(key),
			Bucket: ratelimit.Bucket{RPS: key.limit.RPS, Size: float64(1 + key.limit.Burst), At: now}}
		one.Tokens = one.SizeFor(share(one))
		e = b.byUse.PushBack(one)
		b.buckets[key] = e
	}
	b.byUse.MoveToBack(e)
	return e.Value.(*bucket)
}

// evict removes full buckets, which are as good as new, at most once a second;
// without any, the one that is longest unused.
func (b *bucketSet) evict(now time.Time, share func(*bucket) float64) {
	if now.Sub(b.evictedAt) >= time.Second {
		b.evictedAt = now
		b.removeIf(func(one *bucket) bool {
			s := share(one)
			return one.Level(s, now) >= one.SizeFor(s)
		})
	}
	if len(b.buckets) >= maxCallers {
		b.remove(b.byUse.Front())
	}
}

func (b *bucketSet) removeIf(matches func(*bucket) bool) {
	for e := b.byUse.Front(); e != nil; {
		next := e.Next()
		if matches(e.Value.(*bucket)) {
			b.remove(e)
		}
		e = next
	}
}

func (b *bucketSet) remove(e *list.Element) {
	b.byUse.Remove(e)
	delete(b.buckets, e.Value.(*bucket).bucketKey)
}

// recent calls each for the buckets that were used within a time.
func (b *bucketSet) recent(now time.Time, within time.Duration, each func(*bucket)) {
	for e := b.byUse.Back(); e != nil; e = e.Prev() {
		one := e.Value.(*bucket)
		if now.Sub(one.At) > within {
			return
		}
		each(one)
	}
}

// wholeShare is the share of a limit that only this gateway counts.
func wholeShare(*bucket) float64 { return 1 }
