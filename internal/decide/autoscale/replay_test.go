package autoscale_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// originalChange is the algorithm of dstack 0.18.10 (spec §6) with integers: the
// target is in tenths of a request a second. It returns the change of n.
func originalChange(requests, tenths, low, high, n int, last time.Time, up, down time.Duration, now time.Time) int {
	target := (requests*10 + 60*tenths - 1) / (60 * tenths) // ceil(requests / 60 / (tenths / 10))
	target = min(max(target, low), high)
	if target > n {
		if n == 0 {
			return target
		}
		if now.Sub(last) < up {
			return 0
		}
		return target - n
	}
	if target < n {
		if now.Sub(last) < down {
			return 0
		}
		return target - n
	}
	return 0
}

// Without starting replicas and requests in flight, every step equals that of
// dstack 0.18.10.
func TestDecide_EqualsOriginalStepByStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.IntRange(0, 4).Draw(t, "min")
		high := rapid.IntRange(low+1, low+6).Draw(t, "max")
		tenths := rapid.IntRange(1, 200).Draw(t, "tenths")
		up := rapid.IntRange(0, 600).Draw(t, "up")
		down := rapid.IntRange(0, 900).Draw(t, "down")
		n, last, at := rapid.IntRange(low, high).Draw(t, "n"), now, now
		for range 40 {
			at = at.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "step")) * time.Second)
			requests := rapid.IntRange(0, 12).Draw(t, "load") * rapid.IntRange(1, 6*tenths).Draw(t, "times")
			f := autoscale.Facts{
				Replicas: spec.Replicas{Min: low, Max: high}, DesiredReplicas: n, ScaledAt: last,
				Scaling: &spec.Scaling{Metric: "rps", Target: float64(tenths) / 10, ScaleUpDelay: spec.Seconds(up), ScaleDownDelay: spec.Seconds(down)},
				Load:    dstack.Load{Known: true, Window: minute, Watched: minute, Requests: requests},
			}
			d := autoscale.Decide(f, at)
			want := n + originalChange(requests, tenths, low, high, n, last, time.Duration(up)*time.Second, time.Duration(down)*time.Second, at)
			if d.DesiredReplicas != want {
				t.Fatalf("from %d at %s: got %d, the original gives %d: %s", n, at, d.DesiredReplicas, want, d.Reason)
			}
			if d.DesiredReplicas != n {
				n, last = d.DesiredReplicas, at
			}
		}
	})
}

var allRules = []autoscale.Rule{
	autoscale.RuleFixed, autoscale.RuleNoLoad, autoscale.RuleSteady, autoscale.RuleWake, autoscale.RuleUp, autoscale.RuleUpDelay,
	autoscale.RuleDown, autoscale.RuleDownDelay, autoscale.RuleStarting, autoscale.RuleWatching, autoscale.RuleRange,
}

// drawFacts draws facts as a reconcile pass may see them.
func drawFacts(t *rapid.T) autoscale.Facts {
	low := rapid.IntRange(0, 4).Draw(t, "min")
	ago := func(name string) time.Time {
		return now.Add(-time.Duration(rapid.IntRange(-2000, 4000).Draw(t, name)) * time.Second)
	}
	f := autoscale.Facts{
		Replicas:        spec.Replicas{Min: low, Max: low + rapid.IntRange(0, 5).Draw(t, "more")},
		DesiredReplicas: rapid.IntRange(0, 12).Draw(t, "wanted"),
		ScaledAt:        ago("scaled"),
		Starting:        max(0, rapid.IntRange(-3, 3).Draw(t, "starting")),
		Load: dstack.Load{
			Known:       rapid.IntRange(0, 9).Draw(t, "known") > 0,
			Window:      time.Duration(rapid.IntRange(0, 120).Draw(t, "window")) * time.Second,
			Watched:     time.Duration(rapid.IntRange(0, 400).Draw(t, "watched")) * time.Second,
			Requests:    max(0, rapid.IntRange(-500, 4000).Draw(t, "requests")),
			Concurrency: max(0, rapid.Float64Range(-20, 60).Draw(t, "busy")),
			InFlight:    max(0, rapid.IntRange(-20, 40).Draw(t, "in flight")),
			Held:        max(0, rapid.IntRange(-20, 40).Draw(t, "held")),
		},
	}
	if rapid.Bool().Draw(t, "one is ready") {
		f.ReadyAt = ago("ready")
	}
	if f.Replicas.Min != f.Replicas.Max {
		f.Scaling = &spec.Scaling{
			Metric: rapid.SampledFrom([]string{"rps", "concurrency"}).Draw(t, "metric"), Target: rapid.Float64Range(0.1, 20).Draw(t, "target"),
			ScaleUpDelay: spec.Seconds(rapid.IntRange(0, 900).Draw(t, "up")), ScaleDownDelay: spec.Seconds(rapid.IntRange(0, 900).Draw(t, "down")),
		}
	}
	return f
}

func TestDecide_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		d := autoscale.Decide(f, now)
		load, scales := f.Load, f.Scaling != nil
		within := f.DesiredReplicas >= f.Replicas.Min && f.DesiredReplicas <= f.Replicas.Max
		switch {
		case d.DesiredReplicas < f.Replicas.Min || d.DesiredReplicas > f.Replicas.Max || d.Target < f.Replicas.Min || d.Target > f.Replicas.Max:
			t.Fatalf("outside of %s: %+v", f.Replicas, d)
		case d.Reason == "" || !slices.Contains(allRules, d.Rule):
			t.Fatalf("no rule, or no reason: %+v", d)
		case scales && load.Known && load.Held+load.InFlight > 0 && d.DesiredReplicas == 0:
			t.Fatalf("zero replicas while there are requests: %+v", d)
		case scales && within && f.Starting > 0 && d.DesiredReplicas < f.DesiredReplicas:
			t.Fatalf("scaled down while a replica is starting: %+v", d)
		case scales && within && load.Known && f.DesiredReplicas == 0 && d.DesiredReplicas != d.Target:
			t.Fatalf("a delay when scaling up from zero: %+v", d)
		case !d.NextAt.IsZero() && !d.NextAt.After(now):
			t.Fatalf("NextAt is in the past: %+v", d)
		case scales && f.Scaling.Metric == "concurrency" && within && load.Known && d.DesiredReplicas < f.DesiredReplicas &&
			float64(d.DesiredReplicas)*f.Scaling.Target < float64(load.InFlight+load.Held)-0.001:
			t.Fatalf("too few replicas for %d open requests with a target of %g: %+v", load.InFlight+load.Held, f.Scaling.Target, d)
		}
	})
}

// A constant load changes the number at most once. (The facts start within the
// range: otherwise the number would change once more.)
func TestDecide_DoesNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		f.DesiredReplicas = min(max(f.DesiredReplicas, f.Replicas.Min), f.Replicas.Max)
		changes, at := 0, now
		for range 30 {
			d := autoscale.Decide(f, at)
			if d.DesiredReplicas != f.DesiredReplicas {
				changes++
				f.DesiredReplicas, f.ScaledAt = d.DesiredReplicas, at
			}
			at = at.Add(3 * minute)
		}
		if changes > 1 {
			t.Fatalf("it changed %d times", changes)
		}
		if d := autoscale.Decide(f, at.Add(24*time.Hour)); d.Rule == autoscale.RuleUpDelay || d.Rule == autoscale.RuleDownDelay {
			t.Fatalf("still delayed after a day: %+v", d)
		}
	})
}

// The number changes to the target exactly at NextAt.
func TestDecide_ChangesAtNextAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		f.ScaledAt = now.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(t, "scaled before")) * time.Second)
		f.ReadyAt = time.Time{}
		d := autoscale.Decide(f, now)
		if d.Rule != autoscale.RuleUpDelay && d.Rule != autoscale.RuleDownDelay {
			return
		}
		if before := autoscale.Decide(f, d.NextAt.Add(-time.Second)); before.DesiredReplicas != f.DesiredReplicas {
			t.Fatalf("changed before NextAt: %+v", before)
		}
		if then := autoscale.Decide(f, d.NextAt); then.DesiredReplicas != d.Target {
			t.Fatalf("did not change at NextAt: %+v", then)
		}
	})
}
