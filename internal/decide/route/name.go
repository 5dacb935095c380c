package route

import "strings"

// Where services and models are found by path, for clients that cannot
// resolve a name below the domain.
const (
	ServicesPath = "/proxy/services/"
	ModelsPath   = "/proxy/models/"
)

// modelsLabel is the name that stands for a project's models below the
// domain. No run may be called so.
const modelsLabel = "gateway"

// Destination is what a request asks for, as its address says it. Whether such a
// run exists is for the table to say.
type Destination struct {
	Project string // lower case
	Run     string // empty with Models, and where the address names nothing
	Models  bool   // the models of Project
	// Base is what the path begins with before the part that is meant for the
	// replica, as it was sent; empty when the host named the run.
	Base string
}

// IsEmpty says that the address is a gateway's, and names nothing.
func (m Destination) IsEmpty() bool { return m.Run == "" && !m.Models }

// Domain is where a gateway publishes.
type Domain struct {
	Name string // localhost; without dots around it
	Main string // the project whose runs stand directly below it
}

// ByHost reads a Host header: <run>.<domain> in the main project,
// <run>.<project>.<domain>, and "gateway" in the run's place for models. All
// that lies below the domain is the gateway's, names that mean nothing
// included, so that nobody can put the API behind a name of their choice.
func (d Domain) ByHost(host string) (Destination, bool) {
	host, ok := withoutPort(host)
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
	if run == modelsLabel {
		return Destination{Project: project, Models: true}, true
	}
	return Destination{Project: project, Run: run}, true
}

// ParsePath reads an escaped path: /proxy/services/<project>/<run>/… and
// /proxy/models/<project>/…. A path below these is the gateway's even when it
// names nothing.
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

// withoutPort cuts a port off. An IPv6 address or a port that is no number is
// no name.
func withoutPort(host string) (string, bool) {
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

// lowerASCII lowers A to Z alone. Unicode has letters whose lower case is
// ASCII, such as the Kelvin sign; they must not become a way to spell a name.
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
