// Package renewal decides when a certificate is ordered, renewed and warned about.
package renewal

import "time"

// Facts is what is known of one certificate and of the orders for it.
type Facts struct {
	NotBefore, NotAfter time.Time // of the present certificate; zero: there is none
	Suggested           time.Time // when its issuer suggests to renew it; zero: it suggests nothing
	Failures            int       // tries that failed in a row
	Failure             Failure   // of the last try, if Failures is not 0
	TriedAt             time.Time // when the last try ended; zero: there was none
	HoldUntil           time.Time // before which the issuer wants no order
	// Spread is a number in [0, 1) that differs between certificates, so that they are not
	// all renewed at once.
	Spread float64
}

// Failure says why a try failed.
type Failure string

// The failures.
const (
	Misdirected Failure = "misdirected" // the name does not lead here, so nothing was ordered
	Unreachable Failure = "unreachable" // the issuer does not answer, or answers with an error of its own
	Limited     Failure = "limited"     // the issuer's limit of orders is reached
	Rejected    Failure = "rejected"    // the issuer checked the name, or the order, and rejected it
	Provider    Failure = "provider"    // the DNS provider failed
	Broken      Failure = "broken"      // anything else, such as the storage
)

// delays are the waits after the first, the second and later failures. After a rejection they keep
// below the five failed validations an hour that Let's Encrypt allows for a name.
var delays = map[Failure][]time.Duration{
	Misdirected: {5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute},
	Unreachable: {10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute},
	Limited:     {time.Hour, 2 * time.Hour, 6 * time.Hour},
	Rejected:    {time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour},
	Provider:    {20 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour},
	Broken:      {5 * time.Second, 20 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute},
}

// maxHold limits how long an issuer may hold orders back at once.
const maxHold = 8 * 24 * time.Hour

// NextTry returns when the certificate is ordered or renewed.
func NextTry(f Facts) time.Time {
	next := time.Time{}
	if !f.NotAfter.IsZero() {
		next = RenewAt(f.NotBefore, f.NotAfter, f.Suggested, f.Spread)
	}
	if f.Failures > 0 {
		if after := f.TriedAt.Add(delayAfter(f)); after.After(next) {
			next = after
		}
	}
	if hold := limitHold(f); hold.After(next) {
		next = hold
	}
	return next
}

// delayAfter returns how long to wait after a failure. Near the end of the present
// certificate the waits are shorter, so that some tries remain.
func delayAfter(f Facts) time.Duration {
	steps := delays[f.Failure]
	if steps == nil {
		steps = delays[Broken]
	}
	delay := steps[min(f.Failures, len(steps))-1]
	delay += time.Duration(f.Spread * float64(delay) / 4)
	if left := f.NotAfter.Sub(f.TriedAt); !f.NotAfter.IsZero() && left > 0 && f.Failure != Limited {
		delay = min(delay, max(left/10, time.Minute))
	}
	return delay
}

func limitHold(f Facts) time.Time {
	if latest := f.TriedAt.Add(maxHold); !f.TriedAt.IsZero() && f.HoldUntil.After(latest) {
		return latest
	}
	return f.HoldUntil
}

// RenewAt returns when a certificate is renewed: when its issuer suggests, or in the last third of
// its life. A suggestion in the last tenth comes too late.
func RenewAt(notBefore, notAfter, suggested time.Time, spread float64) time.Time {
	life := notAfter.Sub(notBefore)
	if !suggested.IsZero() && suggested.Before(notAfter.Add(-life/10)) {
		return suggested
	}
	return notAfter.Add(-life / 3).Add(time.Duration(spread * float64(life) / 50))
}

// warnings are the days before the end of a certificate at which somebody is warned.
var warnings = []int{1, 7, 21}

// WarningDays returns the number of days whose warning is due: 1, 7 or 21 for a
// certificate that ends within so many days; 0 if none is due. A number counts only for certificates that
// live more than three times as long: others are renewed later than that.
func WarningDays(notBefore, notAfter, now time.Time) int {
	for _, days := range warnings {
		before := time.Duration(days) * 24 * time.Hour
		if notAfter.Sub(notBefore) >= 3*before && !now.Before(notAfter.Add(-before)) {
			return days
		}
	}
	return 0
}
