package spec

import (
	"slices"

	"dstack/internal/strictyaml"
)

// Every machine provider of the original, by its name there.
var backends = []string{
	"aws", "azure", "cudo", "datacrunch", "dstack", "gcp", "kubernetes", "lambda", "local",
	"nebius", "oci", "remote", "runpod", "tensordock", "vastai",
}

// Every ending after which a replica can be tried again.
var retryEvents = []string{EventNoCapacity, EventInterruption, EventError}

// paramFields is the table of what a configuration and a profile share.
func (r *reader) paramFields(p *Params) []strictyaml.Field {
	word := func(to *Text, allowed ...string) func(*strictyaml.Node) {
		return func(n *strictyaml.Node) {
			if v, ok := r.OneOf(n, allowed...); ok {
				*to = Text(v)
			}
		}
	}
	fields := []strictyaml.Field{
		{Name: "backends", Read: func(n *strictyaml.Node) { p.Backends = r.backends(n) }},
		{Name: "regions", Read: func(n *strictyaml.Node) { p.Regions = r.texts(n, "`regions`", "") }},
		{Name: "instance_types", Read: func(n *strictyaml.Node) { p.InstanceTypes = r.texts(n, "`instance_types`", "") }},
		{Name: "spot_policy", Read: word(&p.SpotPolicy, "spot", "on-demand", "auto")},
		{Name: "retry", Read: func(n *strictyaml.Node) { p.Retry = r.retry(n) }},
		{Name: "retry_policy", Read: func(n *strictyaml.Node) { p.RetryPolicy = r.retryPolicy(n) }},
		{Name: "max_duration", Read: func(n *strictyaml.Node) { p.MaxDuration = r.maxDuration(n) }},
		{Name: "max_price", Read: func(n *strictyaml.Node) {
			v := r.above0(n, "the most dollars an hour, such as 1.5")
			p.MaxPrice = &v
		}},
		{Name: "pool_name", Read: r.into(&p.PoolName)},
		{Name: "instance_name", Read: r.into(&p.InstanceName)},
		{Name: "creation_policy", Read: word(&p.CreationPolicy, "reuse", "reuse-or-create")},
		{Name: "termination_policy", Read: word(&p.TerminationPolicy, "dont-destroy", "destroy-after-idle")},
		{Name: "termination_idle_time", Read: func(n *strictyaml.Node) { p.TerminationIdleTime = r.idleTime(n) }},
	}
	for i := range fields {
		fields[i].Nullable = true
	}
	return fields
}

func (r *reader) backends(n *strictyaml.Node) []string {
	items, _ := r.Items(n, "`backends`")
	names := make([]string, 0, len(items))
	for _, item := range items {
		if item.Text == "ssh" {
			r.At(item, "`ssh` is not known here", "machines reached by SSH are called `remote`")
			continue
		}
		if name, ok := r.OneOf(item, backends...); ok {
			names = append(names, name)
		}
	}
	return names
}

// retry reads a bool, or which endings are tried again.
func (r *reader) retry(n *strictyaml.Node) *Retry {
	if n.Kind != strictyaml.Mapping {
		v, ok := r.Bool(n)
		if !ok {
			return nil
		}
		return &Retry{Always: &v}
	}
	retry := &Retry{}
	r.Fields(n, "`retry`", []strictyaml.Field{
		{Name: "on_events", Required: "on_events: [no-capacity, interruption, error]", Read: func(n *strictyaml.Node) {
			retry.OnEvents = r.retryEvents(n)
		}},
		{Name: "duration", Nullable: true, Read: func(n *strictyaml.Node) { retry.Duration = r.durationIfAny(n) }},
	})
	return retry
}

func (r *reader) retryEvents(n *strictyaml.Node) []string {
	items, ok := r.Items(n, "`on_events`")
	if ok && len(items) == 0 {
		r.At(n, "`on_events` cannot be empty", "name at least one of: no-capacity, interruption, error")
	}
	events := make([]string, 0, len(items))
	for _, item := range items {
		if e, ok := r.OneOf(item, retryEvents...); ok && !slices.Contains(events, e) {
			events = append(events, e)
		}
	}
	return events
}

// retryPolicy reads the deprecated spelling, in which a duration means yes.
func (r *reader) retryPolicy(n *strictyaml.Node) *RetryPolicy {
	p := &RetryPolicy{}
	r.Fields(n, "`retry_policy`", []strictyaml.Field{
		{Name: "retry", Read: func(n *strictyaml.Node) { p.Retry, _ = r.Bool(n) }},
		{Name: "duration", Nullable: true, Read: func(n *strictyaml.Node) { p.Duration = r.durationIfAny(n) }},
	})
	p.Retry = p.Retry || p.Duration != nil
	return p
}

func (r *reader) durationIfAny(n *strictyaml.Node) *Seconds {
	v, ok := r.duration(n)
	if !ok {
		return nil
	}
	return &v
}

// idleTime reads a duration; a bare off is 0, as older YAML had it.
func (r *reader) idleTime(n *strictyaml.Node) *Seconds {
	if isOff(n) && !n.Quoted {
		return new(Seconds)
	}
	return r.durationIfAny(n)
}

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
		merged.cover(over)
	}
	return merged
}

func (p *Params) cover(over Params) {
	coverList(&p.Backends, over.Backends)
	coverList(&p.Regions, over.Regions)
	coverList(&p.InstanceTypes, over.InstanceTypes)
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
	coverText(&p.SpotPolicy, over.SpotPolicy)
	coverText(&p.PoolName, over.PoolName)
	coverText(&p.InstanceName, over.InstanceName)
	coverText(&p.CreationPolicy, over.CreationPolicy)
	coverText(&p.TerminationPolicy, over.TerminationPolicy)
}

func coverList(to *[]string, over []string) {
	if over != nil {
		*to = slices.Clone(over)
	}
}

func coverText(to *Text, over Text) {
	if over != "" {
		*to = over
	}
}

// How long a replica is tried again where nobody says.
const defaultRetry = Seconds(3600)

// RetryRule returns after which endings a replica is tried again, and for
// how long. No events: it is not tried again.
func (p Params) RetryRule() (events []string, window Seconds) {
	window = defaultRetry
	var asked *Seconds
	switch {
	case p.Retry != nil && p.Retry.Always != nil:
		if *p.Retry.Always {
			events = slices.Clone(retryEvents)
		}
	case p.Retry != nil:
		events, asked = slices.Clone(p.Retry.OnEvents), p.Retry.Duration
	case p.RetryPolicy != nil && p.RetryPolicy.Retry:
		events, asked = slices.Clone(retryEvents), p.RetryPolicy.Duration
	}
	if asked != nil {
		window = *asked
	}
	return events, window
}
