package spec

import (
	"fmt"
	"regexp"
	"strings"

	"dstack/internal/strictyaml"
)

// laterFields are those of later versions that belong to a service. They are
// read and checked; a plan refuses those that nothing acts on.
var laterFields = []field[Service]{
	{Key: nullable("probes"), about: "What a replica is asked before it gets requests. Without any, it is ready when its port accepts connections.", shape: listOf("list of {probes}", blockShape("probes")).atMostItems(mostProbes), examples: []string{"[{type: http, url: /health}]"},
		read: func(r *reader, n *strictyaml.Node, s *Service) { s.Probes = r.probes(n) }},
	{Key: nullable("rate_limits"), about: "How many requests one caller may send.", shape: listOf("list of {rate_limits}", blockShape("rate_limits")).atMostItems(mostRateLimits), examples: []string{"[{prefix: /v1/, rps: 10, burst: 20}]"},
		read: func(r *reader, n *strictyaml.Node, s *Service) { s.RateLimits = r.rateLimits(n) }},
	{Key: nullable("gateway"), about: "The gateway that publishes the service, by its name. `true` and `false` both leave it to the server.",
		shape: anyOf("name, `true` or `false`", filledShape), examples: []string{"my-gateway"},
		unmet: &unmet[Service]{what: "gateways by name", hint: gatewayHint},
		read: func(r *reader, n *strictyaml.Node, _ *Service) {
			if n.Kind != strictyaml.Bool && r.filled(n) != "" {
				r.note(n, n.Path, gatewayHint)
			}
		}},
	{Key: nullable("strip_prefix"), about: "Whether `/proxy/services/<project>/<run>` is taken off the path before a request is passed on.", usual: "true", shape: boolShape,
		unmet: &unmet[Service]{what: "`false`", hint: stripHint},
		read: func(r *reader, n *strictyaml.Node, _ *Service) {
			if v, ok := r.Bool(n); ok && !v {
				r.note(n, n.Path, stripHint)
			}
		}},
	later[Service]("router", "A router between the gateway and the replicas.", mappingOf("mapping", anyShape), "requests go to the replica with the fewest of them", asMapping("router")),
	later[Service]("cors", "Which web pages may call the service.", anyShape, "answer CORS requests in your service", anything),
	later[Service]("privileged", "Whether the container may do everything that its machine's root may.", boolShape, "containers run without extra rights", asBool),
	later[Service]("user", "The user in the container: `name`, `id`, or `user:group`.", pattern("text", userExpression).or("number", "boolean"), "remove it, or switch users in `commands`", asText(userExpression, "write a user, or user:group")),
	later[Service]("shell", "The shell that runs the commands.", pattern("`sh`, `bash`, or an absolute path", shellExpression), "commands run in bash, with an image of your own in sh", asText(shellExpression, "write sh, bash or an absolute path")),
	later[Service]("docker", "Whether commands may start containers.", boolShape, "commands cannot start containers", asBool),
	later[Service]("files", "Files of yours to bring into the container: `local:container`, or one path for both.", listOf("list of {files}", anyOf("", pattern("", "^[^:]").or("number", "boolean"), blockShape("files"))), "the folder that you apply from is uploaded whole", asFiles),
	later[Service]("repos", "Git repositories to clone into the container.", anyShape, "the folder that you apply from is uploaded whole", anything),
	later[Service]("single_branch", "Whether only one branch is cloned.", boolShape, "remove it", asBool),
	later[Service]("priority", "Which run gets a machine first, from 0 to 100.", wholeBetween(0, 100).like("whole number up to 100"), "runs are started in the order in which they were submitted", asWhole(0, 100)),
}

// laterParams are those that a profile may say, too.
var laterParams = []field[Params]{
	{Key: nullable("idle_duration"), about: "How long a rented machine may be idle before it is given back; `off`: for ever. The new spelling of `termination_idle_time`.",
		usual: "5m", shape: anyOf(durationShape.words+", or `off`", durationShape, shape{"", schema{"const": -1}}), examples: []string{"1h", "off"},
		unmet: &unmet[Params]{hint: "remove it", asks: func(p *Params) bool { return p.Renamed }},
		read:  func(r *reader, n *strictyaml.Node, p *Params) { r.idleDuration(n, p) }},
	later[Params]("stop_duration", "How long a replica may take to stop.", durationShape, "remove it; `drain_timeout` is how long a replica may finish its requests", asDuration),
	later[Params]("utilization_policy", "When a run whose GPUs do little is stopped.", blockShape("utilization_policy"), "remove it", asBlock(utilizationBlock)),
	later[Params]("tags", "Labels for what is made in the cloud.", mappingOf("mapping of text", textShape), "remove it", asTags),
	later[Params]("fleets", "Only machines of these fleets.", textsShape, "use `backends`, `regions` or `instance_types`", asList),
	later[Params]("instances", "Only these machines.", anyShape, "use `instance_types`", anything),
	later[Params]("reservation", "The cloud's reservation to use.", textShape, "remove it", asText("", "")),
	later[Params]("availability_zones", "Only machines in these zones.", textsShape, "use `regions`", asList),
	later[Params]("startup_order", "In which order the jobs of a run begin.", textShape, "a replica is one job; remove it", asText("", "")),
	later[Params]("stop_criteria", "When a run of many jobs has ended.", textShape, "remove it", asText("", "")),
	later[Params]("schedule", "When the run begins, again and again.", anyShape, "run apply from a scheduler of your own", anything),
	later[Params]("backend_options", "What only one backend understands.", anyShape, "remove it", anything),
}

const (
	userExpression  = `^[^:\s]+(:[^:\s]+)?$`
	shellExpression = `^(sh|bash|/.+)$`

	gatewayHint = "remove it; the server publishes the service itself"
	stripHint   = "remove it; the path is passed on without /proxy/services/<project>/<run>"
)

var anyShape = shape{"anything", schema{}}

// The checks of fields that are kept nowhere tell whether the value asks for
// anything.

func anything(*reader, *strictyaml.Node) bool { return true }

func asBool(r *reader, n *strictyaml.Node) bool {
	v, ok := r.Bool(n)
	return ok && v
}

func asWhole(least, most int) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		_, ok := r.Int(n, least, most)
		return ok
	}
}

// asBlocks reads into how many parts a machine is divided; 1 is not at all.
func asBlocks(r *reader, n *strictyaml.Node) bool {
	if n.Text == "auto" {
		return true
	}
	v, ok := r.Int(n, 1, 100)
	return ok && v > 1
}

func asDuration(r *reader, n *strictyaml.Node) bool {
	_, ok := r.duration(n)
	return ok
}

func asText(expression, hint string) func(*reader, *strictyaml.Node) bool {
	like := regexp.MustCompile(expression)
	return func(r *reader, n *strictyaml.Node) bool {
		v := r.filled(n)
		if v != "" && !like.MatchString(v) {
			r.At(n, fmt.Sprintf("%s is not understood here", n.Shown()), hint)
			return false
		}
		return v != ""
	}
}

func asList(r *reader, n *strictyaml.Node) bool {
	return len(r.texts(n, "`"+n.Path+"`")) > 0
}

func asMapping(name string) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		if n.Kind != strictyaml.Mapping {
			r.At(n, fmt.Sprintf("`%s` is a mapping of keys, not %s", name, n.Shown()), fmt.Sprintf("write %s: {key: value}", name))
			return false
		}
		return true
	}
}

func asTags(r *reader, n *strictyaml.Node) bool {
	if !asMapping("tags")(r, n) {
		return false
	}
	for _, p := range n.Pairs {
		r.Text(p.Value)
	}
	return len(n.Pairs) > 0
}

func asBlock[T any](b *block[T]) func(*reader, *strictyaml.Node) bool {
	return func(r *reader, n *strictyaml.Node) bool {
		var v T
		return b.into(r, n, &v)
	}
}

// fileMapping is a file to bring into the container.
type fileMapping struct{ local, path string }

var filesBlock = newBlock("files", "a file", "A file or folder to bring into the container. On one line: `config.yml:/etc/config.yml`.", []field[fileMapping]{
	{Key: required("local_path", "local_path: config.yml"), about: "Where it is here, relative to the configuration's folder.", shape: filledShape, examples: []string{"config.yml"},
		read: func(r *reader, n *strictyaml.Node, f *fileMapping) { f.local = r.filled(n) }},
	{Key: required("path", "path: /etc/config.yml"), about: "Where it will be in the container.", shape: filledShape, examples: []string{"/etc/config.yml"},
		read: func(r *reader, n *strictyaml.Node, f *fileMapping) { f.path = r.filled(n) }},
})

func asFiles(r *reader, n *strictyaml.Node) bool {
	items, _ := r.Items(n, "`files`")
	for _, item := range items {
		if item.IsScalar() {
			if from, _, _ := strings.Cut(r.filled(item), ":"); from == "" && item.Text != "" {
				r.At(item, item.Shown()+" names no file", "write config.yml:/etc/config.yml")
			}
			continue
		}
		var f fileMapping
		filesBlock.into(r, item, &f)
	}
	return len(items) > 0
}

// utilization is when a run whose GPUs do little is stopped.
type utilization struct {
	least  int
	window Seconds
}

var utilizationBlock = newBlock("utilization_policy", "`utilization_policy`", "When a run whose GPUs do little is stopped.", []field[utilization]{
	{Key: required("min_gpu_utilization", "min_gpu_utilization: 30"), about: "The least use of each GPU, in percent.", shape: wholeBetween(0, 100).like("whole number up to 100"), examples: []string{"30"},
		read: func(r *reader, n *strictyaml.Node, u *utilization) { u.least, _ = r.Int(n, 0, 100) }},
	{Key: required("time_window", "time_window: 30m"), about: "How long it may be less.", shape: durationShape, examples: []string{"30m"},
		read: func(r *reader, n *strictyaml.Node, u *utilization) { r.moment(n, &u.window) }},
})

// idleDuration is termination_idle_time by its new name; off and -1 mean
// that a machine is kept.
func (r *reader) idleDuration(n *strictyaml.Node, p *Params) {
	p.Renamed = true
	if isOff(n) || n.Kind == strictyaml.Int && n.Text == "-1" {
		p.TerminationPolicy = "dont-destroy"
		return
	}
	p.TerminationIdleTime = r.durationIfAny(n)
}

// checkIdle refuses both spellings at once.
func (r *reader) checkIdle(n *strictyaml.Node) {
	idle := n.Get("idle_duration")
	for _, old := range []string{"termination_idle_time", "termination_policy"} {
		if v := n.Get(old); !v.IsNull() && !idle.IsNull() {
			r.At(idle, fmt.Sprintf("`idle_duration` and `%s` say the same", old), "keep `idle_duration`")
			return
		}
	}
}
