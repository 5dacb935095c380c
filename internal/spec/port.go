package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

var portNumberShape = anyOfShape("port", integerShape("", schema{"minimum": 1, "exclusiveMaximum": 65536}),
	patternShape("", `^\s*`+portExpression+`\s*$`))

var servicePortShape = anyOfShape(portShape.words+"; or `auto`", portShape, oneOfShape(autoPort))

var portMapping = newMapping("port", "`port`", "A port, written as a mapping.", []field[Port]{
	{Key: nullableKey("local_port"), description: "Has no effect for services.", shape: portNumberShape,
		read: func(r *reader, n *strictyaml.Node, p *Port) {
			if v, ok := r.readPortNumber(n, n.Text); ok {
				p.Local = &v
			}
		}},
	{Key: requiredKey("container_port", "container_port: 8000"),
		description: "The port on which the service listens.", shape: portNumberShape, examples: []string{"8000"},
		read: func(r *reader, n *strictyaml.Node, p *Port) { p.Container, _ = r.readPortNumber(n, n.Text) }},
})

var portPair = newPattern(`^([0-9]+):([0-9]+)$`)

const portHint = "write the port on which your service listens, such as 8000"

// autoPort is the text of a port that is chosen for each replica.
const autoPort = "auto"

// MarshalJSON writes the form of SourceJSON: unlike the wire form, it tells a
// chosen port from a fixed one.
func (p sourcePort) MarshalJSON() ([]byte, error) {
	if p.Auto {
		return marshalJSON(autoPort)
	}
	return marshalJSON(Port(p))
}

type sourcePort Port

// String returns a port as users write it.
func (p Port) String() string {
	if p.Auto {
		return autoPort
	}
	return strconv.Itoa(p.Container)
}

// CheckPortVariable returns a problem if the port of a service is chosen for it
// and its environment sets the variable that tells the port.
func CheckPortVariable(s Service) (message, hint string, ok bool) {
	isSet := slices.ContainsFunc(s.Env, func(v EnvVar) bool { return v.Name == PortVariable })
	if !s.Port.Auto || !isSet {
		return "", "", true
	}
	return "`port: auto` chooses the value of PORT, but `env` sets it",
		"remove PORT from `env`, or write the port instead of auto", false
}

// checkPortVariable adds the problem of CheckPortVariable at the variable.
func (r *reader) checkPortVariable(n *strictyaml.Node, s *Service) {
	message, hint, ok := CheckPortVariable(*s)
	if ok {
		return
	}
	at := n.Get("env")
	for _, item := range at.Items {
		if name, _, _ := strings.Cut(item.Text, "="); name == PortVariable {
			at = item
		}
	}
	for _, pair := range at.Pairs {
		if pair.Key.Text == PortVariable {
			at = pair.Key
		}
	}
	r.Add(at, message, hint)
}

// readServicePort reads 8000, "80:8000", auto or {local_port, container_port}.
func (r *reader) readServicePort(n *strictyaml.Node) Port {
	if n.Kind == strictyaml.Mapping {
		var p Port
		portMapping.read(r, n, &p)
		return p
	}
	local := 80
	p := Port{Local: &local}
	if n.Kind == strictyaml.String && n.Text == autoPort {
		p.Container, p.Auto = DefaultAutoPort, true
		return p
	}
	if m := portPair.FindStringSubmatch(strings.TrimSpace(n.Text)); n.Kind == strictyaml.String && m != nil {
		local, _ = r.readPortNumber(n, m[1])
		p.Container, _ = r.readPortNumber(n, m[2])
		return p
	}
	p.Container, _ = r.readPort(n, n.Text, portHint+", or auto")
	return p
}

// readPortNumber reads one port from text, which is the whole text of n or a
// part of it.
func (r *reader) readPortNumber(n *strictyaml.Node, text string) (int, bool) {
	return r.readPort(n, text, portHint)
}

func (r *reader) readPort(n *strictyaml.Node, text, hint string) (int, bool) {
	v, ok := strictyaml.ParseInt(n)
	if text != n.Text {
		var err error
		v, err = strconv.Atoi(text)
		ok = err == nil
	}
	if !ok {
		r.Add(n, n.Describe()+" is not a port", hint)
		return 0, false
	}
	if v < 1 || v > 65535 {
		r.Add(n, fmt.Sprintf("port %d is not between 1 and 65535", v), hint)
		return 0, false
	}
	return v, true
}
