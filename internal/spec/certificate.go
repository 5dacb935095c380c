package spec

import (
	"maps"
	"slices"

	"dstack/internal/strictyaml"
)

// The types of certificates that the configuration of a gateway may name.
const (
	CertificateLetsEncrypt = "lets-encrypt" // issued by the ACME server that the installation uses
	CertificateFiles       = "files"        // files on the machine of the gateway
	CertificateInternal    = "internal"     // issued by the internal authority
)

// Certificate is the source of a gateway's certificates.
type Certificate struct {
	Type  string       // lets-encrypt, files, internal, acm, gcp-cm
	Email Text         // with type lets-encrypt: of whom the issuer tells about problems
	DNS   *DNSProvider // with type lets-encrypt: one wildcard certificate by DNS-01; nil: one certificate for each name
	Cert  string       // with type files: the path of the certificate and its chain
	Key   string       // with type files: the path of its private key
	ARN   string       // with type acm
	Name  string       // with type gcp-cm
}

// DNSProvider says how records of the domain are written, with which an issuer
// checks that a wildcard certificate may be issued.
type DNSProvider struct {
	Provider string            // one of dnsProviders
	Settings map[string]string // by key; values may refer to secrets
}

// Clone returns a copy that shares nothing with c; nil for nil.
func (c *Certificate) Clone() *Certificate {
	if c == nil {
		return nil
	}
	copied := *c
	if c.DNS != nil {
		copied.DNS = &DNSProvider{Provider: c.DNS.Provider, Settings: maps.Clone(c.DNS.Settings)}
	}
	return &copied
}

// MarshalJSON writes only the keys that belong to the type.
func (c Certificate) MarshalJSON() ([]byte, error) {
	return marshalJSON(struct {
		Type  string       `json:"type"`
		ARN   string       `json:"arn,omitempty"`
		Name  string       `json:"name,omitempty"`
		Cert  string       `json:"cert,omitempty"`
		Key   string       `json:"key,omitempty"`
		Email string       `json:"email,omitempty"`
		DNS   *DNSProvider `json:"dns,omitempty"`
	}{c.Type, c.ARN, c.Name, c.Cert, c.Key, string(c.Email), c.DNS})
}

// MarshalJSON writes the provider and its settings as one mapping.
func (p DNSProvider) MarshalJSON() ([]byte, error) {
	all := map[string]string{"provider": p.Provider}
	maps.Copy(all, p.Settings)
	return marshalJSON(all)
}

// certificateKeys lists the keys of each type of certificate: those that it
// must have, and those that it may have.
var certificateKeys = map[string]struct{ required, optional []string }{
	CertificateLetsEncrypt: {nil, []string{"email", "dns"}},
	CertificateFiles:       {[]string{"cert", "key"}, nil},
	CertificateInternal:    {},
	"acm":                  {[]string{"arn"}, nil},
	"gcp-cm":               {[]string{"name"}, nil},
}

var certificateTypes = []string{CertificateLetsEncrypt, CertificateFiles, CertificateInternal, "acm", "gcp-cm"}

var certificateMapping = newMapping("gateway.certificate", "`certificate`", "The source of a gateway's certificates.",
	[]field[Certificate]{
		{Key: requiredKey("type", "type: lets-encrypt"),
			description: "`lets-encrypt`: issued by Let's Encrypt or another ACME server, and renewed. `files`: your own. `internal`: " +
				"issued by the internal authority, whose root `dstack gateway ca` prints. `acm` and `gcp-cm`: managed by a cloud.",
			shape: oneOfShape(certificateTypes...),
			read: func(r *reader, n *strictyaml.Node, c *Certificate) {
				c.Type, _ = r.ReadOneOf(n, certificateTypes...)
			}},
		{Key: nullableKey("email"), description: "The address that the issuer writes to about problems, with `type: lets-encrypt`.",
			shape: textShape, examples: []string{"admin@example.com"},
			read: readTextInto(func(c *Certificate) *Text { return &c.Email })},
		{Key: nullableKey("dns"), description: "How DNS records of the domain are written, with `type: lets-encrypt`: then one certificate " +
			"for `*.<domain>` is enough for all services. Without it, each service gets a certificate of its own.",
			shape: mappingShape("gateway.certificate.dns"), examples: []string{"{provider: cloudflare, api_token: '${{ secrets.DNS }}'}"},
			read: func(r *reader, n *strictyaml.Node, c *Certificate) { c.DNS = r.readDNSProvider(n) }},
		{Key: nullableKey("cert"), description: "The file with the certificate and its chain (PEM), on the machine of the gateway, with " +
			"`type: files`. It is read again when it changes.", shape: textShape, examples: []string{"/etc/dstack/example.com.crt"},
			read: func(r *reader, n *strictyaml.Node, c *Certificate) { c.Cert = r.readGatewayFile(n) }},
		{Key: nullableKey("key"), description: "The file with its private key (PEM), with `type: files`.", shape: textShape,
			examples: []string{"/etc/dstack/example.com.key"},
			read:     func(r *reader, n *strictyaml.Node, c *Certificate) { c.Key = r.readGatewayFile(n) }},
		{Key: nullableKey("arn"), description: "The ARN of the certificate, with `type: acm`.", shape: textShape,
			read: func(r *reader, n *strictyaml.Node, c *Certificate) { c.ARN = r.readNonEmpty(n) }},
		{Key: nullableKey("name"), description: "The full name of the certificate, with `type: gcp-cm`.", shape: textShape,
			examples: []string{"projects/me/locations/europe-west9/certificates/mine"},
			read:     func(r *reader, n *strictyaml.Node, c *Certificate) { c.Name = r.readNonEmpty(n) }},
	})

// certificateHints say what to add for a key that is missing.
var certificateHints = map[string]string{
	"cert": "add cert: followed by the path of the certificate on the machine of the gateway",
	"key":  "add key: followed by the path of the private key on the machine of the gateway",
	"arn":  "add arn: followed by the ARN of the certificate in AWS Certificate Manager",
	"name": "add name: followed by the full name of the certificate",
}

// readCertificate reads a certificate, and checks that it has exactly the keys
// of its type.
func (r *reader) readCertificate(n *strictyaml.Node) *Certificate {
	c := &Certificate{}
	if !certificateMapping.read(r, n, c) || c.Type == "" {
		return c
	}
	keys := certificateKeys[c.Type]
	for _, key := range []string{"arn", "name", "cert", "key", "email", "dns"} {
		value := n.Get(key)
		isRequired := slices.Contains(keys.required, key)
		switch {
		case isRequired && value.IsNull() && !r.IsMisspelled(key):
			r.Add(n, "`"+key+"` is required with type: "+c.Type, certificateHints[key])
		case !isRequired && !slices.Contains(keys.optional, key) && !value.IsNull():
			of := certificateTypeOf(key)
			r.Add(value, "`"+key+"` can only be used with type: "+of, "remove it, or set type: "+of)
		}
	}
	return c
}

// certificateTypeOf returns the type of certificate that has a key.
func certificateTypeOf(key string) string {
	for _, name := range certificateTypes {
		if keys := certificateKeys[name]; slices.Contains(keys.required, key) || slices.Contains(keys.optional, key) {
			return name
		}
	}
	return ""
}

// readFilePath reads the absolute path of a file.
func (r *reader) readGatewayFile(n *strictyaml.Node) string {
	text, ok := r.ReadText(n)
	if ok && !isPlainPath(text) {
		r.Add(n, n.Describe()+" is not the absolute path of a file", "write the path on the machine of the gateway, beginning with /, without `..`")
	}
	return text
}
