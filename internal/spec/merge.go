package spec

import "slices"

// defaultParams apply if neither configuration nor profile sets a field.
var defaultParams = Params{
	SpotPolicy:          "auto",
	CreationPolicy:      "reuse-or-create",
	TerminationPolicy:   DeleteIdle,
	TerminationIdleTime: new(Seconds(300)),
}

// Merge returns the effective parameters of a service: for each field the value
// of the configuration, else of the profile, else the default. Lists are
// replaced, not joined. The two spellings of retry count as one field, so that
// a profile cannot override the configuration by using the other spelling.
func Merge(s Service, p Profile) Params {
	merged := defaultParams
	merged.TerminationIdleTime = new(*defaultParams.TerminationIdleTime)
	for _, over := range []Params{p.Params, s.Params} {
		merged.overrideWith(over)
	}
	return merged
}

// overrideWith replaces the fields of p that are set in over.
func (p *Params) overrideWith(override Params) {
	overrideList(&p.Backends, override.Backends)
	overrideList(&p.Regions, override.Regions)
	overrideList(&p.InstanceTypes, override.InstanceTypes)
	overrideList(&p.Fleets, override.Fleets)
	overrideList(&p.AvailabilityZones, override.AvailabilityZones)
	if override.Retry != nil || override.RetryPolicy != nil {
		p.Retry, p.RetryPolicy = override.Retry, override.RetryPolicy
	}
	if override.MaxDuration != nil {
		p.MaxDuration = override.MaxDuration
	}
	if override.MaxPrice != nil {
		p.MaxPrice = override.MaxPrice
	}
	if override.TerminationIdleTime != nil {
		p.TerminationIdleTime = override.TerminationIdleTime
	}
	overrideText(&p.SpotPolicy, override.SpotPolicy)
	overrideText(&p.PoolName, override.PoolName)
	overrideText(&p.InstanceName, override.InstanceName)
	overrideText(&p.CreationPolicy, override.CreationPolicy)
	overrideText(&p.TerminationPolicy, override.TerminationPolicy)
}

func overrideList(to *[]string, override []string) {
	if override != nil {
		*to = slices.Clone(override)
	}
}

func overrideText(to *Text, override Text) {
	if override != "" {
		*to = override
	}
}

const defaultRetryDuration = Seconds(3600)

// RetryRule returns the events after which a replica is retried, and for how
// long. Without events it is not retried.
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
