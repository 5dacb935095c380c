package spec

import (
	"fmt"

	"dstack/internal/strictyaml"
)

// Gateway is a configuration with `type: gateway`: a machine that publishes
// services under a domain.
type Gateway struct {
	Name        Text
	Default     bool
	Backend     string
	Region      string
	Domain      Text
	PublicIP    bool
	Certificate *Certificate // nil: none, and so no TLS
	LaterGateway

	UnsupportedNotes []UnsupportedNote
}

// LaterGateway is the fields of a gateway that versions after 0.18.10 added.
type LaterGateway struct {
	Replicas     *int          `json:"replicas,omitempty"`
	LoadBalancer *LoadBalancer `json:"load_balancer,omitempty"`
}

// LoadBalancer is a balancer of the cloud in front of a gateway.
type LoadBalancer struct {
	Type string `json:"type"` // alb
}

// Certificate is the source of a gateway's certificate.
type Certificate struct {
	Type string // lets-encrypt, acm, gcp-cm
	ARN  string // with type acm
	Name string // with type gcp-cm
}

// MarshalJSON writes only the keys that belong to the type.
func (c Certificate) MarshalJSON() ([]byte, error) {
	if c.Type == "acm" {
		return marshalJSON(struct {
			Type string `json:"type"`
			ARN  string `json:"arn"`
		}{c.Type, c.ARN})
	}
	return marshalJSON(struct {
		Type string `json:"type"`
		Name string `json:"name,omitempty"`
	}{c.Type, c.Name})
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
	}{"gateway", g.Name, g.Default, g.Backend, g.Region, g.Domain, g.PublicIP, g.Certificate, g.LaterGateway})
}

var gatewayMapping = newMapping("gateway", "a gateway", "A machine that publishes services under a domain.",
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
		{Key: requiredKey("backend", "backend: aws"), description: "The backend from which the machine is rented.",
			shape: backendShape, examples: []string{"aws"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Backend = r.readBackend(n) }},
		{Key: requiredKey("region", "region: eu-west-1"), description: "The region.", shape: nonEmptyShape,
			examples: []string{"eu-west-1"},
			read:     func(r *reader, n *strictyaml.Node, g *Gateway) { g.Region = r.readNonEmpty(n) }},
		{Key: nullableKey("domain"), description: "The domain under which services are published, with or without a " +
			"leading `*.`.", shape: textShape, examples: []string{"example.com"},
			read: readTextInto(func(g *Gateway) *Text { return &g.Domain })},
		{Key: plainKey("public_ip"), description: "Whether the gateway can be reached from the internet. " +
			"`lets-encrypt` " +
			"requires it.", defaultText: "true", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.PublicIP, _ = r.ReadBool(n) }},
		{Key: nullableKey("certificate"), description: "The source of its certificate. With `null` there is none, " +
			"and " +
			"services with `https` cannot be published.", defaultText: "{type: lets-encrypt}",
			shape: mappingShape("gateway.certificate"), examples: []string{"{type: lets-encrypt}"},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Certificate = r.readCertificate(n) }},
		{Key: nullableKey("replicas"), description: "The number of machines of the gateway.", defaultText: "1",
			shape: intShape(1, maxGatewayReplicas), examples: []string{"2"},
			unsupported: &unsupportedUse[Gateway]{what: "more than one", hint: gatewayReplicasHint},
			read: func(r *reader, n *strictyaml.Node, g *Gateway) {
				if v, ok := r.ReadInt(n, 1, maxGatewayReplicas); ok {
					g.Replicas = &v
					if v > 1 {
						r.addUnsupportedUse(n, fmt.Sprintf("%d replicas of a gateway", v), gatewayReplicasHint)
					}
				}
			}},
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
	maxGatewayReplicas  = 9
	gatewayReplicasHint = "write replicas: 1, or remove it"
	loadBalancerHint    = "remove it; put a load balancer of your own in front of the server"
)

var loadBalancerMapping = newMapping("gateway.load_balancer", "`load_balancer`", "A load balancer of the cloud in front of a gateway.",
	[]field[LoadBalancer]{
		{Key: requiredKey("type", "type: alb"), description: "An Application Load Balancer of AWS or Google Cloud.",
			shape: oneOfShape("alb"),
			read:  func(r *reader, n *strictyaml.Node, b *LoadBalancer) { b.Type, _ = r.ReadOneOf(n, "alb") }},
	})

var certificateMapping = newMapping("gateway.certificate", "`certificate`", "The source of a gateway's certificate.",
	[]field[Certificate]{
		{Key: requiredKey("type", "type: lets-encrypt"),
			description: "Issued by Let's Encrypt, or managed by AWS Certificate Manager or Google's Certificate Manager.",
			shape:       oneOfShape(certificateTypes...),
			read: func(r *reader, n *strictyaml.Node, c *Certificate) {
				c.Type, _ = r.ReadOneOf(n, certificateTypes...)
			}},
		{Key: nullableKey("arn"), description: "The ARN of the certificate, with `type: acm`.", shape: textShape,
			read: func(r *reader, n *strictyaml.Node, c *Certificate) { c.ARN = r.readNonEmpty(n) }},
		{Key: nullableKey("name"), description: "The full name of the certificate, with `type: gcp-cm`.", shape: textShape,
			examples: []string{"projects/me/locations/europe-west9/certificates/mine"},
			read:     func(r *reader, n *strictyaml.Node, c *Certificate) { c.Name = r.readNonEmpty(n) }},
	})

var certificateTypes = []string{"lets-encrypt", "acm", "gcp-cm"}

// readCertificate reads a certificate, and checks that `arn` is set exactly with
// type acm, and `name` with type gcp-cm.
func (r *reader) readCertificate(n *strictyaml.Node) *Certificate {
	c := &Certificate{}
	if !certificateMapping.read(r, n, c) {
		return c
	}
	switch arn := n.Get("arn"); {
	case c.Type == "acm" && arn.IsNull():
		r.Add(n, "`arn` is required with type: acm",
			"add arn: followed by the ARN of the certificate in AWS Certificate Manager")
	case c.Type != "acm" && c.Type != "" && !arn.IsNull():
		r.Add(arn, "`arn` can only be used with type: acm", "remove it, or set type: acm")
	}
	switch name := n.Get("name"); {
	case c.Type == "gcp-cm" && name.IsNull():
		r.Add(n, "`name` is required with type: gcp-cm", "add name: followed by the full name of the certificate")
	case c.Type != "gcp-cm" && c.Type != "" && !name.IsNull():
		r.Add(name, "`name` can only be used with type: gcp-cm", "remove it, or set type: gcp-cm")
	}
	return c
}

// readGateway reads a gateway. `certificate: null` means no certificate, a
// missing key the default.
func (r *reader) readGateway(n *strictyaml.Node) *Gateway {
	g := &Gateway{PublicIP: true, Certificate: &Certificate{Type: "lets-encrypt"}}
	gatewayMapping.read(r, n, g)
	if c := n.Get("certificate"); c != nil && c.IsNull() {
		g.Certificate = nil
	}
	g.UnsupportedNotes = r.unsupported
	return g
}
