package gateway

import (
	"container/list"
	"crypto/sha256"
	"math"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// mostCallers is how many callers one limit knows at once.
const mostCallers = 10_000

// caller is a digest of what tells a caller from others.
type caller [sha256.Size]byte

// limits bound how many requests a second each caller may send.
type limits struct {
	mu  sync.Mutex
	all map[limitKey]*limit
}

// limitKey is a limit of a run. As long as a table has the very same one, what
// callers have used of it stays used.
type limitKey struct {
	run dstack.RunID
	spec.RateLimit
}

// limit has a bucket of tokens for each caller: it fills at the limit's rate,
// and a request takes one.
type limit struct {
	rate, size float64
	callers    map[caller]*list.Element
	used       list.List // of *bucket, the one that is longest unused first
	swept      time.Time
}

type bucket struct {
	caller caller
	tokens float64
	at     time.Time // when there were as many
}

func newLimits() *limits { return &limits{all: map[limitKey]*limit{}} }

// adopt forgets the limits that a table does not have any more.
func (l *limits) adopt(x *route.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[limitKey]*limit{}
	x.Runs(func(r *route.Route) {
		for _, rule := range r.Rules.Limits {
			if key := (limitKey{r.Run, rule}); l.all[key] != nil {
				all[key] = l.all[key]
			}
		}
	})
	l.all = all
}

// take lets a request pass, or returns how long until the next may.
func (l *limits) take(run dstack.RunID, rule spec.RateLimit, who caller) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := limitKey{run, rule}
	if l.all[key] == nil {
		l.all[key] = &limit{rate: rule.RPS, size: float64(1 + rule.Burst), callers: map[caller]*list.Element{}}
	}
	return l.all[key].take(who, time.Now())
}

func (l *limit) take(who caller, now time.Time) time.Duration {
	e := l.callers[who]
	if e == nil {
		if len(l.callers) >= mostCallers {
			l.makeRoom(now)
		}
		e = l.used.PushBack(&bucket{caller: who, tokens: l.size, at: now})
		l.callers[who] = e
	}
	l.used.MoveToBack(e)
	b := e.Value.(*bucket)
	b.tokens, b.at = l.level(b, now), now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	return time.Duration((1 - b.tokens) / l.rate * float64(time.Second))
}

// level is how many tokens a bucket has by now.
func (l *limit) level(b *bucket, now time.Time) float64 {
	return min(l.size, b.tokens+max(0, now.Sub(b.at).Seconds())*l.rate)
}

// makeRoom forgets those who have used nothing, as far as one can still see,
// else the one who was away longest. It looks at all at most once a second.
func (l *limit) makeRoom(now time.Time) {
	if now.Sub(l.swept) >= time.Second {
		l.swept = now
		for e := l.used.Front(); e != nil; {
			next := e.Next()
			if l.level(e.Value.(*bucket), now) >= l.size {
				l.forget(e)
			}
			e = next
		}
	}
	if len(l.callers) >= mostCallers {
		l.forget(l.used.Front())
	}
}

func (l *limit) forget(e *list.Element) {
	delete(l.callers, e.Value.(*bucket).caller)
	l.used.Remove(e)
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
	x.g.loads.limit(r.Run)
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
