package spec

import (
	"fmt"
	"regexp"
	"strings"

	"dstack/internal/strictyaml"
)

// newerFields are fields of a service that versions after 0.18.10 added. All
// are parsed and checked; a plan rejects fields that are not implemented.
var newerFields = []field[Service]{
	{Key: nullableKey("probes"), description: "HTTP requests that check whether a replica is ready. Without probes, " +
		"a replica is ready as soon as its port accepts connections; with `model`, its server must not answer 503 " +
		"to `/health` any more, or to the list of models if it has no `/health`; an empty list turns that off.",
		shape:    listShape("list of {probes}", mappingShape("probes")).withMaxItems(maxProbes),
		examples: []string{"[{type: http, url: /health}]"},
		read:     func(r *reader, n *strictyaml.Node, s *Service) { s.Probes = r.readProbes(n) }},
	{Key: nullableKey("rate_limits"), description: "Limits for the requests of each caller.",
		shape:    listShape("list of {rate_limits}", mappingShape("rate_limits")).withMaxItems(maxRateLimits),
		examples: []string{"[{prefix: /v1/, rps: 10, burst: 20}]"},
		read:     func(r *reader, n *strictyaml.Node, s *Service) { s.RateLimits = r.readRateLimits(n) }},
	gatewayField,
	{Key: nullableKey("strip_prefix"), description: "Whether `/proxy/services/<project>/<run>` is removed from the " +
		"path of a request before it is forwarded.", defaultText: "true", shape: boolShape,
		unsupported: &unsupportedUse[Service]{what: "`false`", hint: stripHint},
		read: func(r *reader, n *strictyaml.Node, _ *Service) {
			if v, ok := r.ReadBool(n); ok && !v {
				r.addUnsupportedUse(n, n.Path, stripHint)
			}
		}},
	unsupportedField[Service]("router", "A router between the gateway and the replicas.",
		openMappingShape("mapping", anyShape),
		"remove it; requests go to the replica with the fewest requests in flight", usesAnyMapping("router")),
	unsupportedField[Service]("cors", "The origins from which web pages may call the service.", anyShape,
		"remove it; handle CORS in your service", alwaysUsed),
	unsupportedField[Service]("privileged", "Whether the container has all privileges of root on the machine.",
		boolShape, "remove it; containers run without additional privileges", usesBool),
	unsupportedField[Service]("user", "The user in the container: a name, an ID, or `user:group`.",
		patternShape("text", userExpression).orTypes("number", "boolean"),
		"remove it; switch users in `commands` instead", usesText(userExpression, "write a user or user:group")),
	unsupportedField[Service]("shell", "The shell that runs the commands.",
		patternShape("`sh`, `bash`, or an absolute path", shellExpression),
		"remove it; commands run in bash in the base image, and in sh in other images",
		usesText(shellExpression, "write sh, bash or an absolute path")),
	unsupportedField[Service]("docker", "Whether commands may start containers.", boolShape,
		"remove it; commands cannot start containers", usesBool),
	filesField,
	reposField,
	unsupportedField[Service]("dstack", "Whether commands can call the server.", boolShape,
		"remove it; give the address and a token of the server to the service in `env`", usesBool),
	unsupportedField[Service]("single_branch", "Whether only one branch is cloned.", boolShape, "remove it", usesBool),
	unsupportedField[Service]("priority", "The priority for getting a machine, from 0 to 100.",
		intShape(0, 100).withWords("whole number up to 100"),
		"remove it; runs start in the order in which they were submitted", usesInt(0, 100)),
}

// newerParams are fields of Params that versions after 0.18.10 added.
var newerParams = []field[Params]{
	{Key: nullableKey("idle_duration"), description: "How long a rented machine may be idle before it is deleted. " +
		"`off` keeps it. This is the newer name of `termination_idle_time`.",
		defaultText: "5m", shape: anyOfShape(durationShape.words+", or `off`", durationShape, minusOneShape), examples: []string{"1h", "off"},
		read: func(r *reader, n *strictyaml.Node, p *Params) { r.readIdleDuration(n, p) }},
	unsupportedField[Params]("stop_duration", "How long a replica may take to stop.", durationShape,
		"remove it; use `drain_timeout` to limit how long a replica may finish its requests", usesDuration),
	unsupportedField[Params]("utilization_policy", "Stops a run whose GPUs are mostly idle.",
		mappingShape("utilization_policy"), "remove it", usesMapping(utilizationMapping)),
	unsupportedField[Params]("tags", "Tags for resources that are created in the cloud.",
		openMappingShape("mapping of text", textShape), "remove it", usesTags),
	{Key: nullableKey("fleets"), description: "Only machines of these fleets.", defaultText: "(all)", shape: textsShape,
		examples: []string{"[lab]"},
		read:     func(r *reader, n *strictyaml.Node, p *Params) { p.Fleets = r.readFleetNames(n) }},
	unsupportedField[Params]("instances", "Only these machines.", anyShape, "remove it; use `instance_types`",
		alwaysUsed),
	unsupportedField[Params]("reservation", "The cloud reservation to use.", textShape, "remove it", usesText("", "")),
	{Key: nullableKey("availability_zones"), description: "Only machines in these zones.", defaultText: "(all)", shape: textsShape,
		examples: []string{"[us-east-1a, us-east-1b]"},
		read: func(r *reader, n *strictyaml.Node, p *Params) {
			p.AvailabilityZones = r.readTexts(n, "`availability_zones`")
		}},
	unsupportedField[Params]("startup_order", "The order in which the jobs of a run start.",
		oneOfShape(startupOrders...), "remove it; a replica has only one job", usesWord(startupOrders)),
	unsupportedField[Params]("stop_criteria", "When a run with several jobs counts as finished.",
		oneOfShape(stopCriteria...), "remove it", usesWord(stopCriteria)),
	unsupportedField[Params]("schedule", "The times at which the run starts.", mappingShape("schedule"),
		"remove it; run `dstack apply` from a scheduler such as cron", usesMapping(scheduleMapping)),
	unsupportedField[Params]("backend_options", "Options of individual backends.", anyShape, "remove it", alwaysUsed),
}

const (
	userExpression  = `^[^:\s]+(:[^:\s]+)?$`
	shellExpression = `^(sh|bash|/.+)$`

	stripHint = "remove it; the replica receives the path without /proxy/services/<project>/<run>"
)

var anyShape = shape{"anything", schema{}}

// alwaysUsed and the functions below are checks for unsupportedField. They
// report problems of the value, and whether it asks for anything.
func alwaysUsed(*reader, *strictyaml.Node) bool { return true }

// readFleetNames reads a list of fleets. Later versions write a fleet as a mapping, too,
// with the project that has it.
func (r *reader) readFleetNames(n *strictyaml.Node) []string {
	items, _ := r.ReadItems(n, "`fleets`")
	names := make([]string, 0, len(items))
	for _, item := range items {
		name := item
		if item.Kind == strictyaml.Mapping {
			name = item.Get("name")
			if project := item.Get("project"); name == nil || !project.IsNull() {
				r.Add(item, "a fleet is a name in `fleets`", "write the name of a fleet of the run's own project")
				continue
			}
		}
		text, ok := r.ReadText(name)
		switch {
		case !ok:
		case text == "" || strings.Contains(text, "/"):
			r.Add(name, fmt.Sprintf("`%.60s` is no name of a fleet", text), "write the name of a fleet of the run's own project")
		default:
			names = append(names, text)
		}
	}
	return names
}

func usesBool(r *reader, n *strictyaml.Node) bool {
	v, ok := r.ReadBool(n)
	return ok && v
}

func usesInt(low, high int) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		_, ok := r.ReadInt(n, low, high)
		return ok
	}
}

// usesBlocks reads the number of parts of a machine; 1 means that it is not
// divided.
func usesBlocks(r *reader, n *strictyaml.Node) bool {
	if n.Text == "auto" {
		return true
	}
	v, ok := r.ReadInt(n, 1, 100)
	return ok && v > 1
}

func usesDuration(r *reader, n *strictyaml.Node) bool {
	_, ok := r.readDuration(n)
	return ok
}

// usesIdleDuration reads how long something unused is kept; `off` and -1 keep it.
func usesIdleDuration(r *reader, n *strictyaml.Node) bool {
	return !isOff(n) && !isMinusOne(n) && usesDuration(r, n)
}

func usesText(expression, hint string) func(*reader, *strictyaml.Node) bool {
	like := regexp.MustCompile(expression)
	return func(r *reader, n *strictyaml.Node) bool {
		v := r.readNonEmpty(n)
		if v != "" && !like.MatchString(v) {
			r.Add(n, fmt.Sprintf("%s is not valid here", n.Describe()), hint)
			return false
		}
		return v != ""
	}
}

// The words of startup_order and stop_criteria.
var (
	startupOrders = []string{"any", "master-first", "workers-first"}
	stopCriteria  = []string{"all-done", "master-done"}
)

func usesWord(words []string) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		_, ok := r.ReadOneOf(n, words...)
		return ok
	}
}

func usesAnyMapping(name string) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		if n.Kind != strictyaml.Mapping {
			r.Add(n, fmt.Sprintf("`%s` must be a mapping, not %s", name, n.Describe()),
				fmt.Sprintf("write %s: {key: value}", name))
			return false
		}
		return true
	}
}

func usesTags(r *reader, n *strictyaml.Node) bool {
	if !usesAnyMapping("tags")(r, n) {
		return false
	}
	for _, p := range n.Pairs {
		r.ReadText(p.Value)
	}
	return len(n.Pairs) > 0
}

func usesMapping[T any](b *mapping[T]) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		var v T
		return b.read(r, n, &v)
	}
}

// utilization is the policy for stopping a run with idle GPUs.
type utilization struct {
	minPercent int
	window     Seconds
}

var utilizationMapping = newMapping("utilization_policy", "`utilization_policy`",
	"Stops a run whose GPUs are mostly idle.", []field[utilization]{
		{Key: requiredKey("min_gpu_utilization", "min_gpu_utilization: 30"),
			description: "The minimum utilization of each GPU, in percent.",
			shape:       intShape(0, 100).withWords("whole number up to 100"), examples: []string{"30"},
			read: func(r *reader, n *strictyaml.Node, u *utilization) { u.minPercent, _ = r.ReadInt(n, 0, 100) }},
		{Key: requiredKey("time_window", "time_window: 30m"),
			description: "How long the utilization may be below the minimum.", shape: durationShape.withWords(durationShape.words + ", from " + minTimeWindow.String()),
			examples: []string{"30m"},
			read:     func(r *reader, n *strictyaml.Node, u *utilization) { u.window = r.readTimeWindow(n) }},
	})

// readIdleDuration reads the newer name of termination_idle_time. `off` and -1
// mean that an idle machine is kept. A duration means that it is not, whatever a profile says.
func (r *reader) readIdleDuration(n *strictyaml.Node, p *Params) {
	if isOff(n) || isMinusOne(n) {
		p.TerminationPolicy = KeepIdle
		return
	}
	if p.TerminationIdleTime = r.readOptionalDuration(n); p.TerminationIdleTime != nil {
		p.TerminationPolicy = DeleteIdle
	}
}

// isMinusOne reports whether n is -1, the older spelling of `off` for idle times.
func isMinusOne(n *strictyaml.Node) bool {
	return n.IsScalar() && strings.TrimSpace(n.Text) == "-1"
}

// minusOneShape is -1, the older spelling of `off` for idle times.
var minusOneShape = anyOfShape("", shape{"", schema{"const": -1}}, patternShape("", `^\s*-1\s*$`))

// checkIdle reports the use of both spellings at once.
func (r *reader) checkIdle(n *strictyaml.Node) {
	idle := n.Get("idle_duration")
	for _, old := range []string{"termination_idle_time", "termination_policy"} {
		if v := n.Get(old); !v.IsNull() && !idle.IsNull() {
			r.Add(idle, fmt.Sprintf("`idle_duration` and `%s` cannot both be set", old),
				"keep `idle_duration`, and remove the other")
			return
		}
	}
}
