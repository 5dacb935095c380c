package spec

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// SSHMachines are the user's own machines, reached by SSH.
type SSHMachines struct {
	User         Text      `json:"user"`
	Port         *int      `json:"port"`
	IdentityFile Text      `json:"identity_file"`
	Key          SSHKey    `json:"ssh_key"`
	Hosts        []SSHHost `json:"hosts"`
	Network      Text      `json:"network"`
	// 0.18.10 does not have the fields below, so they are written only if they are set.
	ProxyJump *SSHProxy `json:"proxy_jump,omitempty"`
	HostKeys  HostKeys  `json:"host_key,omitempty"`
}

// SSHHost is one machine. If only its address is given, the wire format has it
// as text.
type SSHHost struct {
	Hostname     string `json:"hostname"`
	Port         *int   `json:"port"`
	User         Text   `json:"user"`
	IdentityFile Text   `json:"identity_file"`
	Key          SSHKey `json:"ssh_key"`
	// 0.18.10 does not have the fields below, so they are written only if they are set.
	Name       Text      `json:"name,omitempty"` // how lists show the machine; empty: Hostname
	InternalIP Text      `json:"internal_ip,omitempty"`
	ProxyJump  *SSHProxy `json:"proxy_jump,omitempty"`
	HostKeys   HostKeys  `json:"host_key,omitempty"`

	isMapping bool // written as a mapping
}

// MarshalJSON writes text or a mapping, depending on how the host was written. It writes a mapping for a host that was
// given settings of its own.
func (h SSHHost) MarshalJSON() ([]byte, error) {
	if reflect.DeepEqual(h, SSHHost{Hostname: h.Hostname}) {
		return marshalJSON(h.Hostname)
	}
	type plain SSHHost
	return marshalJSON(plain(h))
}

// SSHProxy is the SSH server through which machines are reached.
type SSHProxy struct {
	Hostname     string   `json:"hostname"`
	Port         *int     `json:"port"`
	User         Text     `json:"user"`
	IdentityFile Text     `json:"identity_file"`
	Key          SSHKey   `json:"ssh_key"`
	HostKeys     HostKeys `json:"host_key,omitempty"`
}

// SSHKey is a private key that a client sends along with a configuration. Files
// cannot contain one. It prints as nothing and marshals to null, unless it was
// made by NewSentSSHKey.
type SSHKey struct {
	private string
	isSent  bool // marshals to what clients send
}

// NewSentSSHKey returns a key that marshals to what clients send.
func NewSentSSHKey(private string) SSHKey { return SSHKey{private: private, isSent: true} }

// Private returns the text of the private key; empty: there is none.
func (k SSHKey) Private() string { return k.private }

// String returns no part of the key.
func (k SSHKey) String() string { return "" }

// GoString returns no part of the key.
func (k SSHKey) GoString() string { return "spec.SSHKey{}" }

// MarshalJSON writes null, or what clients send.
func (k SSHKey) MarshalJSON() ([]byte, error) {
	if !k.isSent || k.private == "" {
		return []byte("null"), nil
	}
	return marshalJSON(map[string]string{"public": "", "private": k.private})
}

// WithoutKeys returns a copy of the fleet without private keys.
func (f Fleet) WithoutKeys() Fleet {
	if f.SSH == nil {
		return f
	}
	machines := *f.SSH
	machines.Key, machines.ProxyJump = SSHKey{}, machines.ProxyJump.withoutKey()
	machines.Hosts = slices.Clone(machines.Hosts)
	for i := range machines.Hosts {
		h := &machines.Hosts[i]
		h.Key, h.ProxyJump = SSHKey{}, h.ProxyJump.withoutKey()
	}
	f.SSH = &machines
	return f
}

func (p *SSHProxy) withoutKey() *SSHProxy {
	if p == nil {
		return nil
	}
	without := *p
	without.Key = SSHKey{}
	return &without
}

// HostKeys are fingerprints of host keys, of which a machine must have one.
type HostKeys []string

// SSHLogin is a machine with the settings that apply to it.
type SSHLogin struct {
	Name         string // how lists show the machine; unique in the fleet
	Hostname     string
	Port         int
	User         string // empty: none is set
	IdentityFile string
	Key          SSHKey
	HostKeys     HostKeys
	Jump         *SSHLogin // the SSH server through which the machine is reached; nil: directly
}

// Address returns the host and the port.
func (l SSHLogin) Address() string { return net.JoinHostPort(l.Hostname, strconv.Itoa(l.Port)) }

// defaultSSHPort is the port of SSH servers.
const defaultSSHPort = 22

// Logins returns the machines, each with its own settings and those that apply
// to all.
func (s *SSHMachines) Logins() []SSHLogin {
	hostnames := map[string]int{}
	for _, h := range s.Hosts {
		hostnames[h.Hostname]++
	}
	logins := make([]SSHLogin, len(s.Hosts))
	for i, h := range s.Hosts {
		login := SSHLogin{Hostname: h.Hostname, Port: firstPort(h.Port, s.Port), User: firstText(h.User, s.User),
			IdentityFile: firstText(h.IdentityFile, s.IdentityFile), Key: h.Key, HostKeys: h.HostKeys}
		if login.Key.private == "" && h.IdentityFile == "" {
			login.Key = s.Key
		}
		if len(login.HostKeys) == 0 {
			login.HostKeys = s.HostKeys
		}
		switch login.Name = string(h.Name); {
		case login.Name != "":
		case hostnames[h.Hostname] > 1:
			login.Name = login.Address()
		default:
			login.Name = h.Hostname
		}
		if proxy := firstProxy(h.ProxyJump, s.ProxyJump); proxy != nil {
			login.Jump = proxy.newLogin(login)
		}
		logins[i] = login
	}
	return logins
}

// newLogin returns how to log in to the jump host of a machine. Without its own
// user or key, it has those of the machine.
func (p *SSHProxy) newLogin(of SSHLogin) *SSHLogin {
	jump := &SSHLogin{Name: p.Hostname, Hostname: p.Hostname, Port: firstPort(p.Port), User: firstText(p.User, Text(of.User)),
		IdentityFile: string(p.IdentityFile), Key: p.Key, HostKeys: p.HostKeys}
	if jump.IdentityFile == "" && jump.Key.private == "" {
		jump.IdentityFile, jump.Key = of.IdentityFile, of.Key
	}
	return jump
}

func firstPort(ports ...*int) int {
	for _, p := range ports {
		if p != nil {
			return *p
		}
	}
	return defaultSSHPort
}

func firstText(texts ...Text) string {
	for _, t := range texts {
		if t != "" {
			return string(t)
		}
	}
	return ""
}

func firstProxy(proxies ...*SSHProxy) *SSHProxy {
	for _, p := range proxies {
		if p != nil {
			return p
		}
	}
	return nil
}

var (
	hostnamePattern    = newPattern(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)
	fingerprintPattern = newPattern(`^SHA256:[A-Za-z0-9+/]{43}$`)
	hostNamePattern    = newPattern(`^[A-Za-z0-9_]([A-Za-z0-9_.:-]{0,62}[A-Za-z0-9_])?$`)
	sshKeyShape        = shape{"nothing", schema{"type": []string{"null", "object"}}}
	hostKeysShape      = anyOfShape("fingerprint `SHA256:…`, or list of them",
		patternShape("", fingerprintPattern.String()), listShape("", patternShape("", fingerprintPattern.String())))
)

// The fields that a fleet, a host and a jump host share.

func sshPortField[T any](to func(*T) **int) field[T] {
	return field[T]{Key: nullableKey("port"), description: "The port of the SSH server.", defaultText: "22", shape: portNumberShape,
		read: func(r *reader, n *strictyaml.Node, v *T) { *to(v) = r.readSSHPort(n) }}
}

func sshUserField[T any](about string, to func(*T) *Text) field[T] {
	return field[T]{Key: nullableKey("user"), description: about, shape: textShape, examples: []string{"ubuntu"},
		read: func(r *reader, n *strictyaml.Node, v *T) { *to(v) = Text(r.readNonEmpty(n)) }}
}

func identityField[T any](about string, to func(*T) *Text) field[T] {
	return field[T]{Key: nullableKey("identity_file"), description: about, shape: identityShape,
		examples: []string{"~/.ssh/id_ed25519"}, read: readTextInto(to)}
}

func sshKeyField[T any](to func(*T) *SSHKey) field[T] {
	return field[T]{Key: strictyaml.Key{Name: "ssh_key", Nullable: true, Unlisted: true},
		description: "Only in requests of the API, which contain the text of the key; a file cannot. In answers it is always null.",
		shape:       sshKeyShape,
		read:        func(r *reader, n *strictyaml.Node, v *T) { *to(v) = r.readSSHKey(n) }}
}

func hostKeyField[T any](about string, to func(*T) *HostKeys) field[T] {
	return field[T]{Key: nullableKey("host_key"), description: about, shape: hostKeysShape,
		examples: []string{"SHA256:" + strings.Repeat("A", 43)},
		read:     func(r *reader, n *strictyaml.Node, v *T) { *to(v) = r.readHostKeys(n) }}
}

func proxyField[T any](about string, to func(*T) **SSHProxy) field[T] {
	return field[T]{Key: nullableKey("proxy_jump"), description: about, shape: mappingShape("fleet.ssh_config.proxy_jump"),
		examples: []string{"{hostname: bastion.example.com, user: ubuntu, identity_file: ~/.ssh/bastion}"},
		read: func(r *reader, n *strictyaml.Node, v *T) {
			proxy := &SSHProxy{}
			sshProxyMapping.read(r, n, proxy)
			*to(v) = proxy
		}}
}

var sshMapping = newMapping("fleet.ssh_config", "`ssh_config`",
	"Your own machines, and how to reach them. The fields here apply to all hosts, unless a host overrides them.",
	[]field[SSHMachines]{
		sshUserField("The user to log in as.", func(s *SSHMachines) *Text { return &s.User }),
		sshPortField(func(s *SSHMachines) **int { return &s.Port }),
		identityField("The path of the private key, on the machine from which you apply.",
			func(s *SSHMachines) *Text { return &s.IdentityFile }),
		{Key: requiredKey("hosts", "hosts: followed by a list of addresses"), description: "The machines.",
			shape: listShape("list of addresses and {fleet.ssh_config.hosts}",
				anyOfShape("", nonEmptyShape, mappingShape("fleet.ssh_config.hosts"))),
			examples: []string{"[192.0.2.10, 192.0.2.11]"},
			read:     func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Hosts = r.readSSHHosts(n) }},
		{Key: nullableKey("network"), description: "The private network in which the machines reach each other. " +
			"Services do not need it.",
			shape: patternShape("network", "^[0-9a-fA-F.:]+/[0-9]{1,3}$"), examples: []string{"10.0.0.0/24"},
			read: func(r *reader, n *strictyaml.Node, s *SSHMachines) { s.Network = r.readNetwork(n) }},
		proxyField("The SSH server through which the machines are reached.", func(s *SSHMachines) **SSHProxy { return &s.ProxyJump }),
		hostKeyField("The fingerprints of the machines' host keys, each of which may be that of any machine. If not set, "+
			"the first key that a machine shows is kept, and must stay the same.", func(s *SSHMachines) *HostKeys { return &s.HostKeys }),
		sshKeyField(func(s *SSHMachines) *SSHKey { return &s.Key }),
	})

var sshHostMapping = newMapping("fleet.ssh_config.hosts", "a host", "One machine with its own settings.",
	[]field[SSHHost]{
		{Key: requiredKey("hostname", "hostname: 192.0.2.10"), description: "The address or name of the machine.",
			shape: nonEmptyShape, examples: []string{"192.0.2.10"},
			read: func(r *reader, n *strictyaml.Node, h *SSHHost) { h.Hostname = r.readHostname(n) }},
		{Key: nullableKey("name"), description: "How lists and plans call the machine.", defaultText: "(its hostname)",
			shape: textShape, examples: []string{"gpu-box"},
			read: func(r *reader, n *strictyaml.Node, h *SSHHost) { h.Name = r.readHostName(n) }},
		sshPortField(func(h *SSHHost) **int { return &h.Port }),
		sshUserField("The user to log in as.", func(h *SSHHost) *Text { return &h.User }),
		identityField("The path of the private key, on the machine from which you apply.",
			func(h *SSHHost) *Text { return &h.IdentityFile }),
		{Key: nullableKey("internal_ip"), description: "The address of the machine in the private network. Services do not need it.",
			shape: textShape, examples: []string{"10.0.0.5"},
			read: func(r *reader, n *strictyaml.Node, h *SSHHost) { h.InternalIP = r.readInternalIP(n) }},
		proxyField("The SSH server through which the machine is reached.", func(h *SSHHost) **SSHProxy { return &h.ProxyJump }),
		hostKeyField("The fingerprint of the machine's host key. If not set, the first key that it shows is kept, and must "+
			"stay the same.", func(h *SSHHost) *HostKeys { return &h.HostKeys }),
		sshKeyField(func(h *SSHHost) *SSHKey { return &h.Key }),
		unsupportedField[SSHHost]("blocks", "The number of parts that the machine is divided into.", gpuBlocksShape,
			gpuBlocksHint, usesBlocks),
	})

var sshProxyMapping = newMapping("fleet.ssh_config.proxy_jump", "`proxy_jump`",
	"The SSH server through which machines are reached. It forwards connections and runs nothing.",
	[]field[SSHProxy]{
		{Key: requiredKey("hostname", "hostname: bastion.example.com"), description: "The address or name of the SSH server.",
			shape: nonEmptyShape, examples: []string{"bastion.example.com"},
			read: func(r *reader, n *strictyaml.Node, p *SSHProxy) { p.Hostname = r.readHostname(n) }},
		sshPortField(func(p *SSHProxy) **int { return &p.Port }),
		sshUserField("The user to log in as. If not set, that of the machine.", func(p *SSHProxy) *Text { return &p.User }),
		identityField("The path of the private key, on the machine from which you apply. If not set, that of the machine.",
			func(p *SSHProxy) *Text { return &p.IdentityFile }),
		hostKeyField("The fingerprint of the server's host key. If not set, the first key that it shows is kept, and must "+
			"stay the same.", func(p *SSHProxy) *HostKeys { return &p.HostKeys }),
		sshKeyField(func(p *SSHProxy) *SSHKey { return &p.Key }),
	})

func (r *reader) readSSHMachines(n *strictyaml.Node) *SSHMachines {
	s := &SSHMachines{Hosts: []SSHHost{}}
	sshMapping.read(r, n, s)
	r.checkHosts(n.Get("hosts"), s)
	return s
}

// maxHosts is how many hosts a fleet may have.
const maxHosts = 1000

// readSSHHosts reads a list of addresses and mappings.
func (r *reader) readSSHHosts(n *strictyaml.Node) []SSHHost {
	items, ok := r.ReadItems(n, "`hosts`")
	switch {
	case ok && len(items) == 0:
		r.Add(n, "`hosts` is empty", "add at least one host: [192.0.2.10]")
	case len(items) > maxHosts:
		r.Add(n, fmt.Sprintf("`hosts` has %d machines", len(items)), fmt.Sprintf("at most %d; write several fleets", maxHosts))
		return nil
	}
	hosts := make([]SSHHost, 0, len(items))
	for _, item := range items {
		h := SSHHost{isMapping: item.Kind == strictyaml.Mapping}
		if h.isMapping {
			sshHostMapping.read(r, item, &h)
		} else {
			h.Hostname = r.readHostname(item)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// checkHosts reports machines that are listed twice.
func (r *reader) checkHosts(n *strictyaml.Node, s *SSHMachines) {
	if n == nil || len(n.Items) != len(s.Hosts) {
		return
	}
	names, logins := map[string]bool{}, map[string]bool{}
	for i, l := range s.Logins() {
		login := l.User + "@" + l.Address()
		if l.Jump != nil {
			login += " " + l.Jump.Address()
		}
		switch {
		case l.Hostname == "":
		case logins[login]:
			r.Add(n.Items[i], fmt.Sprintf("the host %s is listed twice", l.Name), "remove one of them")
		case names[l.Name]:
			r.Add(n.Items[i], fmt.Sprintf("two hosts have the name %s", l.Name), "give one of them another `name`")
		}
		names[l.Name], logins[login] = true, true
	}
}

// readHostname reads an address or a name of a machine.
func (r *reader) readHostname(n *strictyaml.Node) string {
	v := r.readNonEmpty(n)
	if v == "" {
		return ""
	}
	if _, err := netip.ParseAddr(v); err == nil || hostnamePattern.MatchString(v) && len(v) <= 253 {
		return v
	}
	hint := "write a name or an address: 192.0.2.10"
	user, host, hasUser := strings.Cut(v, "@")
	if !hasUser {
		user, host = "", v
	}
	if hostname, port, err := net.SplitHostPort(host); err == nil || hasUser {
		if err != nil {
			hostname = host
		}
		hint = "write {hostname: " + hostname
		if port != "" {
			hint += ", port: " + port
		}
		if user != "" {
			hint += ", user: " + user
		}
		hint += "}"
	}
	r.Add(n, n.Describe()+" is not the name or address of a machine", hint)
	return ""
}

// readHostName reads what lists call a machine.
func (r *reader) readHostName(n *strictyaml.Node) Text {
	v := r.readNonEmpty(n)
	if v != "" && !hostNamePattern.MatchString(v) {
		r.Add(n, n.Describe()+" is not a name for a machine", "use up to 64 letters, digits, dots and dashes: gpu-box")
		return ""
	}
	return Text(v)
}

func (r *reader) readInternalIP(n *strictyaml.Node) Text {
	v := r.readNonEmpty(n)
	if v == "" {
		return ""
	}
	switch address, err := netip.ParseAddr(v); {
	case err != nil:
		r.Add(n, n.Describe()+" is not an address", "write an address such as 10.0.0.5")
	case !address.IsPrivate():
		r.Add(n, fmt.Sprintf("the address %s is not private", n.Describe()), "write the address in the private network, such as 10.0.0.5")
	}
	return Text(v)
}

// readHostKeys reads one fingerprint or a list of them.
func (r *reader) readHostKeys(n *strictyaml.Node) HostKeys {
	items := []*strictyaml.Node{n}
	if n.Kind == strictyaml.Sequence {
		items = n.Items
	}
	var keys HostKeys
	for _, item := range items {
		v, ok := r.ReadText(item)
		switch {
		case !ok:
		case !fingerprintPattern.MatchString(v):
			r.Add(item, item.Describe()+" is not the fingerprint of a host key",
				"write what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the machine: SHA256: and 43 characters")
		case !slices.Contains(keys, v):
			keys = append(keys, v)
		}
	}
	return keys
}

// readSSHKey reads a private key. Only programs may send one.
func (r *reader) readSSHKey(n *strictyaml.Node) (key SSHKey) {
	if r.dialect != nil {
		r.Add(n, "a configuration cannot contain a key", "write identity_file: followed by the path of the private key")
		return SSHKey{}
	}
	r.ReadKeys(n, "`ssh_key`", []strictyaml.Key{nullableKey("private"), nullableKey("public")}, func(i int, value *strictyaml.Node) {
		if text, ok := r.ReadText(value); ok && i == 0 {
			key.private = text
		}
	})
	return key
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
