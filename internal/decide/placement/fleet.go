package placement

import "dstack/internal/dstack"

// Suits returns a function that reports whether an offer that nothing is placed on meets requirements.
func Suits(need dstack.Requirements) func(dstack.Offer) bool {
	matcher := newMatcher(need)
	return func(o dstack.Offer) bool { return matcher.findFailure(&o, &noAllocation) < 0 }
}
