package spec

import (
	"fmt"
	"net/netip"
	"slices"

	"dstack/internal/strictyaml"
)

// Fleet is one `type: fleet` configuration: machines to keep at hand.
type Fleet struct {
	Type      string
	Name      Text
	Env       Env
	SSH       *SSHMachines
	Nodes     *Range[int]
	Placement Text // any, cluster
	Resources Resources
	Params    // of which a fleet has some, see fleetParams

	NotYet []NotYet
}

// MarshalJSON writes the normalised wire form, every key in its order.
func (f Fleet) MarshalJSON() ([]byte, error) {
	return marshal(struct {
		Type                string       `json:"type"`
		Name                Text         `json:"name"`
		Env                 Env          `json:"env"`
		SSH                 *SSHMachines `json:"ssh_config"`
		Nodes               *Range[int]  `json:"nodes"`
		Placement           Text         `json:"placement"`
		Resources           Resources    `json:"resources"`
		Backends            []string     `json:"backends"`
		Regions             []string     `json:"regions"`
		InstanceTypes       []string     `json:"instance_types"`
		SpotPolicy          Text         `json:"spot_policy"`
		Retry               *Retry       `json:"retry"`
		MaxPrice            *float64     `json:"max_price"`
		TerminationPolicy   Text         `json:"termination_policy"`
		TerminationIdleTime *Seconds     `json:"termination_idle_time"`
	}{"fleet", f.Name, orEmpty(f.Env), f.SSH, f.Nodes, f.Placement, f.Resources, f.Backends, f.Regions, f.InstanceTypes,
		f.SpotPolicy, f.Retry, f.MaxPrice, f.TerminationPolicy, f.TerminationIdleTime})
}

// SSHMachines are machines of the user's own, reached by SSH.
type SSHMachines struct {
	User         Text      `json:"user"`
	Port         *int      `json:"port"`
	IdentityFile Text      `json:"identity_file"`
	Key          *struct{} `json:"ssh_key"` // always null: keys are no part of a file
	Hosts        []SSHHost `json:"hosts"`
	Network      Text      `json:"network"`
}

// SSHHost is one machine. With nothing but an address, the wire has it as
// text.
type SSHHost struct {
	Hostname     string    `json:"hostname"`
	Port         *int      `json:"port"`
	User         Text      `json:"user"`
	IdentityFile Text      `json:"identity_file"`
	Key          *struct{} `json:"ssh_key"`

	whole bool // written as a mapping
}

// MarshalJSON writes text or a mapping, as the file has it.
func (h SSHHost) MarshalJSON() ([]byte, error) {
	if !h.whole {
		return marshal(h.Hostname)
	}
	type plain SSHHost
	return marshal(plain(h))
}

var (
	identityShape = textShape.like("path")
	blocksShape   = anyOf("whole number, or `auto`", wholeBetween(1, 100), oneOf("auto"))
)

const blocksHint = "a machine's GPUs are handed out one by one anyway"

var fleetBlock = newBlock("fleet", "a fleet", "Machines that are kept at hand for runs: rented ones, or your own by SSH.",
	[]field[Fleet]{
		{Key: required("type", "a line: type: fleet"), about: "What this file is.", shape: oneOf("fleet"),
			read: func(r *reader, n *strictyaml.Node, _ *Fleet) { r.OneOf(n, kinds...) }},
		{Key: nullable("name"), about: "The fleet's name: 2 to 41 lower-case letters, digits and dashes, a letter first. Without one, a name is made up.", shape: textShape, examples: []string{"my-fleet"},
			read: into(func(f *Fleet) *Text { return &f.Name })},
		{Key: plain("env"), about: "Environment variables of everything that runs there; for machines by SSH only.", shape: envShape, examples: []string{"[MODE=fast]"},
			read: func(r *reader, n *strictyaml.Node, f *Fleet) { f.Env = r.env(n) }},
		{Key: nullable("ssh_config"), about: "Your own machines.", shape: blockShape("fleet.ssh_config"), examples: []string{"{user: ubuntu, hosts: [192.0.2.10]}"},
			read: func(r *reader, n *strictyaml.Node, f *Fleet) { f.SSH = r.sshMachines(n) }},
		{Key: nullable("nodes"), about: "How many machines to rent.", shape: anyOf(countShape.words, countShape, shape{"", schema{"type": "object"}}), examples: []string{"2", "1..4"},
			read: func(r *reader, n *strictyaml.Node, f *Fleet) { f.Nodes = r.nodes(n) }},
		{Key: nullable("placement"), about: "Whether the machines must be close to each other.", usual: "any", shape: oneOf("any", "cluster"),
			read: word(func(f *Fleet) *Text { return &f.Placement }, "any", "cluster")},
		{Key: nullable("resources"), about: "What each machine must have.", shape: anyOf(blockShape("resources").words, blockShape("resources"), shape{"", schema{"type": "array", "maxItems": 0}}), examples: []string{"{gpu: 24GB}"},
			read: func(r *reader, n *strictyaml.Node, f *Fleet) { f.Resources = r.resources(n) }},
	},
	lift(usually(only(paramFields, fleetParams...), "termination_idle_time", "3d"), func(f *Fleet) *Params { return &f.Params }),
	lift(usually(only(laterParams, "idle_duration", "tags", "reservation", "availability_zones", "backend_options"), "idle_duration", "3d"), func(f *Fleet) *Params { return &f.Params }),
	[]field[Fleet]{
		later[Fleet]("blocks", "Into how many parts a machine is divided.", blocksShape, blocksHint, asBlocks),
	},
)

var sshBlock = newBlock("fleet.ssh_config", "`ssh_config`", "Your own machines, and how they are reached. What is said here holds for all of them.", []field[SSHMachines]{
	{Key: nullable("user"), about: "The user to log in as.", shape: textShape, examples: []string{"ubuntu"}, read: into(func(s *SSHMachines) *Text { return &s.User })},
	{Key: nullable("port"), about: "The port of SSH.", usual: "22", shape: portNumberShape, read: func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Port = r.portIfAny(n) }},
	{Key: nullable("identity_file"), about: "The private key, on the machine that applies.", shape: identityShape, examples: []string{"~/.ssh/id_ed25519"}, read: into(func(s *SSHMachines) *Text { return &s.IdentityFile })},
	{Key: required("hosts", "hosts: followed by a list of addresses"), about: "The machines.", shape: listOf("list of addresses and {fleet.ssh_config.hosts}", anyOf("", filledShape, blockShape("fleet.ssh_config.hosts"))), examples: []string{"[192.0.2.10, 192.0.2.11]"},
		read: func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Hosts = r.sshHosts(n) }},
	{Key: nullable("network"), about: "The private network in which they reach each other.", shape: pattern("network", "^[0-9a-fA-F.:]+/[0-9]{1,3}$"), examples: []string{"10.0.0.0/24"},
		read: func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Network = r.network(n) }},
	nullKey[SSHMachines]("ssh_key"),
	later[SSHMachines]("proxy_jump", "A machine to go through.", anyShape, "log in directly", anything),
})

var sshHostBlock = newBlock("fleet.ssh_config.hosts", "a host", "One machine, where it differs from the others.", []field[SSHHost]{
	{Key: required("hostname", "hostname: 192.0.2.10"), about: "Its address or name.", shape: filledShape, examples: []string{"192.0.2.10"},
		read: func(r *reader, n *strictyaml.Node, h *SSHHost) { h.Hostname = r.filled(n) }},
	{Key: nullable("port"), about: "The port of SSH.", usual: "22", shape: portNumberShape, read: func(r *reader, n *strictyaml.Node, h *SSHHost) { h.Port = r.portIfAny(n) }},
	{Key: nullable("user"), about: "The user to log in as.", shape: textShape, read: into(func(h *SSHHost) *Text { return &h.User })},
	{Key: nullable("identity_file"), about: "The private key, on the machine that applies.", shape: identityShape, read: into(func(h *SSHHost) *Text { return &h.IdentityFile })},
	nullKey[SSHHost]("ssh_key"),
	later[SSHHost]("internal_ip", "Its address in the private network.", textShape, "remove it", asText("", "")),
	later[SSHHost]("blocks", "Into how many parts it is divided.", blocksShape, blocksHint, asBlocks),
	later[SSHHost]("proxy_jump", "A machine to go through.", anyShape, "log in directly", anything),
})

// nullKey is a key of the wire that a file leaves out, and that is always
// null.
func nullKey[T any](name string) field[T] {
	return field[T]{Key: strictyaml.Key{Name: name, Nullable: true, Rare: true}, about: "Only in answers of the API, where it is empty.", shape: nothingShape,
		read: func(r *reader, n *strictyaml.Node, _ *T) {
			r.At(n, "a key is no part of a configuration", "write identity_file: followed by the path of the private key")
		}}
}

// fleetParams are the fields that a fleet shares with a run.
var fleetParams = []string{"backends", "regions", "instance_types", "spot_policy", "retry", "max_price", "termination_policy", "termination_idle_time"}

func (r *reader) fleet(n *strictyaml.Node) *Fleet {
	f := &Fleet{Type: "fleet", Env: Env{}, Resources: defaultResources()}
	fleetBlock.into(r, n, f)
	r.checkIdle(n)
	switch ssh, nodes, env := n.Get("ssh_config"), n.Get("nodes"), n.Get("env"); {
	case r.Meant("nodes"), r.Meant("ssh_config"):
	case ssh.IsNull() && nodes.IsNull():
		r.At(n, "a fleet needs `nodes` or `ssh_config`", "add nodes: 1 to rent machines, or ssh_config: {user: ubuntu, hosts: [192.0.2.10]} for your own")
	case ssh.IsNull() && len(f.Env) > 0:
		r.At(env, "`env` is for machines by SSH only", "remove it, and write env in each service")
	}
	f.NotYet = r.notes
	return f
}

func (r *reader) sshMachines(n *strictyaml.Node) *SSHMachines {
	s := &SSHMachines{Hosts: []SSHHost{}}
	sshBlock.into(r, n, s)
	return s
}

func (r *reader) sshHosts(n *strictyaml.Node) []SSHHost {
	items, ok := r.Items(n, "`hosts`")
	if ok && len(items) == 0 {
		r.At(n, "there is no host", "name at least one: [192.0.2.10]")
	}
	hosts := make([]SSHHost, 0, len(items))
	for _, item := range items {
		h := SSHHost{whole: item.Kind == strictyaml.Mapping}
		if h.whole {
			sshHostBlock.into(r, item, &h)
		} else {
			h.Hostname = r.filled(item)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

func (r *reader) portIfAny(n *strictyaml.Node) *int {
	if v, ok := r.aPort(n, n.Text, "write the port of SSH: 22"); ok {
		return &v
	}
	return nil
}

// privateNetworks are those that are nobody's on the internet.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

// within tells whether all of a network lies in one of some others.
func within(others []netip.Prefix, network netip.Prefix) bool {
	return slices.ContainsFunc(others, func(p netip.Prefix) bool { return p.Bits() <= network.Bits() && p.Contains(network.Addr()) })
}

// network reads an address range that is nobody's on the internet.
func (r *reader) network(n *strictyaml.Node) Text {
	v, ok := r.Text(n)
	if !ok {
		return ""
	}
	network, err := netip.ParsePrefix(v)
	switch {
	case err != nil:
		r.At(n, n.Shown()+" is not a network", "write an address and the length of its prefix: 10.0.0.0/24")
	case !within(privateNetworks, network):
		r.At(n, fmt.Sprintf("the network %s is public, and a private one is required", n.Shown()), "write one such as 10.0.0.0/24 or 192.168.0.0/16")
	}
	return Text(v)
}

// nodes reads how many machines; the later dialect can also say how many are
// wanted now.
func (r *reader) nodes(n *strictyaml.Node) *Range[int] {
	if n.Get("target") != nil {
		r.note(n.Get("target"), "nodes.target", "leave it out: the least is what is wanted")
		least := *n
		least.Pairs = nil
		for _, p := range n.Pairs {
			if p.Key.Text != "target" {
				least.Pairs = append(least.Pairs, p)
			}
		}
		n = &least
	}
	v, ok := countRange(r, n)
	if !ok {
		return nil
	}
	return &v
}
