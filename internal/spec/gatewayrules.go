package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// BackendExternal is the backend of gateways whose processes are on machines that join with a token.
const BackendExternal = "external"

var gatewayBackends = append(slices.Clone(backendNames), BackendExternal)

var gatewayBackendShape = oneOfShape(slices.Concat([]string{BackendLocal, "ssh", BackendExternal},
	slices.DeleteFunc(slices.Clone(backendNames), func(name string) bool { return name == BackendLocal }))...)

// readGatewayBackend reads the name of a backend; empty if it is invalid. ssh is another name of remote.
func (r *reader) readGatewayBackend(n *strictyaml.Node) string {
	if n.IsScalar() && n.Text == "ssh" {
		return BackendSSH
	}
	name, _ := r.ReadOneOf(n, gatewayBackends...)
	return name
}

// IsOnOwnMachine reports whether the gateway is on machines or in a cluster of the user, not in a cloud.
func (g *Gateway) IsOnOwnMachine() bool {
	return g.Backend == BackendLocal || g.Backend == BackendSSH || g.Backend == BackendExternal || g.Backend == BackendKubernetes
}

// DomainName returns the domain in lower case, without a leading `*.` and dots around it; empty: none is set.
func (g *Gateway) DomainName() string { return NormalizeDomain(string(g.Domain)) }

// NormalizeDomain returns a domain in lower case, without a leading `*.` and dots around it.
func NormalizeDomain(text string) string {
	return strings.TrimPrefix(strings.Trim(strings.ToLower(text), "."), "*.")
}

// ReplicaCount returns on how many hosts the gateway runs, with BackendSSH, or how many pods it has, with BackendKubernetes.
func (g *Gateway) ReplicaCount() int {
	switch {
	case g.Replicas != nil:
		return *g.Replicas
	case g.Backend == BackendKubernetes:
		return defaultGatewayPods
	}
	return 1
}

// defaultGatewayPods is how many pods a gateway has, so that one may be lost, drained or replaced.
const defaultGatewayPods = 2

// ProxyNetworks returns TrustedProxies as networks; nil: those of the server.
func (g *Gateway) ProxyNetworks() []netip.Prefix {
	if g.TrustedProxies == nil {
		return nil
	}
	networks := []netip.Prefix{}
	for _, text := range g.TrustedProxies {
		if network, ok := parseNetwork(text); ok {
			networks = append(networks, network)
		}
	}
	return networks
}

var domainPattern = newPattern(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// maxDomainLength leaves space for the name of a run before the domain.
const maxDomainLength = 253 - 42

const exampleDomain = "apps.example.com"

const domainHint = "write a name that you own, such as example.com or apps.example.com"

// CheckDomain checks the domain of a gateway, with or without `*.` before it. The error is a Problem.
func CheckDomain(text string) error {
	name := NormalizeDomain(text)
	wrong := Problem{Path: "domain", Message: fmt.Sprintf("`%.60s` is not a domain", text), Hint: domainHint}
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case name == "":
		return wrong
	case strings.Contains(text, "://"):
		wrong.Message, wrong.Hint = fmt.Sprintf("`%.60s` is a URL, not a domain", text), "write only the name, without https:// and without a path"
		return wrong
	case strings.Contains(text, ":"):
		wrong.Message = fmt.Sprintf("`%.60s` is not a domain: it has a port", text)
		wrong.Hint = "write only the name; the ports are those of the gateway's process: --https-port and --http-port"
		return wrong
	case strings.Trim(last, "0123456789") == "":
		wrong.Message = fmt.Sprintf("`%.60s` is an address, and services need names below a domain", text)
		return wrong
	case strings.ContainsFunc(name, func(c rune) bool { return c > 127 }):
		wrong.Hint = "write it in its ASCII form, which begins with xn--"
		return wrong
	case !domainPattern.MatchString(name):
		return wrong
	case len(name) > maxDomainLength:
		wrong.Message, wrong.Hint = fmt.Sprintf("the domain has more than %d characters", maxDomainLength), "names of services come before it; use a shorter one"
		return wrong
	}
	return nil
}

// readDomain reads a domain.
func (r *reader) readDomain(n *strictyaml.Node) Text {
	text, ok := r.ReadText(n)
	if wrong, isWrong := errors.AsType[Problem](CheckDomain(text)); ok && isWrong {
		r.Add(n, wrong.Message, wrong.Hint)
	}
	return Text(text)
}

const maxNetworks = 100

// readNetworks reads a list of addresses and networks. It never returns nil.
func (r *reader) readNetworks(n *strictyaml.Node) []string {
	texts := r.readTexts(n, "`trusted_proxies`")
	items, _ := r.ReadItems(n, "`trusted_proxies`")
	if len(items) > maxNetworks {
		r.Add(n, fmt.Sprintf("`trusted_proxies` has more than %d items", maxNetworks), "write networks instead of addresses")
		return texts
	}
	for _, item := range items {
		if !item.IsScalar() {
			continue
		}
		if _, ok := parseNetwork(item.Text); !ok {
			r.Add(item, item.Describe()+" is neither an address nor a network",
				"write an address such as 10.0.0.5 or ::1, or a network such as 10.0.0.0/8, which begins at its first address")
		}
	}
	return texts
}

// parseNetwork parses an address or a network, which must begin at its first address.
func parseNetwork(text string) (netip.Prefix, bool) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), true
	}
	network, err := netip.ParsePrefix(text)
	return network, err == nil && network.Masked() == network && !network.Addr().Is4In6()
}

// CheckGatewayName checks whether a gateway can have a name. The error is a Problem.
func CheckGatewayName(name string) error {
	if runNamePattern.MatchString(name) {
		return nil
	}
	return Problem{Path: "name", Message: fmt.Sprintf("`%.60s` is not a valid name for a gateway", name),
		Hint: "use 2 to 41 lowercase letters, digits and dashes, and begin with a letter: " + runNamePattern.String()}
}

// gatewayNeedsRegion is the rule of the schema for the region.
var gatewayNeedsRegion = schema{
	"if":   schema{"properties": schema{"backend": schema{"enum": []string{BackendLocal, BackendSSH, "ssh", BackendExternal, BackendKubernetes}}}, "required": []string{"backend"}},
	"else": schema{"required": []string{"region"}, "properties": schema{"region": schema{"minLength": 1}}},
}

// checkGateway checks rules that involve several fields.
func (r *reader) checkGateway(n *strictyaml.Node, g *Gateway) {
	if wrong, isWrong := errors.AsType[Problem](CheckGatewayName(string(g.Name))); isWrong && g.Name != "" {
		r.Add(n.Get("name"), wrong.Message, wrong.Hint)
	}
	if g.IsOnOwnMachine() {
		r.checkOwnGateway(n, g)
		return
	}
	if g.Region == "" && !r.IsMisspelled("region") {
		r.addMissingRegion(n)
	}
	for _, key := range []string{"hosts"} {
		if value := n.Get(key); !value.IsNull() && g.Backend != "" {
			r.Add(value, "`"+key+"` can only be used with backend: ssh", "remove it")
		}
	}
	r.checkParentRef(n, g)
}

// checkParentRef checks what goes with a Gateway of the Gateway API.
func (r *reader) checkParentRef(n *strictyaml.Node, g *Gateway) {
	at := n.Get("parent_ref")
	switch {
	case at.IsNull() || g.Backend == "":
	case g.Backend != BackendKubernetes:
		r.Add(at, "`parent_ref` can only be used with backend: kubernetes", "remove it")
	case g.Certificate != nil:
		r.Add(at, "with `parent_ref` the Gateway has the certificates, and this gateway none", "write certificate: null")
	case g.Domain == "" && n.Get("domain").IsNull():
		r.Add(at, "with `parent_ref` a domain is needed: without one, the route would take every name of the Gateway", "add domain: "+exampleDomain)
	}
}

var parentRefPattern = newPattern(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// readParentRef reads the namespace and the name of a Gateway.
func (r *reader) readParentRef(n *strictyaml.Node) string {
	text, ok := r.ReadText(n)
	if ok && !parentRefPattern.MatchString(text) {
		r.Add(n, fmt.Sprintf("`%.60s` is not a namespace and a name", text), "write NAMESPACE/NAME of a Gateway: kubectl get gateways.gateway.networking.k8s.io -A")
	}
	return text
}

// checkOwnGateway checks a gateway on machines of the user.
func (r *reader) checkOwnGateway(n *strictyaml.Node, g *Gateway) {
	if hosts := n.Get("hosts"); g.Backend != BackendSSH && !hosts.IsNull() {
		r.Add(hosts, "`hosts` can only be used with backend: ssh", "remove it")
	}
	r.checkParentRef(n, g)
	if replicas := n.Get("replicas"); g.Backend != BackendSSH && g.Backend != BackendKubernetes && g.ReplicaCount() > 1 {
		hint := "remove it, or write backend: ssh"
		if g.Backend == BackendExternal {
			hint = "remove it: as many processes serve as join with a token"
		}
		r.Add(replicas, "`replicas` above 1 can only be used with backend: ssh or backend: kubernetes", hint)
	}
	if g.Backend == BackendSSH && len(g.Hosts) > 0 && g.ReplicaCount() > len(g.Hosts) {
		r.Add(n.Get("replicas"), fmt.Sprintf("%d replicas need as many hosts, and `hosts` has %d", g.ReplicaCount(), len(g.Hosts)), "add hosts, or remove replicas")
	}
	c := g.Certificate
	if c == nil {
		return
	}
	switch at := n.Get("certificate"); {
	case c.Type == "acm" || c.Type == "gcp-cm":
		r.Add(at, "certificates of type "+c.Type+" are only for gateways in their cloud", "write certificate: {type: lets-encrypt}, {type: files, …} or {type: internal}")
	case c.Type == CertificateFiles && g.Backend == BackendKubernetes:
		r.Add(at, "the pods of a gateway have no files with certificates", "write certificate: {type: lets-encrypt, dns: …} or {type: internal}, "+
			"or certificate: null behind a load balancer or a Gateway that has them")
	case c.DNS != nil && c.DNS.Provider == "exec" && g.Backend == BackendKubernetes:
		r.Add(at, "the pods of a gateway have no programs that could write DNS records", "use another provider in dns:, such as webhook")
	case c.Type == CertificateLetsEncrypt && !g.PublicIP && c.DNS == nil:
		r.Add(n.Get("public_ip"), "lets-encrypt has to reach the gateway from the internet, and public_ip is false",
			"add dns: to the certificate, or write certificate: {type: internal}")
	}
}

func (r *reader) addMissingRegion(n *strictyaml.Node) {
	region := n.Get("region")
	if region == nil {
		at := *n
		at.Path = "region"
		r.Add(&at, "`region` is missing", "add region: eu-west-1")
	} else if region.IsNull() || region.IsScalar() {
		r.Add(region, "`region` has no value", "write region: eu-west-1")
	}
}
