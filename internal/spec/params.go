package spec

import (
	"slices"

	"dstack/internal/strictyaml"
)

// backendNames are the backends of the original dstack. They are accepted in
// files whether or not this server supports them.
var backendNames = slices.Concat([]string{
	"aws", "azure", "cudo", "datacrunch", "dstack", "gcp", "kubernetes", "lambda", "local",
	"nebius", "oci", "remote", "runpod", "tensordock", "vastai",
}, laterBackends)

// acceptedBackends are backendNames, and what everybody calls the backend remote.
var acceptedBackends = append(slices.Clone(backendNames), "ssh")

// laterBackends are the backends that 0.18.10 does not have.
var laterBackends = []string{
	"amddevcloud", "cloudrift", "crusoe", "daytona", "digitalocean", "hotaisle", "jarvislabs", "lium", "seeweb", "slurm",
	"verda", "vultr",
}

// allRetryEvents are the events after which a replica can be retried.
var allRetryEvents = []string{EventNoCapacity, EventInterruption, EventError}

var backendShape = defineShape("backend", oneOfShape(acceptedBackends...))

// paramFields are the fields that configurations and profiles share, in the
// order of the wire format.
var paramFields = []field[Params]{
	{Key: nullableKey("backends"), description: "Only machines of these backends.", defaultText: "(all)",
		shape: listShape("list of: "+backendShape.words, backendShape), examples: []string{"[aws, gcp]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.Backends = r.readBackends(n) }},
	{Key: nullableKey("regions"), description: "Only machines in these regions.", defaultText: "(all)",
		shape: textsShape, examples: []string{"[eu-west-1, eu-west-2]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.Regions = r.readTexts(n, "`regions`") }},
	{Key: nullableKey("instance_types"), description: "Only machines of these types.", defaultText: "(all)",
		shape: textsShape, examples: []string{"[g6.xlarge]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.InstanceTypes = r.readTexts(n, "`instance_types`") }},
	{Key: nullableKey("spot_policy"), description: "Whether to use spot machines, which are cheaper and can be " +
		"taken away at any time.", defaultText: "auto", shape: oneOfShape("spot", "on-demand", "auto"),
		read: readWordInto(func(p *Params) *Text { return &p.SpotPolicy }, "spot", "on-demand", "auto")},
	{Key: nullableKey("retry"), description: "The events after which a replica is retried before it was ever ready, " +
		"and for how long.", defaultText: "false",
		shape:    anyOfShape("`true`, `false`, or {retry}", boolShape, mappingShape("retry")),
		examples: []string{"true", "{on_events: [no-capacity], duration: 1h}"},
		read:     func(r *reader, n *strictyaml.Node, p *Params) { p.Retry = r.readRetry(n) }},
	{Key: nullableKey("retry_policy"), description: "The deprecated spelling of `retry`.",
		shape: mappingShape("retry_policy"),
		read:  func(r *reader, n *strictyaml.Node, p *Params) { p.RetryPolicy = r.readRetryPolicy(n) }},
	{Key: nullableKey("max_duration"), description: "How long the run may last in total.", defaultText: "off",
		shape: durationShape.withWords(durationShape.words + ", or `off`"), examples: []string{"8h"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.MaxDuration = r.readMaxDuration(n) }},
	{Key: nullableKey("max_price"), description: "The maximum price of a machine, in dollars per hour.",
		shape: aboveZeroShape, examples: []string{"1.5"},
		read: func(r *reader, n *strictyaml.Node, p *Params) {
			v := r.readPositive(n, "the maximum price in dollars per hour, such as 1.5")
			p.MaxPrice = &v
		}},
	{Key: nullableKey("pool_name"), description: "A name for the machines that runs share. It selects nothing: every " +
		"run may use all machines of its project's backends. Deprecated.", shape: textShape,
		read: readTextInto(func(p *Params) *Text { return &p.PoolName })},
	{Key: nullableKey("instance_name"), description: "Only the existing machine with this name, as `dstack ps -v` " +
		"shows it.", shape: textShape,
		read: readTextInto(func(p *Params) *Text { return &p.InstanceName })},
	{Key: nullableKey("creation_policy"), description: "Whether new machines may be rented, or only existing ones " +
		"are used.", defaultText: "reuse-or-create", shape: oneOfShape("reuse", "reuse-or-create"),
		read: readWordInto(func(p *Params) *Text { return &p.CreationPolicy }, "reuse", "reuse-or-create")},
	{Key: nullableKey("termination_policy"), description: "Whether a rented machine is deleted when it is idle. The " +
		"server's own machine never is.",
		defaultText: "destroy-after-idle", shape: oneOfShape(KeepIdle, DeleteIdle),
		read: readWordInto(func(p *Params) *Text { return &p.TerminationPolicy }, KeepIdle, DeleteIdle)},
	{Key: nullableKey("termination_idle_time"),
		description: "How long a rented machine may be idle before it is deleted.", defaultText: "5m",
		shape: durationShape, examples: []string{"10m"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { p.TerminationIdleTime = r.readTerminationIdleTime(n) }},
}

func (r *reader) readBackends(n *strictyaml.Node) []string {
	items, _ := r.ReadItems(n, "`backends`")
	names := make([]string, 0, len(items))
	for _, item := range items {
		if name := r.readBackend(item); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// readBackend reads the name of a backend; empty if it is invalid. Both names of the
// backend of machines that are reached by SSH are read as the one that published clients
// know.
func (r *reader) readBackend(n *strictyaml.Node) string {
	name, _ := r.ReadOneOf(n, acceptedBackends...)
	if name == "ssh" {
		return BackendSSH
	}
	return name
}

// TitleBackends returns names of backends as people write them: BackendSSH is ssh.
func TitleBackends(names []string) []string {
	titles := slices.Clone(names)
	for i, name := range titles {
		if name == BackendSSH {
			titles[i] = "ssh"
		}
	}
	return titles
}

// readRetry reads a boolean, or a mapping of events and duration.
func (r *reader) readRetry(n *strictyaml.Node) *Retry {
	if n.Kind != strictyaml.Mapping {
		v, ok := r.ReadBool(n)
		if !ok {
			return nil
		}
		return &Retry{Always: &v}
	}
	retry := &Retry{}
	if retryMapping.read(r, n, retry) && n.Get("on_events") == nil {
		retry.OnEvents = slices.Clone(allRetryEvents) // the default of later versions of dstack
	}
	return retry
}

var retryMapping = newMapping("retry", "`retry`", "The events after which a replica is retried.", []field[Retry]{
	{Key: plainKey("on_events"), description: "The events: no machine is available, the machine was lost, the " +
		"command failed.", defaultText: "[no-capacity, interruption, error]",
		shape: shape{"list of: " + oneOfShape(allRetryEvents...).words,
			schema{"type": "array", "minItems": 1, "items": oneOfShape(allRetryEvents...).schema}},
		examples: []string{"[no-capacity, interruption]"},
		read:     func(r *reader, n *strictyaml.Node, retry *Retry) { retry.OnEvents = r.readRetryEvents(n) }},
	{Key: nullableKey("duration"), description: "How long the replica is retried after the event.", defaultText: "1h",
		shape: durationShape, examples: []string{"30m"},
		read: func(r *reader, n *strictyaml.Node, retry *Retry) { retry.Duration = r.readOptionalDuration(n) }},
})

func (r *reader) readRetryEvents(n *strictyaml.Node) []string {
	items, ok := r.ReadItems(n, "`on_events`")
	if ok && len(items) == 0 {
		r.Add(n, "`on_events` cannot be empty", "add at least one of: no-capacity, interruption, error")
	}
	events := make([]string, 0, len(items))
	for _, item := range items {
		if e, ok := r.ReadOneOf(item, allRetryEvents...); ok && !slices.Contains(events, e) {
			events = append(events, e)
		}
	}
	return events
}

var retryPolicyMapping = newMapping("retry_policy", "`retry_policy`",
	"The deprecated spelling of `retry`, which covers all events.", []field[RetryPolicy]{
		{Key: plainKey("retry"), description: "Whether a replica is retried.", defaultText: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, p *RetryPolicy) { p.Retry, _ = r.ReadBool(n) }},
		{Key: nullableKey("duration"), description: "How long a replica is retried. Setting it implies `retry: true`.",
			defaultText: "1h", shape: durationShape,
			read: func(r *reader, n *strictyaml.Node, p *RetryPolicy) { p.Duration = r.readOptionalDuration(n) }},
	})

// readRetryPolicy reads the deprecated spelling of retry, in which a duration
// implies true.
func (r *reader) readRetryPolicy(n *strictyaml.Node) *RetryPolicy {
	p := &RetryPolicy{}
	retryPolicyMapping.read(r, n, p)
	p.Retry = p.Retry || p.Duration != nil
	return p
}
