package route

import (
	"strings"

	"dstack/internal/dstack"
)

// The paths of services and models, for clients that cannot resolve a name below
// the domain.
const (
	ServicesPath = "/proxy/services/"
	ModelsPath   = "/proxy/models/"
)

// ModelsLabel is the name of a project's models below the domain. No run may have
// it.
const ModelsLabel = "gateway"

// Destination is what the address of a request names. It need not exist.
type Destination struct {
	Project string // lower case
	Run     string // empty with Models, and if the address names nothing
	Models  bool   // the models of Project
	// Base is the prefix of the path that is not for the replica, as it was sent;
	// empty if the host names the run.
	Base string
	// Gateway is the gateway at whose domain the request is; empty: at an address of
	// the server itself.
	Gateway dstack.GatewayID
}

// IsEmpty reports that the address is a gateway's, but names nothing.
func (d Destination) IsEmpty() bool { return d.Run == "" && !d.Models }

// Domain is the domain below which a gateway publishes services.
type Domain struct {
	Name string // localhost; without dots around it
	Main string // the project whose runs are directly below it
}

// ByHost parses a Host header: <run>.<domain> in the main project,
// <run>.<project>.<domain>, and "gateway" instead of the run for models. Every
// name below the domain belongs to the gateway, even if there is no such run, so
// that the API is not reachable under a name that a user can choose.
func (d Domain) ByHost(host string) (Destination, bool) {
	host, ok := trimPort(host)
	if !ok {
		return Destination{}, false
	}
	host = strings.TrimSuffix(host, ".")
	dot := len(host) - len(d.Name) - 1
	if d.Name == "" || dot < 0 || host[dot] != '.' || !equalASCII(host[dot+1:], d.Name) {
		return Destination{}, false
	}
	run, project, two := strings.Cut(lowerASCII(host[:dot]), ".")
	if !two {
		project = lowerASCII(d.Main)
	}
	if run == "" || project == "" || strings.Contains(project, ".") {
		return Destination{}, true
	}
	if run == ModelsLabel {
		return Destination{Project: project, Models: true}, true
	}
	return Destination{Project: project, Run: run}, true
}

// ParsePath parses an escaped path: /proxy/services/<project>/<run>/… and
// /proxy/models/<project>/…. Such a path belongs to the gateway even if it names
// nothing.
func ParsePath(path string) (Destination, bool) {
	if rest, ok := strings.CutPrefix(path, ServicesPath); ok {
		project, rest, _ := strings.Cut(rest, "/")
		run, _, _ := strings.Cut(rest, "/")
		if project == "" || run == "" {
			return Destination{}, true
		}
		base := path[:len(ServicesPath)+len(project)+1+len(run)]
		return Destination{Project: lowerASCII(project), Run: run, Base: base}, true
	}
	if rest, ok := strings.CutPrefix(path, ModelsPath); ok {
		project, _, _ := strings.Cut(rest, "/")
		if project == "" {
			return Destination{}, true
		}
		base := path[:len(ModelsPath)+len(project)]
		return Destination{Project: lowerASCII(project), Models: true, Base: base}, true
	}
	return Destination{}, false
}

// trimPort removes a port. It fails for an IPv6 address and a port that is no
// number.
func trimPort(host string) (string, bool) {
	colon := strings.IndexByte(host, ':')
	if colon < 0 {
		return host, true
	}
	for _, c := range []byte(host[colon+1:]) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return host[:colon], true
}

// lowerASCII converts A to Z alone. The lower case of some other letters is ASCII,
// such as that of the Kelvin sign; they must not be another spelling of a name.
func lowerASCII(s string) string {
	for i := range len(s) {
		if isUpper(s[i]) {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lowerByte(b[i])
			}
			return string(b)
		}
	}
	return s
}

func equalASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

func lowerByte(c byte) byte {
	if isUpper(c) {
		return c + ('a' - 'A')
	}
	return c
}
