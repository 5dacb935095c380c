package route

import (
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// APIPath is where a server has the models of its main project at its own
// address, as model servers do. It is the default base path of most clients.
const APIPath = "/v1"

// HealthPath is the health check of the models at APIPath, beside it.
const HealthPath = "/health"

// localDomain is the domain whose names lead to the machine of whoever resolves
// them.
const localDomain = "localhost"

// Origin is the beginning of a URL: its scheme, and its host with an optional
// port.
type Origin struct{ Scheme, Host string }

// String returns the origin without a path: https://dstack.example.com.
func (o Origin) String() string { return o.Scheme + "://" + o.Host }

// IsZero reports that the origin is not known.
func (o Origin) IsZero() bool { return o == Origin{} }

// isHost reports whether a host, with or without the default port of the
// origin's scheme, is that of the origin.
func (o Origin) isHost(host string) bool {
	return equalASCII(trimDefaultPort(o.Scheme, o.Host), trimDefaultPort(o.Scheme, host))
}

func trimDefaultPort(scheme, host string) string {
	if scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// Site is where a server and its services are published.
type Site struct {
	Server Origin // of the server itself, as its operator configured it
	// Domain is configured: services are at <run>.<Domain>. If it is empty, they
	// are below the host of Server, unless that is an address or localhost.
	Domain string
	Main   string // the project whose runs are directly below a domain, and whose models are at APIPath
}

// ByHost parses a Host header, see Domain.ByHost. Names below localhost are
// always routed; only readers on the server's machine resolve them to it. The
// host of the server itself belongs to the API, even if it is below the domain.
func (s Site) ByHost(host string) (Destination, bool) {
	name, ok := trimPort(host)
	if !ok || equalASCII(strings.TrimSuffix(name, "."), s.serverName()) {
		return Destination{}, false
	}
	if d, ok := (Domain{Name: s.publicDomain(), Main: s.Main}).ByHost(host); ok {
		return d, true
	}
	return Domain{Name: localDomain, Main: s.Main}.ByHost(host)
}

// ByPath parses an escaped path at the server's own address: see ParsePath, and
// APIPath and HealthPath for the models of the main project.
func (s Site) ByPath(path string) (Destination, bool) {
	if path == APIPath || strings.HasPrefix(path, APIPath+"/") || strings.TrimSuffix(path, "/") == HealthPath {
		return Destination{Project: lowerASCII(s.Main), Models: true}, true
	}
	return ParsePath(path)
}

// Scheme returns the scheme by which a client reached a host. scheme is what the
// request itself says, which is http behind a proxy that ends TLS and says
// nothing; the configured URL knows better for its own host and its domain.
func (s Site) Scheme(scheme, host string) string {
	domain := s.publicDomain()
	if s.Server.Scheme != "https" {
		return scheme
	}
	if s.Server.isHost(host) || domain != "" && hasSuffixASCII(trimDefaultPort(s.Server.Scheme, host),
		"."+trimDefaultPort(s.Server.Scheme, domain+portOf(s.Server.Host))) {
		return s.Server.Scheme
	}
	return scheme
}

func hasSuffixASCII(text, suffix string) bool {
	return len(text) >= len(suffix) && equalASCII(text[len(text)-len(suffix):], suffix)
}

// PublicDomain returns the domain below which the server itself publishes services, and whose names every reader can
// resolve; empty: there is none.
func (s Site) PublicDomain() string { return s.publicDomain() }

// publicDomain returns the domain whose names every reader can resolve, or ""
// if there is none.
func (s Site) publicDomain() string {
	domain := strings.Trim(s.Domain, ".")
	switch {
	case equalASCII(domain, localDomain):
		return ""
	case domain != "":
		return domain
	case isPublicName(s.serverName()):
		return s.serverName()
	}
	return ""
}

// serverName returns the host of the server without its port, or "" for an IPv6
// address.
func (s Site) serverName() string {
	name, _ := trimPort(s.Server.Host)
	return name
}

// isPublicName reports whether names below a host can be resolved by others. No
// name is below an address; below localhost, and below a name without a domain,
// others find nothing.
func isPublicName(host string) bool {
	dot := strings.LastIndexByte(host, '.')
	last := host[dot+1:]
	return dot > 0 && host[0] != '.' && !strings.Contains(host, "..") && strings.Trim(last, "0123456789") != "" &&
		!equalASCII(last, localDomain)
}

// IsLoopback reports whether a host, with an optional port, is this machine for
// whoever uses it: localhost, 127.0.0.0/8 or ::1.
func IsLoopback(host string) bool {
	if host == "[::1]" || strings.HasPrefix(host, "[::1]:") {
		return true
	}
	name, ok := trimPort(host)
	name = strings.TrimSuffix(name, ".")
	return ok && (equalASCII(name, localDomain) ||
		strings.HasPrefix(name, "127.") && strings.Trim(name, "0123456789.") == "")
}

// IsValidHost reports whether a Host header is a name or an address with an
// optional port, and nothing that means more in a URL or on a terminal.
func IsValidHost(host string) bool {
	if host == "" || len(host) > 300 {
		return false
	}
	for _, c := range []byte(host) {
		isLetter := 'a' <= lowerByte(c) && lowerByte(c) <= 'z'
		if !isLetter && (c < '0' || c > '9') && !strings.ContainsRune("-._:[]", rune(c)) {
			return false
		}
	}
	return true
}

// Reader is whom URLs are for, by how its request reached the server.
type Reader struct {
	Origin Origin // of the URL that it used; zero: not known
	// IsLocal says that the server is at a loopback address of its machine, so
	// that names below localhost lead there, too.
	IsLocal bool
}

// URLs returns the URLs of runs and models that work for a reader.
func (s Site) URLs(reader Reader) URLs {
	u := URLs{base: s.Server, main: lowerASCII(s.Main), isLocal: reader.IsLocal}
	isPlain := s.Server.Scheme != "https"
	isSecure := reader.Origin.Scheme == "https"
	if !reader.Origin.IsZero() && (!s.Server.isHost(reader.Origin.Host) || isPlain && isSecure) {
		u.base = reader.Origin
	}
	domain := s.publicDomain()
	switch {
	case domain != "" && isPlain && isSecure: // a proxy with TLS that the configured URL does not know
		u.names = Origin{u.base.Scheme, lowerASCII(domain) + portOf(u.base.Host)}
	case domain != "":
		u.names = Origin{s.Server.Scheme, lowerASCII(domain) + portOf(s.Server.Host)}
	case reader.IsLocal:
		u.names = Origin{u.base.Scheme, localDomain + portOf(u.base.Host)}
	}
	return u
}

// portOf returns the port of a host with its colon, or "".
func portOf(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[i:]
	}
	return ""
}

// URLs builds the URLs of runs and models for one reader.
type URLs struct {
	base  Origin // the server's own address
	names Origin // the domain of the names, with their scheme and port; zero: none
	main  string

	isLocal   bool // the reader is on the server's machine
	published []Published
	now       time.Time
}

// WithGateways returns the URLs of a server with gateways.
func (u URLs) WithGateways(published []Published, now time.Time) URLs {
	u.published, u.now = published, now
	return u
}

// Publication is where a run is published by a gateway, or will be.
type Publication struct {
	Gateway string        // its name
	URL     string        // https://notes.example.com; empty: not known yet
	Missing dstack.Reason // why clients cannot use the URL yet; empty: they can
}

// Publication returns where a gateway publishes a run, by what the configuration of the run says of gateways; nil: no
// gateway does.
func (u URLs) Publication(project, run, choice string) *Publication {
	g := FindPublished(u.published, project, choice)
	if g == nil {
		return nil
	}
	at, missing := g.URL(run, u.now)
	p := Publication{Gateway: g.Name, Missing: missing}
	if !at.IsZero() {
		p.URL = at.String()
	}
	return &p
}

// atGateway returns the origin of a name at the gateway of a project; empty: the reader cannot use it now.
func (u URLs) atGateway(project, label, choice string, isForProgram bool) string {
	g := FindPublished(u.published, project, choice)
	if g == nil || g.isLocalDomain() && (isForProgram || !u.isLocal) {
		return ""
	}
	if at, missing := g.URL(label, u.now); missing == "" {
		return at.String()
	}
	return ""
}

// Server returns the origin of the server itself.
func (u URLs) Server() string { return u.base.String() }

// Run returns the URL of a run: at its gateway if that serves it, else by name where
// the reader can resolve it, else by path. choice is what the configuration of the
// run says of gateways: see spec.Service.Gateway.
func (u URLs) Run(project, run, choice string) string {
	if url := u.atGateway(project, run, choice, false); url != "" {
		return url + "/"
	}
	if name := u.RunByName(project, run); name != "" && choice != spec.GatewayNone {
		return name
	}
	return u.RunByPath(project, run)
}

// RunForPrograms returns the URL of a run for programs, whose resolvers need not know the
// names below localhost: then it is by path.
func (u URLs) RunForPrograms(project, run, choice string) string {
	if url := u.atGateway(project, run, choice, true); url != "" {
		return url + "/"
	}
	name, _ := trimPort(u.names.Host)
	if byName := u.RunByName(project, run); byName != "" && name != localDomain && choice != spec.GatewayNone {
		return byName
	}
	return u.RunByPath(project, run)
}

// RunByName returns https://<run>.<domain>/, or "" if the reader can resolve no
// such name.
func (u URLs) RunByName(project, run string) string {
	if u.names.IsZero() {
		return ""
	}
	host := run + "."
	if project = lowerASCII(project); project != u.main {
		host += project + "."
	}
	return Origin{u.names.Scheme, host + u.names.Host}.String() + "/"
}

// RunByPath returns the URL of a run below the server's own address.
func (u URLs) RunByPath(project, run string) string {
	return u.base.String() + ServicesPath + lowerASCII(project) + "/" + run + "/"
}

// Models returns the base URL of a project's models for clients of OpenAI's API: at
// the gateway that choice names, if that serves them, else at the server's own
// address, whose name every client of the server can resolve.
func (u URLs) Models(project, choice string) string {
	if url := u.atGateway(project, ModelsLabel, choice, true); url != "" {
		return url + APIPath
	}
	if lowerASCII(project) == u.main {
		return u.base.String() + APIPath
	}
	return u.ModelsByPath(project) + APIPath
}

// ModelsByPath returns the URL of a project's models with the project's name in
// it, without /v1.
func (u URLs) ModelsByPath(project string) string {
	return u.base.String() + ModelsPath + lowerASCII(project)
}
