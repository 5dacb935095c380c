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

// of is a service with a load that has lasted: 0..5 replicas, 10 requests a
// second each, and the usual delays.
func of(wanted int, rps float64, change ...func(*autoscale.Facts)) autoscale.Facts {
	f := autoscale.Facts{
		Replicas:        spec.Replicas{Min: 0, Max: 5},
		Scaling:         &spec.Scaling{Metric: "rps", Target: 10, ScaleUpDelay: 300, ScaleDownDelay: 600},
		DesiredReplicas: wanted,
		ScaledAt:        now.Add(-time.Hour),
		Load:            dstack.Load{Known: true, Window: minute, Watched: minute, Requests: int(math.Round(rps * 60))},
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

// busy makes it a service of 4 requests at once a replica.
func busy(average float64, inFlight, held int) func(*autoscale.Facts) {
	return func(f *autoscale.Facts) {
		f.Scaling.Metric, f.Scaling.Target = "concurrency", 4
		f.Load.Concurrency, f.Load.InFlight, f.Load.Held = average, inFlight, held
	}
}

func scaled(ago time.Duration) func(*autoscale.Facts) {
	return func(f *autoscale.Facts) { f.ScaledAt = now.Add(-ago) }
}

func between(least, most int) func(*autoscale.Facts) {
	return func(f *autoscale.Facts) { f.Replicas = spec.Replicas{Min: least, Max: most} }
}

// The original's own tests (spec §6), as changes of what is wanted.
func TestDecide_AsTheOriginal(t *testing.T) {
	for _, c := range []struct {
		name   string
		facts  autoscale.Facts
		change int
	}{
		{"1 replica at 10", of(1, 10), 0},
		{"1 replica at 20", of(1, 20), +1},
		{"2 replicas at 50", of(2, 50), +3},
		{"2 replicas at 1000 reach the maximum", of(2, 1000), +3},
		{"2 replicas at 5", of(2, 5), -1},
		{"none at 5", of(0, 5), +1},
		{"2 replicas at 0", of(2, 0), -2},
		{"scale_up_delay", of(1, 20, scaled(299*time.Second)), 0},
		{"scale_up_delay counts from a change downwards, too", of(1, 20, scaled(minute)), 0},
		{"scale_up_delay is over", of(1, 20, scaled(300*time.Second)), +1},
		{"scale_down_delay", of(2, 5, scaled(599*time.Second)), 0},
		{"scale_down_delay is over", of(2, 5, scaled(600*time.Second)), -1},
		{"none at 5, changed just now", of(0, 5, scaled(0)), +1},
		{"not below the minimum", of(2, 0, between(1, 5)), -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := autoscale.Decide(c.facts, now)
			if got := d.DesiredReplicas - c.facts.DesiredReplicas; got != c.change {
				t.Errorf("it changes by %+d, not %+d: %s", got, c.change, d.Reason)
			}
		})
	}
}

// decided is one rule with its words.
type decided struct {
	name   string
	facts  autoscale.Facts
	wanted int
	target int
	rule   autoscale.Rule
	nextIn time.Duration // 0: never
	why    string
}

const twenty = "20 requests a second over the last 60s, target 10 a replica: ceil(20 / 10) = 2"

func rules() []decided {
	half := spec.Seconds(30)
	return []decided{
		{"one number", of(3, 50, between(2, 2)), 2, 2, autoscale.RuleFixed, 0, "the configuration asks for 2 replicas"},
		{"no scaling", of(0, 50, between(1, 1), func(f *autoscale.Facts) { f.Scaling = nil }), 1, 1, autoscale.RuleFixed, 0, "the configuration asks for 1 replica"},
		{"asleep for good", of(1, 50, between(0, 0), func(f *autoscale.Facts) { f.Scaling = nil }), 0, 0, autoscale.RuleFixed, 0, "the configuration asks for no replicas"},
		{"above the range, at once", of(5, 50, between(1, 3), scaled(0)), 3, 3, autoscale.RuleRange, 0, "the configuration allows 1..3 replicas, and 5 were wanted"},
		{"below the range, at once", of(0, 0, between(2, 4), scaled(0)), 2, 2, autoscale.RuleRange, 0, "the configuration allows 2..4 replicas, and none was wanted"},
		{"outside of the range, of no known load", of(1, 0, between(2, 4), func(f *autoscale.Facts) { f.Load = dstack.Load{} }), 2, 2, autoscale.RuleRange, 0, "the configuration allows 2..4 replicas, and 1 was wanted"},
		{"no gateway tells", of(4, 0, func(f *autoscale.Facts) { f.Load.Known = false }), 4, 4, autoscale.RuleNoLoad, 0, "no gateway has told of its load lately, so nothing changes: 4 replicas"},
		{"steady", of(2, 20), 2, 2, autoscale.RuleSteady, 0, twenty + "; as many as there are"},
		{"steady at the maximum", of(5, 1000), 5, 5, autoscale.RuleSteady, 0, "1000 requests a second over the last 60s, target 10 a replica: ceil(1000 / 10) = 100, and 5 at most; as many as there are"},
		{"steady at the minimum", of(1, 0, between(1, 5)), 1, 1, autoscale.RuleSteady, 0, "0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0, and 1 at least; as many as there are"},
		{"woken", of(0, 20, scaled(0)), 2, 2, autoscale.RuleWake, 0, twenty + "; from none there is no delay"},
		{"woken by one that waits", of(0, 0, scaled(0), func(f *autoscale.Facts) { f.Load.Held = 1 }), 1, 1, autoscale.RuleWake, 0,
			"0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0; yet 1 request waits for a replica: 1 at least; from none there is no delay"},
		{"woken by many that wait", of(0, 0, busy(0.5, 0, 9)), 3, 3, autoscale.RuleWake, 0,
			"0.5 requests at once over the last 60s, target 4 a replica: ceil(0.5 / 4) = 1; yet 9 requests wait for a replica: 3 at least; from none there is no delay"},
		{"up", of(1, 20), 2, 2, autoscale.RuleUp, 0, twenty + "; up from 1"},
		{"up by the average of requests at once", of(1, 0, busy(8.1, 20, 0)), 3, 3, autoscale.RuleUp, 0, "8.1 requests at once over the last 60s, target 4 a replica: ceil(8.1 / 4) = 3; up from 1"},
		{"a moment's requests do not add replicas", of(1, 0, busy(3, 20, 0)), 1, 1, autoscale.RuleSteady, 0, "3 requests at once over the last 60s, target 4 a replica: ceil(3 / 4) = 1; as many as there are"},
		{"up, too early", of(1, 20, scaled(2*minute+7*time.Second)), 1, 2, autoscale.RuleUpDelay, 2*minute + 53*time.Second, twenty + "; scale_up_delay of 5m is not over for another 2m53s"},
		{"down", of(4, 20), 2, 2, autoscale.RuleDown, 0, twenty + "; down from 4"},
		{"down, too early", of(4, 20, scaled(7*minute)), 4, 2, autoscale.RuleDownDelay, 3 * minute, twenty + "; scale_down_delay of 10m is not over for another 3m"},
		{"down, too early after one became ready", of(4, 20, func(f *autoscale.Facts) { f.ReadyAt = now.Add(-9 * minute) }), 4, 2, autoscale.RuleDownDelay, minute, twenty + "; scale_down_delay of 10m is not over for another 60s"},
		{"a slow cold start is never scaled away", of(4, 0, func(f *autoscale.Facts) { f.Starting = 1 }), 4, 0, autoscale.RuleStarting, 0,
			"0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0; none is taken away while 1 replica starts"},
		{"a gateway that just began", of(4, 20, func(f *autoscale.Facts) { f.Load.Watched = 12 * time.Second }), 4, 2, autoscale.RuleWatching, 48 * time.Second,
			twenty + "; the gateway has counted for 12s of the 60s only, which is too short to take any away"},
		{"a gateway that just began may add", of(1, 20, func(f *autoscale.Facts) { f.Load.Watched = time.Second }), 2, 2, autoscale.RuleUp, 0, twenty + "; up from 1"},
		{"not to none while one is in flight", of(2, 0, func(f *autoscale.Facts) { f.Load.InFlight = 1 }), 1, 1, autoscale.RuleDown, 0,
			"0 requests a second over the last 60s, target 10 a replica: ceil(0 / 10) = 0; yet 1 request is in flight: 1 at least; down from 2"},
		{"not below what is in flight", of(5, 0, busy(2, 10, 1)), 3, 3, autoscale.RuleDown, 0,
			"2 requests at once over the last 60s, target 4 a replica: ceil(2 / 4) = 1; yet 10 requests are in flight and 1 request waits for a replica: 3 at least; down from 5"},
		{"a window of its own", of(1, 0, func(f *autoscale.Facts) {
			f.Scaling.Window, f.Load.Window, f.Load.Watched, f.Load.Requests = &half, 30*time.Second, 30*time.Second, 426
		}), 2, 2, autoscale.RuleUp, 0, "14.2 requests a second over the last 30s, target 10 a replica: ceil(14.2 / 10) = 2; up from 1"},
	}
}

func TestDecide_Rules(t *testing.T) {
	for _, c := range rules() {
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

func TestDecide_CountsAsPeopleDo(t *testing.T) {
	for _, c := range []struct {
		requests int
		target   float64
		want     int
		sum      string
	}{
		{18, 0.1, 3, "ceil(0.3 / 0.1) = 3"}, // 0.3 / 0.1 is 2.9999999999999996 or 3.0000000000000004
		{126, 0.7, 3, "ceil(2.1 / 0.7) = 3"},
		{1201, 10, 3, "ceil(20.02 / 10) = 3"},
		{1, 1000, 1, "ceil(0.02 / 1000) = 1"}, // one request is something
		{0, 10, 0, "ceil(0 / 10) = 0"},
		{60, 1e-300, 5, "= very many, and 5 at most"},
		{60, 0, 5, "= very many, and 5 at most"}, // from before targets were checked
	} {
		d := autoscale.Decide(of(0, 0, func(f *autoscale.Facts) { f.Load.Requests, f.Scaling.Target = c.requests, c.target }), now)
		if d.DesiredReplicas != c.want || !strings.Contains(d.Reason, c.sum) {
			t.Errorf("%d requests a minute by %g: %d, %s", c.requests, c.target, d.DesiredReplicas, d.Reason)
		}
	}
}

func TestDecide_ALoadWithoutAWindow(t *testing.T) {
	d := autoscale.Decide(of(0, 0, func(f *autoscale.Facts) { f.Load = dstack.Load{Known: true, Requests: 1200} }), now)
	if d.DesiredReplicas != 2 {
		t.Errorf("it wants %d: %s", d.DesiredReplicas, d.Reason)
	}
}

func TestDecide_AClockThatWasSetBack(t *testing.T) {
	for name, f := range map[string]autoscale.Facts{"up": of(1, 20, scaled(-time.Hour)), "down": of(3, 20, scaled(-time.Hour))} {
		if d := autoscale.Decide(f, now); d.DesiredReplicas != 2 {
			t.Errorf("%s waits for an hour that may never come: %s", name, d.Reason)
		}
	}
	// Clocks of two machines differ a little.
	if d := autoscale.Decide(of(1, 20, scaled(-5*time.Second)), now); d.Rule != autoscale.RuleUpDelay || !d.NextAt.Equal(now.Add(5*minute)) {
		t.Errorf("a change of the next seconds is one of now, but: %+v", d)
	}
	// What one clock says of replicas still holds when another one is wrong.
	recent := of(3, 20, scaled(-time.Hour), func(f *autoscale.Facts) { f.ReadyAt = now.Add(-minute) })
	if d := autoscale.Decide(recent, now); d.Rule != autoscale.RuleDownDelay {
		t.Errorf("one was ready a minute ago, but: %+v", d)
	}
}
