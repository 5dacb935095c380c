package spec

import (
	"errors"
	"fmt"

	"dstack/internal/strictyaml"
)

// Fleet is a configuration with `type: fleet`: machines that are kept ready for
// runs.
type Fleet struct {
	Type      string
	Name      Text
	Env       Env
	SSH       *SSHMachines
	Nodes     *Range[int]
	Target    *int // of Nodes: how many machines are rented when the fleet is applied; nil: the minimum
	Placement Text // any, cluster
	Resources Resources
	Params    // only the fields in fleetParams

	UnsupportedNotes []UnsupportedNote
}

// MarshalJSON writes the normal form of the wire format, with all keys in fixed
// order.
func (f Fleet) MarshalJSON() ([]byte, error) { return f.marshalWith(f.Resources) }

// SourceJSON returns the wire form extended by which sizes are explicit. This is
// the form that is sent and stored; it unmarshals to an equal Fleet, except for
// UnsupportedNotes and keys.
func (f Fleet) SourceJSON() ([]byte, error) { return f.marshalWith(f.Resources.newSource()) }

func (f Fleet) marshalWith(resources any) ([]byte, error) {
	return marshalJSON(struct {
		Type                string       `json:"type"`
		Name                Text         `json:"name"`
		Env                 Env          `json:"env"`
		SSH                 *SSHMachines `json:"ssh_config"`
		Nodes               *fleetNodes  `json:"nodes"`
		Placement           Text         `json:"placement"`
		Resources           any          `json:"resources"`
		Backends            []string     `json:"backends"`
		Regions             []string     `json:"regions"`
		InstanceTypes       []string     `json:"instance_types"`
		SpotPolicy          Text         `json:"spot_policy"`
		Retry               *Retry       `json:"retry"`
		MaxPrice            *float64     `json:"max_price"`
		TerminationPolicy   Text         `json:"termination_policy"`
		TerminationIdleTime *Seconds     `json:"termination_idle_time"`
	}{"fleet", f.Name, orEmpty(f.Env), f.SSH, newFleetNodes(f), f.Placement, resources, f.Backends, f.Regions, f.InstanceTypes,
		f.SpotPolicy, f.Retry, f.MaxPrice, f.TerminationPolicy, f.TerminationIdleTime})
}

// fleetNodes is the wire form of the number of machines of a fleet. Target is left out where it is the minimum: 0.18.10
// does not know it.
type fleetNodes struct {
	Range[int]
	Target *int `json:"target,omitempty"`
}

func newFleetNodes(f Fleet) *fleetNodes {
	if f.Nodes == nil {
		return nil
	}
	return &fleetNodes{*f.Nodes, f.Target}
}

// NodeCounts returns how many machines a fleet keeps at least, rents when it is applied, and has at most; without an
// upper end, isLimited is false.
func (f Fleet) NodeCounts() (least, target, most int, isLimited bool) {
	if f.Nodes == nil {
		return 0, 0, 0, true
	}
	if f.Nodes.Min != nil {
		least = *f.Nodes.Min
	}
	if target = least; f.Target != nil {
		target = *f.Target
	}
	if f.Nodes.Max != nil {
		most, isLimited = *f.Nodes.Max, true
	}
	return least, target, most, isLimited
}

var (
	identityShape  = textShape.withWords("path")
	gpuBlocksShape = anyOfShape("whole number, or `auto`", intShape(1, 100), oneOfShape("auto"))
)

const gpuBlocksHint = "remove it; replicas can already share a machine, each with its own GPUs"

var fleetMapping = newMapping("fleet", "a fleet",
	"Machines that are kept ready for runs: rented ones, or your own, reached by SSH.",
	[]field[Fleet]{
		{Key: requiredKey("type", "type: fleet"), description: "The type of this configuration.",
			shape: oneOfShape("fleet"),
			read:  func(r *reader, n *strictyaml.Node, _ *Fleet) { r.ReadOneOf(n, supportedTypes...) }},
		{Key: nullableKey("name"), description: "The name of the fleet: 2 to 41 lowercase letters, digits and " +
			"dashes, beginning with a letter. If not set, a name is generated.", shape: textShape,
			examples: []string{"my-fleet"},
			read:     readTextInto(func(f *Fleet) *Text { return &f.Name })},
		{Key: plainKey("env"), description: "Environment variables of every run on these machines. Only for " +
			"machines reached by SSH.", shape: envShape, examples: []string{"[MODE=fast]"},
			read: func(r *reader, n *strictyaml.Node, f *Fleet) { f.Env = r.readEnv(n) }},
		{Key: nullableKey("ssh_config"), description: "Your own machines.", shape: mappingShape("fleet.ssh_config"),
			examples: []string{"{user: ubuntu, hosts: [192.0.2.10]}"},
			read:     func(r *reader, n *strictyaml.Node, f *Fleet) { f.SSH = r.readSSHMachines(n) }},
		{Key: nullableKey("nodes"), description: "The number of machines to rent: the least that are kept ready, " +
			"and the most that runs may make it. `{min: 1, target: 2, max: 4}` rents two when it is applied.",
			shape:    anyOfShape(countShape.words, countShape, shape{"", schema{"type": "object"}}),
			examples: []string{"2", "1..4"},
			read:     func(r *reader, n *strictyaml.Node, f *Fleet) { r.readNodes(n, f) }},
		{Key: nullableKey("placement"), description: "Whether the machines must be close to each other, with a fast " +
			"network between them.", defaultText: "any", shape: oneOfShape("any", "cluster"),
			read: readWordInto(func(f *Fleet) *Text { return &f.Placement }, "any", "cluster")},
		{Key: nullableKey("resources"), description: "What each machine must have. Of your own machines, only what you write is asked for.",
			shape: anyOfShape(mappingShape("resources").words, mappingShape("resources"),
				shape{"", schema{"type": "array", "maxItems": 0}}), examples: []string{"{gpu: 24GB}"},
			read: func(r *reader, n *strictyaml.Node, f *Fleet) { f.Resources = r.readResources(n) }},
	},
	liftFields(withDefault(selectFields(paramFields, fleetParams...), "termination_idle_time", "3d"),
		func(f *Fleet) *Params { return &f.Params }),
	liftFields(withDefault(selectFields(newerParams, "idle_duration", "tags", "reservation", "availability_zones",
		"backend_options"), "idle_duration", "3d"), func(f *Fleet) *Params { return &f.Params }),
	[]field[Fleet]{
		unsupportedField[Fleet]("blocks", "The number of parts that a machine is divided into.", gpuBlocksShape,
			gpuBlocksHint, usesBlocks),
	},
)

// fleetParams are the fields of Params that a fleet has.
var fleetParams = []string{"backends", "regions", "instance_types", "spot_policy", "retry", "max_price",
	"termination_policy", "termination_idle_time"}

// readFleet reads a fleet and checks rules that involve several fields.
func (r *reader) readFleet(n *strictyaml.Node) *Fleet {
	f := &Fleet{Type: "fleet", Env: Env{}, Resources: defaultResources()}
	fleetMapping.read(r, n, f)
	r.checkIdle(n)
	if wrong, isWrong := errors.AsType[Problem](CheckFleetName(string(f.Name))); isWrong && f.Name != "" {
		r.Add(n.Get("name"), wrong.Message, wrong.Hint)
	}
	switch ssh, nodes, env := n.Get("ssh_config"), n.Get("nodes"), n.Get("env"); {
	case r.IsMisspelled("nodes"), r.IsMisspelled("ssh_config"):
	case ssh.IsNull() && nodes.IsNull():
		r.Add(n, "a fleet needs `nodes` or `ssh_config`",
			"add nodes: 1 to rent machines, or ssh_config: {user: ubuntu, hosts: [192.0.2.10]} to use your own")
	case !ssh.IsNull() && !nodes.IsNull():
		r.Add(nodes, "`nodes` and `ssh_config` cannot both be set", "remove one: a fleet is either rented or your own")
	case ssh.IsNull() && len(f.Env) > 0:
		r.Add(env, "`env` can only be used with `ssh_config`", "remove it, and set `env` in each service instead")
	}
	for _, v := range f.Env {
		if len(v.SecretNames()) > 0 {
			r.Add(n.Get("env"), "`env` of a fleet cannot refer to secrets: "+v.Name, "set the variable in each service instead")
		}
	}
	f.UnsupportedNotes = r.unsupported
	return f
}

// UnmarshalJSON reads the wire form and every spelling that a file may use, and
// the keys that clients send. The error is Problems.
func (f *Fleet) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if n.Kind == strictyaml.Mapping && !n.Get("type").IsScalar() {
			*f = *r.readFleet(n) // it says what is wrong with the type
			return
		}
		switch v := r.readConfiguration(n).(type) {
		case *Fleet:
			*f = *v
		case *Service, *Volume, *Gateway:
			r.AddUnsupported(n.Get("type"), "type "+n.Get("type").Text+" as a fleet", "write type: fleet")
		}
	})
}

// maxFleetNodes is how many machines a fleet may have.
const maxFleetNodes = 1000

// readNodes reads the number of machines of a fleet. Later versions of dstack also write a target within the range.
func (r *reader) readNodes(n *strictyaml.Node, f *Fleet) {
	target := n.Get("target")
	if target != nil {
		withoutTarget := *n
		withoutTarget.Pairs = nil
		for _, p := range n.Pairs {
			if p.Key.Text != "target" {
				withoutTarget.Pairs = append(withoutTarget.Pairs, p)
			}
		}
		n = &withoutTarget
	}
	nodes, ok := readCountRange(r, n)
	if !ok {
		return
	}
	f.Nodes = &nodes
	if !target.IsNull() {
		if v, ok := r.ReadInt(target, 0, maxFleetNodes); ok && v != intOr(nodes.Min, 0) {
			f.Target = &v
		}
	}
	least, wanted, most, isLimited := f.NodeCounts()
	switch {
	case max(least, most) > maxFleetNodes:
		r.Add(n, fmt.Sprintf("a fleet has %d machines at most", maxFleetNodes), "use several fleets")
	case isLimited && most == 0:
		r.Add(n, "a fleet without machines is of no use", "write nodes: 1, or nodes: 0..4 to rent machines when runs need them")
	case wanted < least || isLimited && wanted > most:
		r.Add(target, fmt.Sprintf("`target` is not within %s", nodes), "write a number within it, or leave it out: the minimum is rented")
	}
}

func intOr(v *int, otherwise int) int {
	if v == nil {
		return otherwise
	}
	return *v
}
