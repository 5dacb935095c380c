package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

var portNumberShape = anyOfShape("port", numberShape("", schema{"minimum": 1, "exclusiveMaximum": 65536}),
	patternShape("", `^\s*`+portExpression+`\s*$`))

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

var portPair = regexp.MustCompile(`^([0-9]+):([0-9]+)$`)

const portHint = "write the port on which your service listens, such as 8000"

// readServicePort reads 8000, "80:8000" or {local_port, container_port}.
func (r *reader) readServicePort(n *strictyaml.Node) Port {
	if n.Kind == strictyaml.Mapping {
		var p Port
		portMapping.read(r, n, &p)
		return p
	}
	local := 80
	p := Port{Local: &local}
	if m := portPair.FindStringSubmatch(strings.TrimSpace(n.Text)); n.Kind == strictyaml.String && m != nil {
		local, _ = r.readPortNumber(n, m[1])
		p.Container, _ = r.readPortNumber(n, m[2])
		return p
	}
	p.Container, _ = r.readPortNumber(n, n.Text)
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
