package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

var portNumberShape = anyOf("port", numeric("", schema{"minimum": 1, "exclusiveMaximum": 65536}), pattern("", `^\s*`+portExpression+`\s*$`))

var portBlock = newBlock("port", "`port`", "A port, written as a mapping.", []field[Port]{
	{Key: nullable("local_port"), about: "Ignored for services.", shape: portNumberShape,
		read: func(r *reader, n *strictyaml.Node, p *Port) {
			if v, ok := r.portNumber(n, n.Text); ok {
				p.Local = &v
			}
		}},
	{Key: required("container_port", "container_port: 8000"), about: "Where the service listens.", shape: portNumberShape, examples: []string{"8000"},
		read: func(r *reader, n *strictyaml.Node, p *Port) { p.Container, _ = r.portNumber(n, n.Text) }},
})

var portPair = regexp.MustCompile(`^([0-9]+):([0-9]+)$`)

const portHint = "write the port on which your service listens: 8000"

// port reads 8000, "80:8000" or {local_port, container_port}.
func (r *reader) port(n *strictyaml.Node) Port {
	if n.Kind == strictyaml.Mapping {
		var p Port
		portBlock.into(r, n, &p)
		return p
	}
	local := 80
	p := Port{Local: &local}
	if m := portPair.FindStringSubmatch(strings.TrimSpace(n.Text)); n.Kind == strictyaml.String && m != nil {
		local, _ = r.portNumber(n, m[1])
		p.Container, _ = r.portNumber(n, m[2])
		return p
	}
	p.Container, _ = r.portNumber(n, n.Text)
	return p
}

// portNumber reads one port; text is n's own or a part of it.
func (r *reader) portNumber(n *strictyaml.Node, text string) (int, bool) {
	return r.aPort(n, text, portHint)
}

func (r *reader) aPort(n *strictyaml.Node, text, hint string) (int, bool) {
	v, ok := strictyaml.IntOf(n)
	if text != n.Text {
		var err error
		v, err = strconv.Atoi(text)
		ok = err == nil
	}
	if !ok {
		r.At(n, n.Shown()+" is not a port", hint)
		return 0, false
	}
	if v < 1 || v > 65535 {
		r.At(n, fmt.Sprintf("port %d is not between 1 and 65535", v), hint)
		return 0, false
	}
	return v, true
}
