package route

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// ChooseGateway returns Route.Gateway of a run whose configuration has choice: see spec.Service.Gateway. A run whose gateway
// does not exist is at the server's own address alone.
func ChooseGateway(all []Gateway, project, choice string) dstack.GatewayID {
	switch choice {
	case "", spec.GatewayDefault:
		return ""
	case spec.GatewayNone:
		return NoGateway
	}
	owner, name, isQualified := strings.Cut(choice, "/")
	if !isQualified {
		owner, name = project, choice
	}
	for _, g := range all {
		if g.Name == name && g.Project == project && equalASCII(owner, project) {
			return g.ID
		}
	}
	return NoGateway
}

// FilterFor returns the part of a table that the processes of one gateway serve by: the routes of its project that are
// published there, the tokens that open its project, and the gateway itself. It is empty if the gateway is not in the table.
func (t Table) FilterFor(id dstack.GatewayID) Table {
	part := Table{Version: t.Version, DrainSequence: t.DrainSequence}
	at := slices.IndexFunc(t.Gateways, func(g Gateway) bool { return g.ID == id })
	if at < 0 {
		return part
	}
	project := t.Gateways[at].Project
	part.Gateways, part.Projects = []Gateway{t.Gateways[at]}, []string{project}
	for _, r := range t.Routes {
		if r.Project == project && (r.Gateway == "" || r.Gateway == id) {
			part.Routes = append(part.Routes, r)
		}
	}
	part.Tokens = map[string][]string{}
	for digest, projects := range t.Tokens {
		if slices.Contains(projects, project) || slices.Contains(projects, "*") {
			part.Tokens[digest] = []string{project}
		}
	}
	for _, key := range t.Keys {
		if key.Project == project {
			part.Keys = append(part.Keys, key)
		}
	}
	return part
}
