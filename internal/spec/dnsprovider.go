package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// dnsSetting is a setting of DNS providers.
type dnsSetting struct {
	key, description, example string
	isSecret                  bool
	required, optional        []string // the providers that must and may have it
}

var dnsProviders = []string{"rfc2136", "cloudflare", "route53", "googleclouddns", "exec", "webhook"}

// dnsSettings lists the settings of all providers.
var dnsSettings = []dnsSetting{
	{key: "server", description: "The name server that takes updates, with `rfc2136`.", example: "192.0.2.53:53", required: []string{"rfc2136"}},
	{key: "key_name", description: "The name of the TSIG key, with `rfc2136`.", example: "dstack", optional: []string{"rfc2136"}},
	{key: "key_algorithm", description: "The algorithm of the TSIG key, with `rfc2136`: `hmac-sha256` if it is not set.", example: "hmac-sha512",
		optional: []string{"rfc2136"}},
	{key: "key", description: "The TSIG key in base64, with `rfc2136`.", example: "${{ secrets.TSIG }}", isSecret: true, optional: []string{"rfc2136"}},
	{key: "api_token", description: "A token that may edit the zone, with `cloudflare`.", example: "${{ secrets.CLOUDFLARE }}", isSecret: true,
		required: []string{"cloudflare"}},
	{key: "zone_token", description: "A second token that may list zones, with `cloudflare`.", example: "${{ secrets.ZONES }}", isSecret: true,
		optional: []string{"cloudflare"}},
	{key: "access_key_id", description: "The ID of an access key, with `route53`.", example: "AKIAEXAMPLE", required: []string{"route53"}},
	{key: "secret_access_key", description: "The access key, with `route53`.", example: "${{ secrets.AWS }}", isSecret: true, required: []string{"route53"}},
	{key: "session_token", description: "The token of a temporary access key, with `route53`.", example: "${{ secrets.AWS_SESSION }}", isSecret: true,
		optional: []string{"route53"}},
	{key: "region", description: "The region of the API, with `route53`.", example: "us-east-1", optional: []string{"route53"}},
	{key: "hosted_zone_id", description: "The hosted zone, with `route53`, if its name does not say it.", example: "Z0EXAMPLE", optional: []string{"route53"}},
	{key: "project", description: "The project of the zone, with `googleclouddns`.", example: "my-project", required: []string{"googleclouddns"}},
	{key: "service_account", description: "The key of a service account (JSON), with `googleclouddns`.", example: "${{ secrets.GCP }}", isSecret: true,
		required: []string{"googleclouddns"}},
	{key: "command", description: "The absolute path of a program on the machine of the gateway, with `exec`. It is called with `present` or `cleanup`, " +
		"the name of the record and its value.", example: "/usr/local/bin/set-record", required: []string{"exec"}},
	{key: "url", description: "The address that is called, with `webhook`: POST with `{action, name, value}`.",
		example: "https://dns.example.com/records", required: []string{"webhook"}},
	{key: "token", description: "The bearer token of the call, with `webhook`.", example: "${{ secrets.HOOK }}", isSecret: true, optional: []string{"webhook"}},
	{key: "resolver", description: "The name server that is asked whether a record is visible yet, if not the machine's own.", example: "192.0.2.53:53",
		optional: dnsProviders},
	{key: "propagation_timeout", description: "How long a record may take to become visible.", example: "5m", optional: dnsProviders},
}

var dnsProviderMapping = newMapping("gateway.certificate.dns", "`dns`", "How DNS records of the domain are written. Values may refer to secrets.",
	[]field[DNSProvider]{
		{Key: requiredKey("provider", "provider: cloudflare"), description: "Who has the domain's records. `rfc2136`: a name server of your own " +
			"that takes updates. `exec`: a program of your own. `webhook`: a service of your own.", shape: oneOfShape(dnsProviders...),
			read: func(r *reader, n *strictyaml.Node, p *DNSProvider) { p.Provider, _ = r.ReadOneOf(n, dnsProviders...) }},
	}, listDNSFields())

func listDNSFields() (fields []field[DNSProvider]) {
	for _, s := range dnsSettings {
		fields = append(fields, field[DNSProvider]{Key: nullableKey(s.key), description: s.description, shape: dnsSettingShape(s.key), examples: []string{s.example},
			read: func(r *reader, n *strictyaml.Node, p *DNSProvider) { p.Settings[s.key] = r.readDNSSetting(n, s.key) }})
	}
	return fields
}

func dnsSettingShape(key string) shape {
	if key == "propagation_timeout" {
		return textShape.withWords("duration: `90s`, `5m`")
	}
	return textShape
}

func (r *reader) readDNSSetting(n *strictyaml.Node, key string) string {
	switch text := r.readNonEmpty(n); key {
	case "command":
		return r.readGatewayFile(n)
	case "propagation_timeout":
		r.readOptionalDuration(n)
		return text
	case "url":
		if text != "" && !strings.HasPrefix(text, "https://") && !strings.HasPrefix(text, "http://") {
			r.Add(n, n.Describe()+" is not a URL", "write url: https://dns.example.com/records")
		}
		return text
	default:
		for _, piece := range parseTemplate(text) {
			if piece.isReference && piece.secretName() == "" {
				r.Add(n, "only references to secrets can be used here: "+n.Describe(), "write ${{ secrets.NAME }}, and set it: dstack secret set NAME")
				break
			}
		}
		return text
	}
}

// readDNSProvider reads a provider, and checks that it has the settings that it needs and no others.
func (r *reader) readDNSProvider(n *strictyaml.Node) *DNSProvider {
	p := &DNSProvider{Settings: map[string]string{}}
	if !dnsProviderMapping.read(r, n, p) || p.Provider == "" {
		return p
	}
	for _, s := range dnsSettings {
		value, isRequired := n.Get(s.key), slices.Contains(s.required, p.Provider)
		switch {
		case isRequired && value.IsNull() && !r.IsMisspelled(s.key):
			r.Add(n, "`"+s.key+"` is required with provider: "+p.Provider, "add "+s.key+": "+s.example)
		case !isRequired && !slices.Contains(s.optional, p.Provider) && !value.IsNull():
			of := slices.Concat(s.required, s.optional)[0]
			r.Add(value, "`"+s.key+"` can only be used with provider: "+of, "remove it, or write provider: "+of)
		}
	}
	if name, key := n.Get("key_name"), n.Get("key"); p.Provider == "rfc2136" && name.IsNull() != key.IsNull() {
		r.Add(n, "`key_name` and `key` belong together", "add the other one, or remove both for a name server that takes updates without a key")
	}
	return p
}

// SecretNames returns the names of the secrets that a gateway refers to, sorted; nil if there are none.
func (g *Gateway) SecretNames() []string {
	if g.Certificate == nil || g.Certificate.DNS == nil {
		return nil
	}
	var names []string
	for _, value := range g.Certificate.DNS.Settings {
		for _, p := range parseTemplate(value) {
			if name := p.secretName(); name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ResolveSecrets returns a copy of a certificate with the values of the secrets that it refers to, and the names of the
// secrets without a value.
func (c *Certificate) ResolveSecrets(lookup func(name string) (value string, ok bool)) (resolved *Certificate, missing []string) {
	resolved = c.Clone()
	if c == nil || c.DNS == nil {
		return resolved, nil
	}
	for key, template := range resolved.DNS.Settings {
		var b strings.Builder
		for _, p := range parseTemplate(template) {
			name := p.secretName()
			if name == "" {
				b.WriteString(p.text)
				continue
			}
			value, ok := lookup(name)
			if !ok && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
			b.WriteString(value)
		}
		resolved.DNS.Settings[key] = b.String()
	}
	slices.Sort(missing)
	return resolved, missing
}

// hiddenSetting stands for the value of a setting in answers.
const hiddenSetting = "(hidden)"

// WithoutSecrets returns a copy of a gateway in which the settings that may be secret are hidden. References to secrets stay.
func (g Gateway) WithoutSecrets() Gateway {
	g.Certificate = g.Certificate.Clone()
	if g.Certificate == nil || g.Certificate.DNS == nil {
		return g
	}
	settings := g.Certificate.DNS.Settings
	for _, s := range dnsSettings {
		if value, isSet := settings[s.key]; isSet && s.isSecret && !isOnlyReference(value) {
			settings[s.key] = hiddenSetting
		}
	}
	if address, isSet := settings["url"]; isSet {
		settings["url"] = hideURLSecrets(address)
	}
	return g
}

// hideURLSecrets hides the user, the password and the query of a URL, where services expect keys. References to secrets stay.
func hideURLSecrets(address string) string {
	scheme, rest, _ := strings.Cut(address, "://")
	rest, query, hasQuery := strings.Cut(rest, "?")
	host, path, hasPath := strings.Cut(rest, "/")
	if user := strings.LastIndexByte(host, '@'); user >= 0 && !isOnlyReference(host[:user]) {
		host = hiddenSetting + host[user:]
	}
	if hasPath {
		host += "/" + path
	}
	if hasQuery {
		if _, value, _ := strings.Cut(query, "="); !isOnlyReference(value) {
			query = hiddenSetting
		}
		host += "?" + query
	}
	return scheme + "://" + host
}

// isOnlyReference reports whether a template is one reference to a secret and nothing else.
func isOnlyReference(template string) bool {
	pieces := parseTemplate(template)
	return len(pieces) == 1 && pieces[0].secretName() != ""
}
