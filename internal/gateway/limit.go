package gateway

import (
	"container/list"
	"crypto/sha256"
	"math"
	"net"
	"net/netip"
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

// mostCallers is how many callers are known of one run at once, those of all
// its limits together.
const mostCallers = 10_000

// caller is a digest of what tells a caller from others.
type caller [sha256.Size]byte

// rateLimiter bound how many requests a second each caller may send.
type rateLimiter struct {
	mu  sync.Mutex
	all map[dstack.RunID]*callers
}

// callers are those of one run that its limits know. Each has a bucket of
// tokens: it fills at the limit's rate, and a request takes one. As long as a
// table has the very same limit, what was used of it stays used.
type callers struct {
	rules []*spec.RateLimit // each once
	all   map[counted]*list.Element
	used  list.List // of *bucket, the one that is longest unused first
	swept time.Time
}

// counted is a caller as one limit counts it.
type counted struct {
	limit  *spec.RateLimit // of the rules
	caller caller
}

type bucket struct {
	counted
	tokens float64
	at     time.Time // when there were as many
}

func newRateLimiter() *rateLimiter { return &rateLimiter{all: map[dstack.RunID]*callers{}} }

// applyTable forgets the limits that a table does not have any more.
func (l *rateLimiter) applyTable(x *route.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[dstack.RunID]*callers{}
	x.Runs(func(r *route.Route) {
		if c := l.all[r.Run]; c != nil && len(r.Rules.Limits) > 0 {
			gone := func(rule *spec.RateLimit) bool { return !slices.Contains(r.Rules.Limits, *rule) }
			c.drop(func(b *bucket) bool { return gone(b.limit) })
			c.rules = slices.DeleteFunc(c.rules, gone)
			all[r.Run] = c
		}
	})
	l.all = all
}

// take lets a request pass, or returns how long until the next may.
func (l *rateLimiter) take(run dstack.RunID, rule spec.RateLimit, who caller) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[run] == nil {
		l.all[run] = &callers{all: map[counted]*list.Element{}}
	}
	c := l.all[run]
	return c.take(counted{c.rule(rule), who}, time.Now())
}

// rule is the one of the rules that is as this one.
func (c *callers) rule(as spec.RateLimit) *spec.RateLimit {
	for _, r := range c.rules {
		if *r == as {
			return r
		}
	}
	c.rules = append(c.rules, &as)
	return &as
}

func (c *callers) take(who counted, now time.Time) time.Duration {
	e := c.all[who]
	if e == nil {
		if len(c.all) >= mostCallers {
			c.makeRoom(now)
		}
		e = c.used.PushBack(&bucket{counted: who, tokens: who.size(), at: now})
		c.all[who] = e
	}
	c.used.MoveToBack(e)
	b := e.Value.(*bucket)
	b.tokens, b.at = b.level(now), now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	return time.Duration((1 - b.tokens) / b.limit.RPS * float64(time.Second))
}

// size is how many tokens a bucket has at the most.
func (c counted) size() float64 { return float64(1 + c.limit.Burst) }

// level is how many tokens a bucket has by now.
func (b *bucket) level(now time.Time) float64 {
	return min(b.size(), b.tokens+max(0, now.Sub(b.at).Seconds())*b.limit.RPS)
}

// makeRoom forgets those who have used nothing, as far as one can still see,
// else the one who was away longest. It looks at all at most once a second.
func (c *callers) makeRoom(now time.Time) {
	if now.Sub(c.swept) >= time.Second {
		c.swept = now
		c.drop(func(b *bucket) bool { return b.level(now) >= b.size() })
	}
	if len(c.all) >= mostCallers {
		c.forget(c.used.Front())
	}
}

func (c *callers) drop(which func(*bucket) bool) {
	for e := c.used.Front(); e != nil; {
		next := e.Next()
		if which(e.Value.(*bucket)) {
			c.forget(e)
		}
		e = next
	}
}

func (c *callers) forget(e *list.Element) {
	delete(c.all, e.Value.(*bucket).counted)
	c.used.Remove(e)
}

// limited refuses a request whose caller sends a run too many. Each is looked
// at once for a run, however long it is on its way there.
func (x *exchange) limited(r *route.Route) error {
	if x.passed == r.Run || len(r.Rules.Limits) == 0 {
		return nil
	}
	rule, ok := ruleFor(r.Rules.Limits, path.Clean("/"+x.targetPath(r)))
	if !ok {
		return nil
	}
	wait := x.g.limited.take(r.Run, rule, x.caller(rule.Key))
	if wait == 0 {
		x.passed = r.Run
		return nil
	}
	x.g.loads.countLimited(r.Run)
	seconds := int(max(1, math.Ceil(wait.Seconds())))
	return &refusal{retry: seconds, words: words{Kind: tooMany,
		Message: "too many requests: " + r.Name + " takes " + strconv.FormatFloat(rule.RPS, 'g', 3, 64) + " a second of one caller",
		Hint:    "try again in " + (time.Duration(seconds) * time.Second).String()}}
}

// ruleFor is the limit with the longest prefix of a path, which has no dots,
// double slashes or escapes that could hide it.
func ruleFor(rules []spec.RateLimit, path string) (best spec.RateLimit, ok bool) {
	for _, rule := range rules {
		// A prefix with a slash at its end is for the path without it, too:
		// cleaning took it away.
		if strings.HasPrefix(path+"/", rule.Prefix) && (!ok || len(rule.Prefix) > len(best.Prefix)) {
			best, ok = rule, true
		}
	}
	return best, ok
}

// caller is whoever sends the request, as a limit tells callers apart.
func (x *exchange) caller(key spec.RateLimitKey) caller {
	if key.Type == "header" {
		values := x.r.Header.Values(key.Header)
		if strings.EqualFold(key.Header, "Host") { // Go keeps it elsewhere
			values = []string{x.r.Host}
		}
		if len(values) == 0 {
			return caller{} // all those without it are one
		}
		return sha256.Sum256([]byte(strings.ToLower(key.Header) + "\x00" + strings.Join(values, "\x00")))
	}
	host, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		host = x.r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return sha256.Sum256([]byte(host))
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		network, _ := ip.Prefix(64) // it never fails: an IPv6 address has as many bits. One caller has them all
		ip = network.Addr()
	}
	return sha256.Sum256(ip.AsSlice())
}
