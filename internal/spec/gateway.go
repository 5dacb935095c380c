package spec

import (
	"dstack/internal/strictyaml"
)

// Gateway is one `type: gateway` configuration: a machine that publishes
// services below a domain.
type Gateway struct {
	Name        Text
	Default     bool
	Backend     string
	Region      string
	Domain      Text
	PublicIP    bool
	Certificate *Certificate // nil: none, so no TLS

	NotYet []NotYet
}

// Certificate is where a gateway's certificate comes from.
type Certificate struct {
	Type string // lets-encrypt, acm
	ARN  string // of type acm
}

// MarshalJSON writes only the keys of the certificate's type.
func (c Certificate) MarshalJSON() ([]byte, error) {
	if c.Type == "acm" {
		return marshal(struct {
			Type string `json:"type"`
			ARN  string `json:"arn"`
		}{c.Type, c.ARN})
	}
	return marshal(struct {
		Type string `json:"type"`
	}{c.Type})
}

// MarshalJSON writes the normalised wire form, every key in its order.
func (g Gateway) MarshalJSON() ([]byte, error) {
	return marshal(struct {
		Type        string       `json:"type"`
		Name        Text         `json:"name"`
		Default     bool         `json:"default"`
		Backend     string       `json:"backend"`
		Region      string       `json:"region"`
		Domain      Text         `json:"domain"`
		PublicIP    bool         `json:"public_ip"`
		Certificate *Certificate `json:"certificate"`
	}{"gateway", g.Name, g.Default, g.Backend, g.Region, g.Domain, g.PublicIP, g.Certificate})
}

var gatewayBlock = newBlock("gateway", "a gateway", "A machine that publishes services below a domain.", []field[Gateway]{
	{Key: required("type", "a line: type: gateway"), about: "What this file is.", shape: oneOf("gateway"),
		read: func(r *reader, n *strictyaml.Node, _ *Gateway) { r.OneOf(n, kinds...) }},
	{Key: nullable("name"), about: "The gateway's name: 2 to 41 lower-case letters, digits and dashes, a letter first. Without one, a name is made up.", shape: textShape, examples: []string{"my-gateway"},
		read: into(func(g *Gateway) *Text { return &g.Name })},
	{Key: plain("default"), about: "Whether services use it that name no other.", usual: "false", shape: boolShape,
		read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Default, _ = r.Bool(n) }},
	{Key: required("backend", "backend: aws"), about: "Where its machine is rented.", shape: backendShape, examples: []string{"aws"},
		read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Backend = r.backend(n) }},
	{Key: required("region", "region: eu-west-1"), about: "In which region.", shape: filledShape, examples: []string{"eu-west-1"},
		read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Region = r.filled(n) }},
	{Key: nullable("domain"), about: "The domain below which services are published, with or without `*.` before it.", shape: textShape, examples: []string{"example.com"},
		read: into(func(g *Gateway) *Text { return &g.Domain })},
	{Key: plain("public_ip"), about: "Whether it can be reached from the internet. Without that, `lets-encrypt` cannot be used.", usual: "true", shape: boolShape,
		read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.PublicIP, _ = r.Bool(n) }},
	{Key: nullable("certificate"), about: "Where its certificate comes from. `null`: there is none, and services with `https` cannot be published.", usual: "{type: lets-encrypt}", shape: blockShape("gateway.certificate"), examples: []string{"{type: lets-encrypt}"},
		read: func(r *reader, n *strictyaml.Node, g *Gateway) { g.Certificate = r.certificate(n) }},
	later[Gateway]("instance_type", "The type of its machine.", textShape, "remove it", asText("", "")),
	later[Gateway]("router", "A router between the gateway and the replicas.", mappingOf("mapping", anyShape), "remove it", asMapping("router")),
	later[Gateway]("tags", "Labels for what is made in the cloud.", mappingOf("mapping of text", textShape), "remove it", asTags),
})

var certificateBlock = newBlock("gateway.certificate", "`certificate`", "Where a gateway's certificate comes from.", []field[Certificate]{
	{Key: required("type", "type: lets-encrypt"), about: "Made by Let's Encrypt, or kept by AWS.", shape: oneOf("lets-encrypt", "acm"),
		read: func(r *reader, n *strictyaml.Node, c *Certificate) { c.Type, _ = r.OneOf(n, "lets-encrypt", "acm") }},
	{Key: nullable("arn"), about: "AWS's name of the certificate, for `type: acm`.", shape: textShape,
		read: func(r *reader, n *strictyaml.Node, c *Certificate) { c.ARN = r.filled(n) }},
})

func (r *reader) certificate(n *strictyaml.Node) *Certificate {
	c := &Certificate{}
	if !certificateBlock.into(r, n, c) {
		return c
	}
	switch arn := n.Get("arn"); {
	case c.Type == "acm" && arn.IsNull():
		r.At(n, "a certificate of type acm needs `arn`", "add arn: followed by AWS's name of the certificate")
	case c.Type == "lets-encrypt" && !arn.IsNull():
		r.At(arn, "`arn` belongs to type acm", "remove it, or write type: acm")
	}
	return c
}

func (r *reader) gateway(n *strictyaml.Node) *Gateway {
	g := &Gateway{PublicIP: true, Certificate: &Certificate{Type: "lets-encrypt"}}
	gatewayBlock.into(r, n, g)
	if c := n.Get("certificate"); c != nil && c.IsNull() {
		g.Certificate = nil
	}
	g.NotYet = r.notes
	return g
}
