package ratelimit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"dstack/internal/decide/ratelimit"
	"dstack/internal/dstack"
)

var t0 = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

const limit = dstack.LimitID("run/1/a")

func report(gateway string, age time.Duration, demand float64) ratelimit.Report {
	r := ratelimit.Report{Gateway: gateway, At: t0.Add(-age)}
	if demand != 0 {
		r.Demands = map[dstack.LimitID]dstack.Demand{limit: dstack.Demand(demand)}
	}
	return r
}

func TestAnswer(t *testing.T) {
	const none = -1 // not in the answer
	for _, c := range []struct {
		name     string
		reports  []ratelimit.Report
		gateways int
		share    float64
	}{
		{"one gateway has all", []ratelimit.Report{report("a", 0, 5)}, 1, 1},
		{"demand divides the limit", []ratelimit.Report{report("a", 0, 6), report("b", 0, 3), report("c", 0, 0)}, 3, 2. / 3},
		{"a gateway without demand gets nothing", []ratelimit.Report{report("a", 0, 0), report("b", 0, 3)}, 2, 0},
		{"nobody has demand", []ratelimit.Report{report("a", 0, 0), report("b", 0, 0)}, 2, none},
		{"a report that is a second late counts in full", []ratelimit.Report{report("a", 0, 3), report("b", 2*time.Second, 3)}, 2, .5},
		{"the demand of a silent gateway moves", []ratelimit.Report{report("a", 0, 3), report("b", 3*time.Second, 3)}, 2, 1 / (1 + 1/math.E)},
		{"a gateway that died gives its part back", []ratelimit.Report{report("a", 0, 3), report("b", dstack.GatewaySilence, 30)}, 1, 1},
		{"the clock of another server is ahead", []ratelimit.Report{report("a", 0, 3), report("b", -time.Second, 3)}, 2, .5},
		{"the clock of another server is far ahead", []ratelimit.Report{report("a", 0, 3), report("b", -time.Minute, 3)}, 1, 1},
		{"what is no number does not count", []ratelimit.Report{report("a", 0, 3), report("b", 0, math.NaN()), report("c", 0, math.Inf(1)), report("d", 0, -9)}, 4, 1},
		{"the gateway has not reported", []ratelimit.Report{report("b", 0, 3)}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := ratelimit.Answer("a", c.reports, t0)
			share, ok := answer.Shares[limit]
			if !ok {
				share = none
			}
			if answer.Gateways != c.gateways || math.IsNaN(share) || math.Abs(share-c.share) > 1e-9 {
				t.Errorf("%d gateways and %g, want %d and %g", answer.Gateways, share, c.gateways, c.share)
			}
		})
	}
}

func TestShareOf(t *testing.T) {
	const defaults = dstack.LimitID("run/1/")
	three := dstack.LoadAnswer{Gateways: 3, Shares: map[dstack.LimitID]float64{limit: .7, defaults: .2}}
	for _, c := range []struct {
		name   string
		answer dstack.LoadAnswer
		age    time.Duration
		id     dstack.LimitID
		want   float64
	}{
		{"no answer yet: as if alone", dstack.LoadAnswer{}, time.Hour, limit, 1},
		{"alone", dstack.LoadAnswer{Gateways: 1, Shares: map[dstack.LimitID]float64{limit: .5}}, 0, limit, 1},
		{"a known caller", three, 0, limit, .7},
		{"a caller that nobody knows has the part of its run", three, 0, "run/1/b", .2},
		{"a run that nobody calls", dstack.LoadAnswer{Gateways: 4}, 0, limit, .25},
		{"no answer for too long", three, dstack.GatewaySilence, limit, 1. / 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ratelimit.ShareOf(c.answer, c.age, c.id, defaults); math.Abs(got-c.want) > 1e-9 {
				t.Errorf("%g, want %g", got, c.want)
			}
		})
	}
}

// A gateway without a share says when to come again, as its share grows with the demand.
func TestBucket_WithoutShare(t *testing.T) {
	b := ratelimit.Bucket{RPS: 2, Size: 1, At: t0}
	if wait := b.Take(0, t0); wait != 10*time.Second {
		t.Errorf("wait %s, want 10s: a twentieth of the rate", wait)
	}
}

// Shares of a limit are 1 in all at any moment, whoever reported what.
func TestAnswer_SharesAreOneInAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var reports []ratelimit.Report
		for i := range 1 + r.IntN(6) {
			reports = append(reports, report(fmt.Sprint(i), time.Duration(r.IntN(9))*time.Second, r.Float64()*float64(r.IntN(3))))
		}
		sum, hasDemand := 0., false
		for _, one := range reports {
			share, ok := ratelimit.Answer(one.Gateway, reports, t0).Shares[limit]
			sum, hasDemand = sum+share, hasDemand || ok
		}
		if hasDemand && math.Abs(sum-1) > 1e-9 {
			t.Fatalf("%g in all: %+v", sum, reports)
		}
	}
}

// world has gateways that count one caller's limit, and report every second and when
// the demand grows.
type world struct {
	rps, burst float64
	now        time.Time
	buckets    []*ratelimit.Bucket
	answers    []dstack.LoadAnswer
	answeredAt []time.Time
	dead       []bool
	reported   []float64
	reports    map[int]ratelimit.Report
}

func newWorld(gateways int, rps, burst float64) *world {
	w := &world{rps: rps, burst: burst, now: t0, reports: map[int]ratelimit.Report{}, dead: make([]bool, gateways), reported: make([]float64, gateways),
		answers: make([]dstack.LoadAnswer, gateways), answeredAt: make([]time.Time, gateways)}
	for i := range gateways {
		w.buckets = append(w.buckets, &ratelimit.Bucket{RPS: rps, Size: 1 + burst, Tokens: 1 + burst, At: t0})
		w.reports[i] = ratelimit.Report{Gateway: fmt.Sprint(i), At: t0}
	}
	for i := range gateways {
		w.exchange(i)
		b := w.buckets[i]
		b.Tokens = b.SizeFor(w.share(i))
	}
	return w
}

func (w *world) exchange(i int) {
	demand := w.buckets[i].Demand.At(w.now, ratelimit.DemandTime)
	w.reported[i] = demand
	w.reports[i] = ratelimit.Report{Gateway: fmt.Sprint(i), At: w.now, Demands: map[dstack.LimitID]dstack.Demand{limit: dstack.Demand(demand)}}
	var all []ratelimit.Report
	for _, r := range w.reports {
		all = append(all, r)
	}
	w.answers[i], w.answeredAt[i] = ratelimit.Answer(fmt.Sprint(i), all, w.now), w.now
}

func (w *world) share(i int) float64 {
	return ratelimit.ShareOf(w.answers[i], w.now.Sub(w.answeredAt[i]), limit, "run/1/")
}

// run sends perSecond requests a second to the gateway that choose returns, and returns
// how many passed.
func (w *world) run(d time.Duration, perSecond int, choose func(n int) int) (passed int) {
	const tick = 10 * time.Millisecond
	sent, end := 0, w.now.Add(d)
	begin := w.now
	for w.now.Before(end) {
		w.now = w.now.Add(tick)
		for i := range w.buckets {
			if !w.dead[i] && w.now.UnixMilli()%1000 == int64(i)*70 {
				w.exchange(i)
			}
		}
		for due := int(w.now.Sub(begin).Seconds() * float64(perSecond)); sent < due; sent++ {
			i := choose(sent)
			b := w.buckets[i]
			if b.Take(w.share(i), w.now) == 0 {
				passed++
			}
			if demand := b.Demand.At(w.now, ratelimit.DemandTime); demand > 2*w.reported[i]+b.RPS/10 { // as gateways do
				w.exchange(i)
			}
		}
	}
	return passed
}

// One gateway alone is a token bucket, as it ever was.
func TestBucket_OfOneGateway(t *testing.T) {
	w := newWorld(1, 10, 4)
	if got := w.run(10*time.Second, 100, func(int) int { return 0 }); got < 100 || got > 106 {
		t.Errorf("%d of 1000 requests passed, want 105: 10 a second and a burst of 4", got)
	}
}

// A caller gets the limit, whichever gateways it uses, and not much more when it changes them.
func TestBuckets_KeepTheLimitTogether(t *testing.T) {
	const rps, burst, seconds = 20, 5, 30
	for _, c := range []struct {
		name     string
		choose   func(n int) int
		min, max int // of 600
	}{
		{"one of three", func(int) int { return 1 }, 570, 606},
		{"all three in turn", func(n int) int { return n % 3 }, 540, 640},
		{"nine of ten to one", func(n int) int { return map[bool]int{true: 1, false: 2}[n%10 > 0] }, 540, 640},
		{"another one every five seconds", func(n int) int { return n / 1000 % 3 }, 450, 680},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newWorld(3, rps, burst).run(seconds*time.Second, 200, c.choose); got < c.min || got > c.max {
				t.Errorf("%d requests passed, want %d to %d", got, c.min, c.max)
			}
		})
	}
}

// A caller well below the limit is not refused by the gateways that share it.
func TestBuckets_LetACallerBelowTheLimitPass(t *testing.T) {
	for name, choose := range map[string]func(n int) int{"one of three": func(int) int { return 2 }, "in turn": func(n int) int { return n % 3 }} {
		w := newWorld(3, 20, 20)
		w.run(3*time.Second, 12, choose)
		if got := w.run(20*time.Second, 12, choose); got < 230 {
			t.Errorf("%s: %d of 240 requests passed", name, got)
		}
	}
}

// The part of a gateway that was killed goes to the one that its callers use now.
func TestBuckets_AfterADeath(t *testing.T) {
	w := newWorld(2, 10, 0)
	w.run(10*time.Second, 50, func(int) int { return 0 })
	w.dead[0] = true
	w.run(5*time.Second, 50, func(int) int { return 1 })
	if got := w.run(10*time.Second, 50, func(int) int { return 1 }); got < 90 || got > 105 {
		t.Errorf("five seconds after the death of the other, %d requests passed in ten seconds, want 100", got)
	}
}
