package spec

import "slices"

// What holds where neither a configuration nor a profile says anything.
var defaultParams = Params{
	SpotPolicy:          "auto",
	CreationPolicy:      "reuse-or-create",
	TerminationPolicy:   "destroy-after-idle",
	TerminationIdleTime: new(Seconds(300)),
}

// Merge returns what holds for a service: what its configuration says, else
// what the profile says, else the default, field by field. Lists are
// replaced, not joined. The two spellings of retry are one field, so that a
// profile cannot overrule the configuration by using the other spelling.
func Merge(s Service, p Profile) Params {
	merged := defaultParams
	merged.TerminationIdleTime = new(*defaultParams.TerminationIdleTime)
	for _, over := range []Params{p.Params, s.Params} {
		merged.overrideWith(over)
	}
	return merged
}

func (p *Params) overrideWith(over Params) {
	overrideList(&p.Backends, over.Backends)
	overrideList(&p.Regions, over.Regions)
	overrideList(&p.InstanceTypes, over.InstanceTypes)
	if over.Retry != nil || over.RetryPolicy != nil {
		p.Retry, p.RetryPolicy = over.Retry, over.RetryPolicy
	}
	if over.MaxDuration != nil {
		p.MaxDuration = over.MaxDuration
	}
	if over.MaxPrice != nil {
		p.MaxPrice = over.MaxPrice
	}
	if over.TerminationIdleTime != nil {
		p.TerminationIdleTime = over.TerminationIdleTime
	}
	overrideText(&p.SpotPolicy, over.SpotPolicy)
	overrideText(&p.PoolName, over.PoolName)
	overrideText(&p.InstanceName, over.InstanceName)
	overrideText(&p.CreationPolicy, over.CreationPolicy)
	overrideText(&p.TerminationPolicy, over.TerminationPolicy)
}

func overrideList(to *[]string, over []string) {
	if over != nil {
		*to = slices.Clone(over)
	}
}

func overrideText(to *Text, over Text) {
	if over != "" {
		*to = over
	}
}

// How long a replica is tried again where nobody says.
const defaultRetryDuration = Seconds(3600)

// RetryRule returns after which endings a replica is tried again, and for
// how long. No events: it is not tried again.
func (p Params) RetryRule() (events []string, window Seconds) {
	window = defaultRetryDuration
	var asked *Seconds
	switch {
	case p.Retry != nil && p.Retry.Always != nil:
		if *p.Retry.Always {
			events = slices.Clone(allRetryEvents)
		}
	case p.Retry != nil:
		events, asked = slices.Clone(p.Retry.OnEvents), p.Retry.Duration
	case p.RetryPolicy != nil && p.RetryPolicy.Retry:
		events, asked = slices.Clone(allRetryEvents), p.RetryPolicy.Duration
	}
	if asked != nil {
		window = *asked
	}
	return events, window
}
