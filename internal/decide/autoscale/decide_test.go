package autoscale_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

const minute = time.Minute

// newFacts returns facts of a service with 0..5 replicas, a target of 10
// requests a second and the default delays, under a steady load.
func newFacts(desired int, rps float64, change ...func(*autoscale.Facts)) autoscale.Facts {
	f := autoscale.Facts{
		Replicas:        spec.Replicas{Min: 0, Max: 5},
		Scaling:         &spec.Scaling{Metric: "rps", Target: 10, ScaleUpDelay: 300, ScaleDownDelay: 600},
		DesiredReplicas: desired,
		ScaledAt:        now.Add(-time.Hour),
		Load:            dstack.Load{Known: true, Window: minute, Watched: minute, Requests: int(math.Round(rps * 60))},
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

// withConcurrency changes the metric to concurrency with a target of 4.
func withConcurrency(average float64, inFlight, held int) func(*autoscale.Facts) {
	return func(f *autoscale.Facts) {
		f.Scaling.Metric, f.Scaling.Target = "concurrency", 4
		f.Load.Concurrency, f.Load.InFlight, f.Load.Held = average, inFlight, held
	}
}

func scaledAgo(ago time.Duration) func(*autoscale.Facts) {
	return func(f *autoscale.Facts) { f.ScaledAt = now.Add(-ago) }
}

func withRange(low, high int) func(*autoscale.Facts) {
	return func(f *autoscale.Facts) { f.Replicas = spec.Replicas{Min: low, Max: high} }
}

// The test cases of dstack 0.18.10 (spec §6). change is the difference to the
// current number of replicas.
func TestDecide_OriginalCases(t *testing.T) {
	for _, c := range []struct {
		name   string
		facts  autoscale.Facts
		change int
	}{
		{"1 replica at 10", newFacts(1, 10), 0},
		{"1 replica at 20", newFacts(1, 20), +1},
		{"2 replicas at 50", newFacts(2, 50), +3},
		{"2 replicas at 1000 reach the maximum", newFacts(2, 1000), +3},
		{"2 replicas at 5", newFacts(2, 5), -1},
		{"none at 5", newFacts(0, 5), +1},
		{"2 replicas at 0", newFacts(2, 0), -2},
		{"scale_up_delay", newFacts(1, 20, scaledAgo(299*time.Second)), 0},
		{"scale_up_delay counts from a change downwards, too", newFacts(1, 20, scaledAgo(minute)), 0},
		{"scale_up_delay is over", newFacts(1, 20, scaledAgo(300*time.Second)), +1},
		{"scale_down_delay", newFacts(2, 5, scaledAgo(599*time.Second)), 0},
		{"scale_down_delay is over", newFacts(2, 5, scaledAgo(600*time.Second)), -1},
		{"none at 5, changed just now", newFacts(0, 5, scaledAgo(0)), +1},
		{"not below the minimum", newFacts(2, 0, withRange(1, 5)), -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := autoscale.Decide(c.facts, now)
			if got := d.DesiredReplicas - c.facts.DesiredReplicas; got != c.change {
				t.Errorf("it changes by %+d, not %+d: %s", got, c.change, d.Reason)
			}
		})
	}
}

// ruleCase is an example for one rule, with its reason.
type ruleCase struct {
	name   string
	facts  autoscale.Facts
	wanted int
	target int
	rule   autoscale.Rule
	nextIn time.Duration // 0: never
	why    string
}

const reasonFor20 = "20 requests a second over the last 60s, target 10 a replica: ceil(20 / 10) = 2"

func ruleCases() []ruleCase {
	half := spec.Seconds(30)
	return []ruleCase{
		{"a fixed number", newFacts(3, 50, withRange(2, 2)), 2, 2, autoscale.RuleFixed, 0, "the configuration asks for 2 replicas"},
		{"no scaling", newFacts(0, 50, withRange(1, 1), func(f *autoscale.Facts) { f.Scaling = nil }), 1, 1, autoscale.RuleFixed, 0, "the configuration asks for 1 replica"},
		{"fixed at zero", newFacts(1, 50, withRange(0, 0), func(f *autoscale.Facts) { f.Scaling = nil }), 0, 0, autoscale.RuleFixed, 0, "the configuration asks for no replicas"},
		{"above the range, at once", newFacts(5, 50, withRange(1, 3), scaledAgo(0)), 3, 3, autoscale.RuleRange, 0, "the configuration allows 1..3 replicas, not 5"},
		{"below the range, at once", newFacts(0, 0, withRange(2, 4), scaledAgo(0)), 2, 2, autoscale.RuleRange, 0, "the configuration allows 2..4 replicas, not 0"},
		{"outside of the range, with unknown load", newFacts(1, 0, withRange(2, 4), func(f *autoscale.Facts) { f.Load = dstack.Load{} }), 2, 2, autoscale.RuleRange, 0, "the configuration allows 2..4 replicas, not 1"},
		{"no gateway reports", newFacts(4, 0, func(f *autoscale.Facts) { f.Load.Known = false }), 4, 4, autoscale.RuleNoLoad, 0, "no gateway reported its load recently, so nothing changes: 4 replicas"},
		{"steady", newFacts(2, 20), 2, 2, autoscale.RuleSteady, 0, reasonFor20 + "; the current number"},
		{"steady at the maximum", newFacts(5, 1000), 5, 5, autoscale.RuleSteady, 0, "1000 requests a second over the last 60s, target 10 a replica: ceil(1000 / 10) = 100, but at most 5; the current number"},
		{"steady at the minimum", newFacts(1, 0, withRange(1, 5)), 1, 1, autoscale.RuleSteady, 0, "0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0, but at least 1; the current number"},
		{"up from zero", newFacts(0, 20, scaledAgo(0)), 2, 2, autoscale.RuleWake, 0, reasonFor20 + "; scaling up from zero has no delay"},
		{"up from zero for one waiting request", newFacts(0, 0, scaledAgo(0), func(f *autoscale.Facts) { f.Load.Held = 1 }), 1, 1, autoscale.RuleWake, 0,
			"0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0; but 1 request waits for a replica: at least 1; scaling up from zero has no delay"},
		{"up from zero for many waiting requests", newFacts(0, 0, withConcurrency(0.5, 0, 9)), 3, 3, autoscale.RuleWake, 0,
			"0.5 requests at once over the last 60s, target 4 a replica: ceil(0.5 / 4) = 1; but 9 requests wait for a replica: at least 3; scaling up from zero has no delay"},
		{"up", newFacts(1, 20), 2, 2, autoscale.RuleUp, 0, reasonFor20 + "; up from 1"},
		{"up by the average concurrency", newFacts(1, 0, withConcurrency(8.1, 20, 0)), 3, 3, autoscale.RuleUp, 0, "8.1 requests at once over the last 60s, target 4 a replica: ceil(8.1 / 4) = 3; up from 1"},
		{"current requests do not add replicas", newFacts(1, 0, withConcurrency(3, 20, 0)), 1, 1, autoscale.RuleSteady, 0, "3 requests at once over the last 60s, target 4 a replica: ceil(3 / 4) = 1; the current number"},
		{"up, too early", newFacts(1, 20, scaledAgo(2*minute+7*time.Second)), 1, 2, autoscale.RuleUpDelay, 2*minute + 53*time.Second, reasonFor20 + "; scale_up_delay of 5m is not over for another 2m53s"},
		{"down", newFacts(4, 20), 2, 2, autoscale.RuleDown, 0, reasonFor20 + "; down from 4"},
		{"down, too early", newFacts(4, 20, scaledAgo(7*minute)), 4, 2, autoscale.RuleDownDelay, 3 * minute, reasonFor20 + "; scale_down_delay of 10m is not over for another 3m"},
		{"down, too early after a replica became ready", newFacts(4, 20, func(f *autoscale.Facts) { f.ReadyAt = now.Add(-9 * minute) }), 4, 2, autoscale.RuleDownDelay, minute, reasonFor20 + "; scale_down_delay of 10m is not over for another 60s"},
		{"no scale-down while a replica is starting", newFacts(4, 0, func(f *autoscale.Facts) { f.Starting = 1 }), 4, 0, autoscale.RuleStarting, 0,
			"0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0; no scale-down while 1 replica starts"},
		{"a gateway that just started", newFacts(4, 20, func(f *autoscale.Facts) { f.Load.Watched = 12 * time.Second }), 4, 2, autoscale.RuleWatching, 48 * time.Second,
			reasonFor20 + "; no scale-down before the gateway has observed the load for 60s, so far it has for 12s"},
		{"up with a gateway that just started", newFacts(1, 20, func(f *autoscale.Facts) { f.Load.Watched = time.Second }), 2, 2, autoscale.RuleUp, 0, reasonFor20 + "; up from 1"},
		{"not to zero while a request is in flight", newFacts(2, 0, func(f *autoscale.Facts) { f.Load.InFlight = 1 }), 1, 1, autoscale.RuleDown, 0,
			"0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0; but 1 request is in flight: at least 1; down from 2"},
		{"not below what is in flight", newFacts(5, 0, withConcurrency(2, 10, 1)), 3, 3, autoscale.RuleDown, 0,
			"2 requests at once over the last 60s, target 4 a replica: ceil(2 / 4) = 1; but 10 requests are in flight and 1 request waits for a replica: at least 3; down from 5"},
		{"a configured window", newFacts(1, 0, func(f *autoscale.Facts) {
			f.Scaling.Window, f.Load.Window, f.Load.Watched, f.Load.Requests = &half, 30*time.Second, 30*time.Second, 426
		}), 2, 2, autoscale.RuleUp, 0, "14.2 requests a second over the last 30s, target 10 a replica: ceil(14.2 / 10) = 2; up from 1"},
	}
}

func TestDecide_Rules(t *testing.T) {
	for _, c := range ruleCases() {
		t.Run(c.name, func(t *testing.T) {
			got := autoscale.Decide(c.facts, now)
			want := autoscale.Decision{DesiredReplicas: c.wanted, Target: c.target, Rule: c.rule, Reason: c.why}
			if c.nextIn > 0 {
				want.NextAt = now.Add(c.nextIn)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestDecide_IgnoresFloatingPointNoise(t *testing.T) {
	for _, c := range []struct {
		requests int
		target   float64
		want     int
		sum      string
	}{
		{18, 0.1, 3, "ceil(0.3 / 0.1) = 3"}, // 0.3 / 0.1 is 2.9999999999999996 or 3.0000000000000004
		{126, 0.7, 3, "ceil(2.1 / 0.7) = 3"},
		{1201, 10, 3, "ceil(20.02 / 10) = 3"},
		{1, 1000, 1, "ceil(0.02 / 1000) = 1"}, // a single request is load
		{0, 10, 0, "ceil(0 / 10) = 0"},
		{60, 1e-300, 5, "= a very large number, but at most 5"},
		{60, 0, 5, "= a very large number, but at most 5"}, // stored before targets were validated
	} {
		d := autoscale.Decide(newFacts(0, 0, func(f *autoscale.Facts) { f.Load.Requests, f.Scaling.Target = c.requests, c.target }), now)
		if d.DesiredReplicas != c.want || !strings.Contains(d.Reason, c.sum) {
			t.Errorf("%d requests a minute by %g: %d, %s", c.requests, c.target, d.DesiredReplicas, d.Reason)
		}
	}
}

func TestDecide_LoadWithoutWindow(t *testing.T) {
	d := autoscale.Decide(newFacts(0, 0, func(f *autoscale.Facts) { f.Load = dstack.Load{Known: true, Requests: 1200} }), now)
	if d.DesiredReplicas != 2 {
		t.Errorf("desired: %d: %s", d.DesiredReplicas, d.Reason)
	}
}

func TestDecide_ClockWasSetBack(t *testing.T) {
	for name, f := range map[string]autoscale.Facts{"up": newFacts(1, 20, scaledAgo(-time.Hour)), "down": newFacts(3, 20, scaledAgo(-time.Hour))} {
		if d := autoscale.Decide(f, now); d.DesiredReplicas != 2 {
			t.Errorf("%s waits for an hour: %s", name, d.Reason)
		}
	}
	// The clocks of two machines differ by a few seconds.
	if d := autoscale.Decide(newFacts(1, 20, scaledAgo(-5*time.Second)), now); d.Rule != autoscale.RuleUpDelay || !d.NextAt.Equal(now.Add(5*minute)) {
		t.Errorf("a change a few seconds ahead must count as now: %+v", d)
	}
	// A wrong ScaledAt does not affect the delay since ReadyAt.
	recent := newFacts(3, 20, scaledAgo(-time.Hour), func(f *autoscale.Facts) { f.ReadyAt = now.Add(-minute) })
	if d := autoscale.Decide(recent, now); d.Rule != autoscale.RuleDownDelay {
		t.Errorf("a replica became ready a minute ago: %+v", d)
	}
}
