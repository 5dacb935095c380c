package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/decide/ratelimit"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// maxCallers is how many callers of one run the gateway knows at once, for all
// limits of the run together.
const maxCallers = 10_000

// callerKey is a digest of what a limit tells callers apart by.
type callerKey [sha256.Size]byte

// rateLimiter limits how many requests a second each caller may send to a run, and
// how many may come with each key for callers. All gateways count together: each
// uses its share of a limit, as the control plane answers to its reports.
type rateLimiter struct {
	changed loop.Wake // asks for a report at once

	mu         sync.Mutex
	runs       map[dstack.RunID]*bucketSet
	keys       map[string]*bucketSet // by the ID of the key
	answer     dstack.LoadAnswer     // the last one
	answeredAt time.Time
}

func newRateLimiter(changed loop.Wake) *rateLimiter {
	return &rateLimiter{changed: changed, runs: map[dstack.RunID]*bucketSet{}, keys: map[string]*bucketSet{}}
}

// applyTable forgets the limits that a table does not have any more.
func (l *rateLimiter) applyTable(x *route.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	runs := map[dstack.RunID]*bucketSet{}
	x.Runs(func(r *route.Route) {
		if b := l.runs[r.Run]; b != nil && len(r.Rules.Limits) > 0 {
			isGone := func(rule *spec.RateLimit) bool { return !slices.Contains(r.Rules.Limits, *rule) }
			b.removeIf(func(b *bucket) bool { return isGone(b.limit) })
			b.rules = slices.DeleteFunc(b.rules, isGone)
			runs[r.Run] = b
		}
	})
	l.runs = runs
	maps.DeleteFunc(l.keys, func(id string, _ *bucketSet) bool { return !x.HasKey(id) })
}

// takeForRun takes a token for a request of a caller to a run, or returns how long
// until there is one.
func (l *rateLimiter) takeForRun(run dstack.RunID, rule spec.RateLimit, caller callerKey) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs[run] == nil {
		l.runs[run] = newBucketSet(route.RunLimitID(run))
	}
	return l.take(l.runs[run], rule, caller)
}

// takeForKey is takeForRun for a request with a key for callers.
func (l *rateLimiter) takeForKey(key *route.Key) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[key.ID] == nil {
		l.keys[key.ID] = newBucketSet(route.KeyLimitID(key.ID))
	}
	perSecond := spec.RateLimit{RPS: key.RPS, Burst: int(math.Ceil(key.RPS)) - 1} // the requests of a second may come at once
	return l.take(l.keys[key.ID], perSecond, callerKey{})
}

func (l *rateLimiter) take(set *bucketSet, rule spec.RateLimit, caller callerKey) time.Duration {
	now := time.Now()
	share := func(b *bucket) float64 { return ratelimit.ShareOf(l.answer, now.Sub(l.answeredAt), b.id, set.id) }
	b := set.find(bucketKey{set.storedRule(rule), caller}, now, share)
	set.demand.Add(now, ratelimit.RunDemandTime)
	wait := b.Take(share(b), now)
	if demand := b.Demand.At(now, ratelimit.DemandTime); l.answer.Gateways > 1 && demand > 2*b.reported+rule.RPS/10 {
		b.reported = demand // once for as much more
		l.changed.Signal()
	}
	return wait
}

const (
	maxDemands = 1000 // in one report: those that ask for most
	minDemand  = 0.01 // requests a second that are reported
	// demandEnds is after how long without a request nothing of a demand is left.
	demandEnds = 10 * ratelimit.DemandTime
)

// demands returns what callers ask for of each limit.
func (l *rateLimiter) demands() map[dstack.LimitID]dstack.Demand {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	type demand struct {
		id   dstack.LimitID
		rate float64
	}
	var all []demand
	collect := func(set *bucketSet) {
		if rate := set.demand.At(now, ratelimit.RunDemandTime); rate >= minDemand {
			all = append(all, demand{set.id, rate})
		}
		set.recent(now, demandEnds, func(b *bucket) {
			b.reported = b.Demand.At(now, ratelimit.DemandTime)
			if b.reported >= minDemand {
				all = append(all, demand{b.id, b.reported})
			}
		})
	}
	for _, set := range l.runs {
		collect(set)
	}
	for _, set := range l.keys {
		collect(set)
	}
	if len(all) > maxDemands {
		slices.SortFunc(all, func(a, b demand) int { return cmp.Compare(b.rate, a.rate) })
		all = all[:maxDemands]
	}
	found := make(map[dstack.LimitID]dstack.Demand, len(all))
	for _, d := range all {
		found[d.id] = dstack.Demand(math.Round(d.rate*1000) / 1000)
	}
	return found
}

// setAnswer sets what the control plane answered to a report.
func (l *rateLimiter) setAnswer(answer dstack.LoadAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer, l.answeredAt = answer, time.Now()
}

// limitID names the limit of one caller in reports, without saying who the caller is.
func (b *bucketSet) limitID(key bucketKey) dstack.LimitID {
	if b.id == "" {
		return ""
	}
	sum := sha256.Sum256(append(fmt.Appendf(nil, "%s\x00%s\x00", b.id, key.limit), key.caller[:]...))
	return b.id + dstack.LimitID(hex.EncodeToString(sum[:12]))
}

// checkKeyLimit refuses a request with a key for callers that has too many.
func (p *proxyRequest) checkKeyLimit(key *route.Key) error {
	if key.RPS <= 0 || p.keyUse.isCounted || p.keyUse.isLimited { // by the fast path
		return nil
	}
	wait := p.gateway.rateLimiter.takeForKey(key)
	if wait == 0 {
		return nil
	}
	p.countKey(false)
	return newKeyLimitError(wait, key)
}

func newKeyLimitError(wait time.Duration, key *route.Key) error {
	return newTooManyError(wait, "too many requests: this key may send "+formatRPS(key.RPS)+" a second")
}

func newRunLimitError(wait time.Duration, r *route.Route, rule spec.RateLimit) error {
	return newTooManyError(wait, "too many requests: "+r.Name+" takes "+formatRPS(rule.RPS)+" a second of one caller")
}

func formatRPS(rps float64) string { return strconv.FormatFloat(rps, 'g', 3, 64) }

func newTooManyError(wait time.Duration, message string) error {
	seconds := int(max(1, math.Ceil(wait.Seconds())))
	return &responseError{retryAfter: seconds, details: details{Kind: tooManyRequests, Message: message,
		Hint: "try again in " + (time.Duration(seconds) * time.Second).String()}}
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
	wait := p.gateway.rateLimiter.takeForRun(r.Run, rule, p.callerKey(rule.Key))
	if wait == 0 {
		a.limited = r.Run
		return nil
	}
	p.gateway.loads.countLimited(r.Run)
	return newRunLimitError(wait, r, rule)
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
		return headerKey(key.Header, values)
	}
	return addressKey(p.client.Address)
}

// headerKey identifies the caller by the values of a header.
func headerKey(name string, values []string) callerKey {
	if len(values) == 0 {
		return callerKey{} // all requests without the header count as one caller
	}
	return sha256.Sum256([]byte(strings.ToLower(name) + "\x00" + strings.Join(values, "\x00")))
}

// addressKey identifies the caller at an address.
func addressKey(ip netip.Addr) callerKey {
	if ip.Is6() {
		network, _ := ip.Prefix(64) // one caller has all of it; it never fails, as an IPv6 address has more bits
		ip = network.Addr()
	}
	return sha256.Sum256(ip.AsSlice())
}
