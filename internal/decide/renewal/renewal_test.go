package renewal_test

import (
	"testing"
	"time"

	"dstack/internal/decide/renewal"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func TestNextTry(t *testing.T) {
	present := renewal.Facts{NotBefore: now.Add(-60 * day), NotAfter: now.Add(30*day + time.Hour)}
	with := func(change func(*renewal.Facts)) renewal.Facts {
		f := present
		change(&f)
		return f
	}
	for _, c := range []struct {
		name  string
		facts renewal.Facts
		want  time.Time
	}{
		{"without a certificate at once", renewal.Facts{}, time.Time{}},
		{"in the last third of its life", renewal.Facts{NotBefore: now, NotAfter: now.Add(90 * day)}, now.Add(60 * day)},
		{"spread over a fiftieth of its life", renewal.Facts{NotBefore: now, NotAfter: now.Add(100 * day), Spread: 0.5}, now.Add(100*day - 100*day/3 + day)},
		{"when the issuer suggests, if that is earlier", with(func(f *renewal.Facts) { f.Suggested = now.Add(-day) }), now.Add(-day)},
		{"when the issuer suggests, if that is later", with(func(f *renewal.Facts) { f.Suggested = now.Add(20 * day) }), now.Add(20 * day)},
		{"not when the issuer suggests too late", with(func(f *renewal.Facts) { f.Suggested = now.Add(30 * day) }),
			present.NotAfter.Add(-(90*day + time.Hour) / 3)},
		{"soon after the issuer did not answer", renewal.Facts{Failures: 1, Failure: renewal.Unreachable, TriedAt: now}, now.Add(10 * time.Second)},
		{"at most 10 minutes after that", renewal.Facts{Failures: 50, Failure: renewal.Unreachable, TriedAt: now}, now.Add(10 * time.Minute)},
		{"late after rejections", renewal.Facts{Failures: 3, Failure: renewal.Rejected, TriedAt: now}, now.Add(30 * time.Minute)},
		{"earlier near the end", renewal.Facts{NotBefore: now.Add(-89 * day), NotAfter: now.Add(2 * time.Hour), Failures: 9,
			Failure: renewal.Rejected, TriedAt: now}, now.Add(12 * time.Minute)},
		{"not before the issuer's hold ends", renewal.Facts{Failures: 1, Failure: renewal.Limited, TriedAt: now, HoldUntil: now.Add(3 * day)}, now.Add(3 * day)},
		{"not later than 8 days", renewal.Facts{Failures: 1, Failure: renewal.Limited, TriedAt: now, HoldUntil: now.Add(300 * day)}, now.Add(8 * day)},
		{"an hour after a limit without a time", renewal.Facts{Failures: 1, Failure: renewal.Limited, TriedAt: now}, now.Add(time.Hour)},
		{"an hour after a limit also near the end", renewal.Facts{NotBefore: now.Add(-89 * day), NotAfter: now.Add(2 * time.Hour), Failures: 1,
			Failure: renewal.Limited, TriedAt: now}, now.Add(time.Hour)},
		{"not more often than every minute near the end", renewal.Facts{NotBefore: now.Add(-89 * day), NotAfter: now.Add(2 * time.Minute), Failures: 9,
			Failure: renewal.Rejected, TriedAt: now}, now.Add(time.Minute)},
		{"a failed renewal does not make the next one earlier than it is due", renewal.Facts{NotBefore: now, NotAfter: now.Add(90 * day), Failures: 1,
			Failure: renewal.Unreachable, TriedAt: now}, now.Add(60 * day)},
		{"spread over a quarter of the wait", renewal.Facts{Failures: 1, Failure: renewal.Rejected, TriedAt: now, Spread: 0.8}, now.Add(72 * time.Second)},
		{"soon after an unknown failure", renewal.Facts{Failures: 1, Failure: "new", TriedAt: now}, now.Add(5 * time.Second)},
	} {
		if got := renewal.NextTry(c.facts); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Let's Encrypt refuses a name for an hour after five failed validations.
func TestNextTry_AtMostFourRejectionsAnHour(t *testing.T) {
	at := now
	for failures := 1; failures <= 4; failures++ {
		at = renewal.NextTry(renewal.Facts{Failures: failures, Failure: renewal.Rejected, TriedAt: at})
	}
	if at.Sub(now) <= time.Hour {
		t.Fatalf("the fifth try is %v after the first", at.Sub(now))
	}
}

func TestWarningDays(t *testing.T) {
	for _, c := range []struct {
		life, left time.Duration
		want       int
	}{
		{90 * day, 22 * day, 0},
		{90 * day, 21 * day, 21},
		{90 * day, 7*day + time.Second, 21},
		{90 * day, 7 * day, 7},
		{90 * day, day, 1},
		{90 * day, -time.Hour, 1},
		{30 * day, 10 * day, 0}, // renewed in the last 10 days
		{30 * day, 7 * day, 7},
		{6 * day, 2 * day, 0},
		{6 * day, 20 * time.Hour, 1},
		{2 * day, time.Minute, 0},
	} {
		if got := renewal.WarningDays(now.Add(c.left-c.life), now.Add(c.left), now); got != c.want {
			t.Errorf("%v of %v left: %d days, want %d", c.left, c.life, got, c.want)
		}
	}
}
