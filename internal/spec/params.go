package spec

import (
	"slices"

	"dstack/internal/strictyaml"
)

// Every machine provider of the original, by its name there.
var backends = []string{
	"aws", "azure", "cudo", "datacrunch", "dstack", "gcp", "kubernetes", "lambda", "local",
	"nebius", "oci", "remote", "runpod", "tensordock", "vastai",
	"amddevcloud", "cloudrift", "digitalocean", "hotaisle", "vultr", // of the later dialect
}

// Every ending after which a replica can be tried again.
var retryEvents = []string{EventNoCapacity, EventInterruption, EventError}

var backendShape = define("backend", oneOf(backends...))

// paramFields is what a configuration and a profile share, in the order of
// the wire.
var paramFields = []field[Params]{
	{Key: nullable("backends"), about: "Only machines of these backends.", usual: "(all)", shape: listOf("list of: "+backendShape.words, backendShape), examples: []string{"[aws, gcp]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.Backends = r.backends(n) }},
	{Key: nullable("regions"), about: "Only machines in these regions.", usual: "(all)", shape: textsShape, examples: []string{"[eu-west-1, eu-west-2]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.Regions = r.texts(n, "`regions`") }},
	{Key: nullable("instance_types"), about: "Only machines of these types.", usual: "(all)", shape: textsShape, examples: []string{"[g6.xlarge]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.InstanceTypes = r.texts(n, "`instance_types`") }},
	{Key: nullable("spot_policy"), about: "Whether machines may be spot machines, which are cheaper and can be taken away.", usual: "auto", shape: oneOf("spot", "on-demand", "auto"),
		read: word(func(p *Params) *Text { return &p.SpotPolicy }, "spot", "on-demand", "auto")},
	{Key: nullable("retry"), about: "Which endings of a replica are tried again, and for how long.", usual: "false", shape: anyOf("`true`, `false`, or {retry}", boolShape, blockShape("retry")), examples: []string{"true", "{on_events: [no-capacity], duration: 1h}"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.Retry = r.retry(n) }},
	{Key: nullable("retry_policy"), about: "The old spelling of `retry`.", shape: blockShape("retry_policy"),
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.RetryPolicy = r.retryPolicy(n) }},
	{Key: nullable("max_duration"), about: "How long the run may take in all.", usual: "off", shape: durationShape.like(durationShape.words + ", or `off`"), examples: []string{"8h"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.MaxDuration = r.maxDuration(n) }},
	{Key: nullable("max_price"), about: "The most that a machine may cost, in dollars an hour.", shape: aboveZeroShape, examples: []string{"1.5"},
		read: func(r *reader, n *strictyaml.Node, p *Params) {
			v := r.above0(n, "the most dollars an hour, such as 1.5")
			p.MaxPrice = &v
		}},
	{Key: nullable("pool_name"), about: "The pool of machines, in old files.", shape: textShape,
		unmet: &unmet[Params]{hint: "remove it; there are no pools", asks: func(p *Params) bool { return p.PoolName != "" }},
		read:  into(func(p *Params) *Text { return &p.PoolName })},
	{Key: nullable("instance_name"), about: "Only the machine of this name.", shape: textShape,
		unmet: &unmet[Params]{hint: "remove it; use `instance_types` to choose a machine", asks: func(p *Params) bool { return p.InstanceName != "" }},
		read:  into(func(p *Params) *Text { return &p.InstanceName })},
	{Key: nullable("creation_policy"), about: "Whether machines may be rented, or only those that are there be used.", usual: "reuse-or-create", shape: oneOf("reuse", "reuse-or-create"),
		unmet: &unmet[Params]{hint: "remove it", asks: func(p *Params) bool { return p.CreationPolicy != "" }},
		read:  word(func(p *Params) *Text { return &p.CreationPolicy }, "reuse", "reuse-or-create")},
	{Key: nullable("termination_policy"), about: "Whether a rented machine is given back when it is idle.", usual: "destroy-after-idle", shape: oneOf("dont-destroy", "destroy-after-idle"),
		unmet: &unmet[Params]{hint: "remove it", asks: func(p *Params) bool { return p.TerminationPolicy != "" && !p.Renamed }},
		read:  word(func(p *Params) *Text { return &p.TerminationPolicy }, "dont-destroy", "destroy-after-idle")},
	{Key: nullable("termination_idle_time"), about: "How long a rented machine may be idle before it is given back.", usual: "5m", shape: durationShape, examples: []string{"10m"},
		unmet: &unmet[Params]{hint: "remove it", asks: func(p *Params) bool { return p.TerminationIdleTime != nil && !p.Renamed }},
		read:  func(r *reader, n *strictyaml.Node, p *Params) { p.TerminationIdleTime = r.durationIfAny(n) }},
}

func (r *reader) backends(n *strictyaml.Node) []string {
	items, _ := r.Items(n, "`backends`")
	names := make([]string, 0, len(items))
	for _, item := range items {
		if name := r.backend(item); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// backend reads the name of one, or "" with a problem.
func (r *reader) backend(n *strictyaml.Node) string {
	if n.Text == "ssh" {
		r.At(n, "`ssh` is not known here", "machines reached by SSH are called `remote`")
		return ""
	}
	name, _ := r.OneOf(n, backends...)
	return name
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
	if retryBlock.into(r, n, retry) && n.Get("on_events") == nil {
		retry.OnEvents = slices.Clone(retryEvents) // as the later dialect has it
	}
	return retry
}

var retryBlock = newBlock("retry", "`retry`", "Which endings are tried again.", []field[Retry]{
	{Key: plain("on_events"), about: "The endings: no machine could be had, the machine was lost, the command failed.", usual: "[no-capacity, interruption, error]",
		shape: shape{"list of: " + oneOf(retryEvents...).words, schema{"type": "array", "minItems": 1, "items": oneOf(retryEvents...).schema}}, examples: []string{"[no-capacity, interruption]"},
		read: func(r *reader, n *strictyaml.Node, retry *Retry) { retry.OnEvents = r.retryEvents(n) }},
	{Key: nullable("duration"), about: "How long after the ending it is tried.", usual: "1h", shape: durationShape, examples: []string{"30m"},
		read: func(r *reader, n *strictyaml.Node, retry *Retry) { retry.Duration = r.durationIfAny(n) }},
})

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

var retryPolicyBlock = newBlock("retry_policy", "`retry_policy`", "The old spelling of `retry`: after every ending.", []field[RetryPolicy]{
	{Key: plain("retry"), about: "Whether it is tried again.", usual: "false", shape: boolShape,
		read: func(r *reader, n *strictyaml.Node, p *RetryPolicy) { p.Retry, _ = r.Bool(n) }},
	{Key: nullable("duration"), about: "How long. With it, `retry` is true.", usual: "1h", shape: durationShape,
		read: func(r *reader, n *strictyaml.Node, p *RetryPolicy) { p.Duration = r.durationIfAny(n) }},
})

// retryPolicy reads the deprecated spelling, in which a duration means yes.
func (r *reader) retryPolicy(n *strictyaml.Node) *RetryPolicy {
	p := &RetryPolicy{}
	retryPolicyBlock.into(r, n, p)
	p.Retry = p.Retry || p.Duration != nil
	return p
}
