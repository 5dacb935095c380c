package spec

import (
	"strings"

	"dstack/internal/strictyaml"
)

// Values of Service.Gateway that are not the name of a gateway.
const (
	GatewayDefault = "true"  // the project's default gateway, or the server itself if the project has no gateway
	GatewayNone    = "false" // none: the service is published by path, at the server's own address
)

var gatewayField = field[Service]{Key: nullableKey("gateway"),
	description: "The gateway of the project that publishes the service. If it is not set, all do, and the address is at the default gateway. " +
		"`true` requires that there is a default gateway, unless the project has none at all. With `false`, the service is only at the server's own address, by path: " +
		"`<server>/proxy/services/<project>/<run>/`.",
	shape:    anyOfShape("name, `true`, `false`, or {gateway.reference}", nonEmptyShape, mappingShape("gateway.reference")),
	examples: []string{"false", "my-gateway"},
	read:     func(r *reader, n *strictyaml.Node, s *Service) { s.Gateway = r.readGatewayChoice(n) }}

// gatewayReference names a gateway, which may belong to another project.
type gatewayReference struct{ project, name string }

var gatewayReferenceMapping = newMapping("gateway.reference", "`gateway`", "A gateway by its name. Short form: `project/name`.",
	[]field[gatewayReference]{
		{Key: requiredKey("name", "name: followed by the gateway's name"), description: "The name of the gateway.",
			shape: nonEmptyShape, examples: []string{"my-gateway"},
			read: func(r *reader, n *strictyaml.Node, g *gatewayReference) { g.name = r.readNonEmpty(n) }},
		{Key: nullableKey("project"), description: "The project of the gateway, if it is another one.", shape: nonEmptyShape,
			examples: []string{"main"},
			read:     func(r *reader, n *strictyaml.Node, g *gatewayReference) { g.project = r.readNonEmpty(n) }},
	})

// readGatewayChoice reads the name of a gateway, or whether there is one. Later versions read
// every spelling of true and false, quoted or not, as such.
func (r *reader) readGatewayChoice(n *strictyaml.Node) Text {
	if n.Kind == strictyaml.Mapping {
		var g gatewayReference
		gatewayReferenceMapping.read(r, n, &g)
		if g.project == "" {
			return Text(g.name)
		}
		return Text(g.project + "/" + g.name)
	}
	if n.IsScalar() && isBoolWord(n.Text) {
		if on, _ := r.ReadBool(n); on {
			return GatewayDefault
		}
		return GatewayNone
	}
	return Text(r.readNonEmpty(n))
}

// isBoolWord reports whether text is a spelling of true or false in YAML or Python.
func isBoolWord(text string) bool {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1", "t", "y", "false", "no", "off", "0", "f", "n":
		return true
	}
	return false
}

// gatewayJSON is the JSON form of Service.Gateway: a boolean, a name, or null.
type gatewayJSON Text

func (g gatewayJSON) MarshalJSON() ([]byte, error) {
	switch g {
	case GatewayDefault, GatewayNone:
		return []byte(g), nil
	}
	return Text(g).MarshalJSON()
}
