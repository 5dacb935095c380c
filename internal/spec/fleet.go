package spec

import (
	"fmt"
	"net/netip"
	"slices"

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
	Placement Text // any, cluster
	Resources Resources
	Params    // only the fields in fleetParams

	UnsupportedNotes []UnsupportedNote
}

// MarshalJSON writes the normal form of the wire format, with all keys in fixed
// order.
func (f Fleet) MarshalJSON() ([]byte, error) {
	return marshalJSON(struct {
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

// SSHMachines are the user's own machines, reached by SSH.
type SSHMachines struct {
	User         Text      `json:"user"`
	Port         *int      `json:"port"`
	IdentityFile Text      `json:"identity_file"`
	Key          *struct{} `json:"ssh_key"` // always null: a configuration contains no keys
	Hosts        []SSHHost `json:"hosts"`
	Network      Text      `json:"network"`
}

// SSHHost is one machine. If only its address is given, the wire format has it
// as text.
type SSHHost struct {
	Hostname     string    `json:"hostname"`
	Port         *int      `json:"port"`
	User         Text      `json:"user"`
	IdentityFile Text      `json:"identity_file"`
	Key          *struct{} `json:"ssh_key"`

	isMapping bool // written as a mapping
}

// MarshalJSON writes text or a mapping, depending on how the host was written.
func (h SSHHost) MarshalJSON() ([]byte, error) {
	if !h.isMapping {
		return marshalJSON(h.Hostname)
	}
	type plain SSHHost
	return marshalJSON(plain(h))
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
		{Key: nullableKey("nodes"), description: "The number of machines to rent.",
			shape:    anyOfShape(countShape.words, countShape, shape{"", schema{"type": "object"}}),
			examples: []string{"2", "1..4"},
			read:     func(r *reader, n *strictyaml.Node, f *Fleet) { f.Nodes = r.readNodes(n) }},
		{Key: nullableKey("placement"), description: "Whether the machines must be close to each other, with a fast " +
			"network between them.", defaultText: "any", shape: oneOfShape("any", "cluster"),
			read: readWordInto(func(f *Fleet) *Text { return &f.Placement }, "any", "cluster")},
		{Key: nullableKey("resources"), description: "What each machine must have.",
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

var sshMapping = newMapping("fleet.ssh_config", "`ssh_config`",
	"Your own machines, and how to reach them. The fields here apply to all hosts, unless a host overrides them.",
	[]field[SSHMachines]{
		{Key: nullableKey("user"), description: "The user to log in as.", shape: textShape,
			examples: []string{"ubuntu"},
			read:     readTextInto(func(s *SSHMachines) *Text { return &s.User })},
		{Key: nullableKey("port"), description: "The port of the SSH server.", defaultText: "22",
			shape: portNumberShape,
			read:  func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Port = r.readSSHPort(n) }},
		{Key: nullableKey("identity_file"), description: "The path of the private key, on the machine from which you " +
			"apply.", shape: identityShape, examples: []string{"~/.ssh/id_ed25519"},
			read: readTextInto(func(s *SSHMachines) *Text { return &s.IdentityFile })},
		{Key: requiredKey("hosts", "hosts: followed by a list of addresses"), description: "The machines.",
			shape: listShape("list of addresses and {fleet.ssh_config.hosts}",
				anyOfShape("", nonEmptyShape, mappingShape("fleet.ssh_config.hosts"))),
			examples: []string{"[192.0.2.10, 192.0.2.11]"},
			read:     func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Hosts = r.readSSHHosts(n) }},
		{Key: nullableKey("network"), description: "The private network in which the machines reach each other.",
			shape: patternShape("network", "^[0-9a-fA-F.:]+/[0-9]{1,3}$"), examples: []string{"10.0.0.0/24"},
			read: func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Network = r.readNetwork(n) }},
		newNullField[SSHMachines]("ssh_key"),
		unsupportedField[SSHMachines]("proxy_jump", "The SSH server through which the machines are reached.", anyShape,
			"remove it; the server connects to the hosts directly", alwaysUsed),
	})

var sshHostMapping = newMapping("fleet.ssh_config.hosts", "a host", "One machine with its own settings.",
	[]field[SSHHost]{
		{Key: requiredKey("hostname", "hostname: 192.0.2.10"), description: "The address or name of the machine.",
			shape: nonEmptyShape, examples: []string{"192.0.2.10"},
			read: func(r *reader, n *strictyaml.Node, h *SSHHost) { h.Hostname = r.readNonEmpty(n) }},
		{Key: nullableKey("port"), description: "The port of the SSH server.", defaultText: "22",
			shape: portNumberShape,
			read:  func(r *reader, n *strictyaml.Node, h *SSHHost) { h.Port = r.readSSHPort(n) }},
		{Key: nullableKey("user"), description: "The user to log in as.", shape: textShape,
			read: readTextInto(func(h *SSHHost) *Text { return &h.User })},
		{Key: nullableKey("identity_file"), description: "The path of the private key, on the machine from which you " +
			"apply.", shape: identityShape, read: readTextInto(func(h *SSHHost) *Text { return &h.IdentityFile })},
		newNullField[SSHHost]("ssh_key"),
		unsupportedField[SSHHost]("internal_ip", "The address of the machine in the private network.", textShape,
			"remove it", usesText("", "")),
		unsupportedField[SSHHost]("blocks", "The number of parts that the machine is divided into.", gpuBlocksShape,
			gpuBlocksHint, usesBlocks),
		unsupportedField[SSHHost]("proxy_jump", "The SSH server through which the machines are reached.", anyShape,
			"remove it; the server connects to the hosts directly", alwaysUsed),
	})

// newNullField returns a field that exists only in the wire format, where it is
// always null. Setting it in a file is a problem.
func newNullField[T any](name string) field[T] {
	return field[T]{Key: strictyaml.Key{Name: name, Nullable: true, Unlisted: true},
		description: "Only in responses of the API, where it is always null.", shape: nothingShape,
		read: func(r *reader, n *strictyaml.Node, _ *T) {
			r.Add(n, "a configuration cannot contain a key",
				"write identity_file: followed by the path of the private key")
		}}
}

// fleetParams are the fields of Params that a fleet has.
var fleetParams = []string{"backends", "regions", "instance_types", "spot_policy", "retry", "max_price",
	"termination_policy", "termination_idle_time"}

// readFleet reads a fleet and checks rules that involve several fields.
func (r *reader) readFleet(n *strictyaml.Node) *Fleet {
	f := &Fleet{Type: "fleet", Env: Env{}, Resources: defaultResources()}
	fleetMapping.read(r, n, f)
	r.checkIdle(n)
	switch ssh, nodes, env := n.Get("ssh_config"), n.Get("nodes"), n.Get("env"); {
	case r.IsMisspelled("nodes"), r.IsMisspelled("ssh_config"):
	case ssh.IsNull() && nodes.IsNull():
		r.Add(n, "a fleet needs `nodes` or `ssh_config`",
			"add nodes: 1 to rent machines, or ssh_config: {user: ubuntu, hosts: [192.0.2.10]} to use your own")
	case ssh.IsNull() && len(f.Env) > 0:
		r.Add(env, "`env` can only be used with `ssh_config`", "remove it, and set `env` in each service instead")
	}
	f.UnsupportedNotes = r.unsupported
	return f
}

func (r *reader) readSSHMachines(n *strictyaml.Node) *SSHMachines {
	s := &SSHMachines{Hosts: []SSHHost{}}
	sshMapping.read(r, n, s)
	return s
}

// readSSHHosts reads a list of addresses and mappings.
func (r *reader) readSSHHosts(n *strictyaml.Node) []SSHHost {
	items, ok := r.ReadItems(n, "`hosts`")
	if ok && len(items) == 0 {
		r.Add(n, "`hosts` is empty", "add at least one host: [192.0.2.10]")
	}
	hosts := make([]SSHHost, 0, len(items))
	for _, item := range items {
		h := SSHHost{isMapping: item.Kind == strictyaml.Mapping}
		if h.isMapping {
			sshHostMapping.read(r, item, &h)
		} else {
			h.Hostname = r.readNonEmpty(item)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

func (r *reader) readSSHPort(n *strictyaml.Node) *int {
	if v, ok := r.readPort(n, n.Text, "write the port of the SSH server, such as 22"); ok {
		return &v
	}
	return nil
}

// privateNetworks are the address ranges reserved for private use (RFC 1918,
// RFC 4193).
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

// isWithin reports whether one of the ranges contains the whole network.
func isWithin(others []netip.Prefix, network netip.Prefix) bool {
	return slices.ContainsFunc(others, func(p netip.Prefix) bool { return p.Bits() <= network.Bits() && p.Contains(network.Addr()) })
}

// readNetwork reads a private address range in CIDR notation.
func (r *reader) readNetwork(n *strictyaml.Node) Text {
	v, ok := r.ReadText(n)
	if !ok {
		return ""
	}
	network, err := netip.ParsePrefix(v)
	switch {
	case err != nil:
		r.Add(n, n.Describe()+" is not a network", "write an address and a prefix length: 10.0.0.0/24")
	case !isWithin(privateNetworks, network):
		r.Add(n, fmt.Sprintf("the network %s is not private", n.Describe()),
			"write a private network, such as 10.0.0.0/24 or 192.168.0.0/16")
	}
	return Text(v)
}

// readNodes reads the number of machines. Later versions of dstack also accept
// a target within the range, which is noted as unsupported.
func (r *reader) readNodes(n *strictyaml.Node) *Range[int] {
	if n.Get("target") != nil {
		r.addUnsupportedUse(n.Get("target"), "nodes.target", "remove it; the minimum of `nodes` is started")
		withoutTarget := *n
		withoutTarget.Pairs = nil
		for _, p := range n.Pairs {
			if p.Key.Text != "target" {
				withoutTarget.Pairs = append(withoutTarget.Pairs, p)
			}
		}
		n = &withoutTarget
	}
	v, ok := readCountRange(r, n)
	if !ok {
		return nil
	}
	return &v
}
