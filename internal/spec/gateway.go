package spec

import (
	"dstack/internal/strictyaml"
)

// Gateway is a configuration with `type: gateway`: it publishes services under
// a domain.
type Gateway struct {
	Name        Text
	Default     bool
	Backend     string // BackendLocal, BackendSSH, BackendExternal, BackendKubernetes, or that of a cloud
	Region      string
	Domain      Text // as it was written; see DomainName
	PublicIP    bool
	Certificate *Certificate // nil: none, and so no TLS
	LaterGateway
	OwnGateway

	UnsupportedNotes []UnsupportedNote
}

// LaterGateway is the fields of a gateway that versions after 0.18.10 added.
type LaterGateway struct {
	Replicas     *int          `json:"replicas,omitempty"`
	LoadBalancer *LoadBalancer `json:"load_balancer,omitempty"`
}

// OwnGateway is the fields of a gateway that no published version has.
type OwnGateway struct {
	Hosts          []string `json:"hosts,omitempty"`          // names of hosts of fleets, with BackendSSH; empty: any
	TrustedProxies []string `json:"trusted_proxies,omitzero"` // networks and addresses; nil: those of the server
	ParentRef      string   `json:"parent_ref,omitempty"`     // NAMESPACE/NAME of a Gateway of the Gateway API, with BackendKubernetes
}

// LoadBalancer is a balancer of the cloud in front of a gateway.
type LoadBalancer struct {
	Type string `json:"type"` // alb
}

// MarshalJSON writes the normal form of the wire format, with all keys in fixed
// order, and then what 0.18.10 does not have.
func (g Gateway) MarshalJSON() ([]byte, error) {
	return marshalJSON(struct {
		Type        string       `json:"type"`
		Name        Text         `json:"name"`
		Default     bool         `json:"default"`
		Backend     string       `json:"backend"`
		Region      string       `json:"region"`
		Domain      Text         `json:"domain"`
		PublicIP    bool         `json:"public_ip"`
		Certificate *Certificate `json:"certificate"`
		LaterGateway
		OwnGateway
	}{"gateway", g.Name, g.Default, g.Backend, g.Region, g.Domain, g.PublicIP, g.Certificate, g.LaterGateway, g.OwnGateway})
}

// UnmarshalJSON reads every spelling of a gateway that a file may have. The error is Problems.
func (g *Gateway) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if n.Kind != strictyaml.Mapping || n.Get("type").IsScalar() && n.Get("type").Text != "gateway" {
			r.Add(n, "this is not the configuration of a gateway", "write type: gateway")
			return
		}
		*g = *r.readGateway(n)
	})
}

var gatewayMapping = newMapping("gateway", "a gateway", "It publishes services under a domain: the server itself, processes on hosts of fleets, pods of a cluster, or processes on any other machine.",
	[]field[Gateway]{
		{Key: requiredKey("type", "type: gateway"), description: "The type of this configuration.",
			shape: oneOfShape("gateway"),
			read:  func(r *reader, n *strictyaml.Node, _ *Gateway) { r.ReadOneOf(n, supportedTypes...) }},
		{Key: nullableKey("name"), description: "The name of the gateway: 2 to 41 lowercase letters, digits and " +
			"dashes, " +
			"beginning with a letter. If not set, a name is generated.", shape: textShape, examples: []string{"my-gateway"},
			read: readTextInto(func(g *Gateway) *Text { return &g.Name })},
		{Key: nullableKey("default"), description: "Whether services that name no gateway use this one.",
			defaultText: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Default, _ = r.ReadBool(n) }},
		{Key: requiredKey("backend", "backend: local"), description: "What serves: `local` the server itself, `ssh` (or `remote`) " +
			"hosts of fleets, `kubernetes` pods of a cluster, `external` machines that join with a token of `dstack gateway token`.",
			shape: gatewayBackendShape, examples: []string{"local", "ssh", "kubernetes"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Backend = r.readGatewayBackend(n) }},
		{Key: nullableKey("region"), description: "The region of a cloud; with `kubernetes` the name of the cluster in config.yml, " +
			"if there are several.", shape: textShape,
			examples: []string{"eu-west-1"},
			read:     func(r *reader, n *strictyaml.Node, g *Gateway) { g.Region, _ = r.ReadText(n) }},
		{Key: nullableKey("hosts"), description: "The hosts of the project's fleets that may serve, with `ssh`: `HOST` or `FLEET/HOST`.",
			defaultText: "(all)", shape: textsShape, examples: []string{"[edge-1, edge-2]"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Hosts = r.readTexts(n, "`hosts`") }},
		{Key: nullableKey("domain"), description: "The domain under which services are published, with or without a " +
			"leading `*.`.", shape: textShape, examples: []string{"example.com"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Domain = r.readDomain(n) }},
		{Key: plainKey("public_ip"), description: "Whether the gateway can be reached from the internet. " +
			"`lets-encrypt` " +
			"without `dns` requires it.", defaultText: "true", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.PublicIP, _ = r.ReadBool(n) }},
		{Key: nullableKey("certificate"), description: "The source of its certificates. With `null` there are none, " +
			"and services are published with plain HTTP, for example behind a load balancer.", defaultText: "{type: lets-encrypt}",
			shape: mappingShape("gateway.certificate"), examples: []string{"{type: lets-encrypt}"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Certificate = r.readCertificate(n) }},
		{Key: nullableKey("replicas"), description: "On how many hosts it runs, with `ssh`; with `kubernetes` how many pods, 2 if it is not set.", defaultText: "1",
			shape: intShape(1, maxGatewayReplicas), examples: []string{"2"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) {
				if v, ok := r.ReadInt(n, 1, maxGatewayReplicas); ok {
					g.Replicas = &v
				}
			}},
		{Key: nullableKey("trusted_proxies"), description: "Networks and addresses of proxies in front of the gateway. `Forwarded` and " +
			"`X-Forwarded-*` count only if one of them sent the request.", defaultText: "(those of the server)", shape: textsShape,
			examples: []string{"[10.0.0.0/8]"},
			read:     func(r *reader, n *strictyaml.Node, g *Gateway) { g.TrustedProxies = r.readNetworks(n) }},
		{Key: nullableKey("parent_ref"), description: "A `Gateway` of the Gateway API that leads the domain to the pods, with `kubernetes`: " +
			"`NAMESPACE/NAME`. An `HTTPRoute` is made for it, and no load balancer. It has the certificates, so that `certificate: null` is required.",
			shape: textShape, examples: []string{"ingress/public"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.ParentRef = r.readParentRef(n) }},
		{Key: nullableKey("load_balancer"), description: "A load balancer of the cloud in front of the gateway.",
			shape: mappingShape("gateway.load_balancer"), examples: []string{"{type: alb}"},
			unsupported: &unsupportedUse[Gateway]{hint: loadBalancerHint},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) {
				g.LoadBalancer = &LoadBalancer{}
				loadBalancerMapping.read(r, n, g.LoadBalancer)
				r.addUnsupportedUse(n, "load_balancer", loadBalancerHint)
			}},
		unsupportedField[Gateway]("instance_type", "The instance type of the machine.", textShape, "remove it",
			usesText("", "")),
		unsupportedField[Gateway]("router", "A router between the gateway and the replicas.",
			openMappingShape("mapping", anyShape), "remove it", usesAnyMapping("router")),
		unsupportedField[Gateway]("tags", "Tags for resources that are created in the cloud.",
			openMappingShape("mapping of text", textShape), "remove it", usesTags),
	})

const (
	maxGatewayReplicas = 9
	loadBalancerHint   = "remove it; put a load balancer of your own in front of the gateway"
)

var loadBalancerMapping = newMapping("gateway.load_balancer", "`load_balancer`", "A load balancer of the cloud in front of a gateway.",
	[]field[LoadBalancer]{
		{Key: requiredKey("type", "type: alb"), description: "An Application Load Balancer of AWS or Google Cloud.",
			shape: oneOfShape("alb"),
			read:  func(r *reader, n *strictyaml.Node, b *LoadBalancer) { b.Type, _ = r.ReadOneOf(n, "alb") }},
	})

// readGateway reads a gateway. `certificate: null` means no certificate, a
// missing key the default.
func (r *reader) readGateway(n *strictyaml.Node) *Gateway {
	g := &Gateway{PublicIP: true, Certificate: &Certificate{Type: CertificateLetsEncrypt}}
	gatewayMapping.read(r, n, g)
	if c := n.Get("certificate"); c != nil && c.IsNull() {
		g.Certificate = nil
	}
	r.checkGateway(n, g)
	g.UnsupportedNotes = r.unsupported
	return g
}

// DecodeGateway reads a gateway from fields with their values, as in JSON. The error is Problems.
func DecodeGateway(fields map[string]any) (g Gateway, err error) {
	text, err := marshalJSON(fields)
	if err != nil {
		return g, err
	}
	err = g.UnmarshalJSON(text)
	return g, err
}
