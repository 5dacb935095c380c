package route

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"

	"dstack/internal/dstack"
)

// Digest is the SHA-256 of a token.
type Digest = [sha256.Size]byte

// Index is a table with maps for every lookup. It is immutable.
type Index struct {
	Version       uint64
	DrainSequence int64 // see Table
	TokensEnded   bool  // see Table
	runs          map[routeKey]*Route
	models        map[routeKey][]*Route
	projects      map[string][]Model
	existing      map[string]bool // all projects; nil: not known
	tokens        map[Digest]*Grant
	gateways      map[string]*Gateway // by domain
	gatewayIDs    map[dstack.GatewayID]*Gateway
	keys          map[Digest]*indexedKey
	keyIDs        map[string]bool
}

// routeKey names a run or a model of a project.
type routeKey struct{ project, name string }

// Model is one model of a project, which several runs may serve.
type Model struct {
	Name  string
	Since int64 // unix seconds: when the first run that has it was submitted
}

// Grant is the set of projects that a token gives access to.
type Grant struct {
	digest   Digest
	all      bool
	projects map[string]bool
}

// NewIndex builds the index of a table. If two runs of a project have the same
// name, the name refers to the run that was submitted later; runs with the same
// model share it. A malformed token digest is ignored.
func NewIndex(t Table) *Index {
	x := &Index{
		Version:       t.Version,
		DrainSequence: t.DrainSequence,
		TokensEnded:   t.TokensEnded,
		runs:          make(map[routeKey]*Route, len(t.Routes)),
		models:        map[routeKey][]*Route{},
		projects:      map[string][]Model{},
		tokens:        make(map[Digest]*Grant, len(t.Tokens)),
		gateways:      make(map[string]*Gateway, len(t.Gateways)),
		gatewayIDs:    make(map[dstack.GatewayID]*Gateway, len(t.Gateways)),
		keys:          make(map[Digest]*indexedKey, len(t.Keys)),
		keyIDs:        make(map[string]bool, len(t.Keys)),
	}
	routes := slices.Clone(t.Routes)
	slices.SortStableFunc(routes, func(a, b Route) int { return cmp.Compare(a.Since, b.Since) })
	for i := range routes {
		x.runs[routeKey{routes[i].Project, routes[i].Name}] = &routes[i]
	}
	for i := range routes {
		x.addModel(&routes[i])
	}
	if t.Projects != nil {
		x.existing = make(map[string]bool, len(t.Projects))
	}
	for _, project := range t.Projects {
		x.existing[project] = true
	}
	x.addGateways(t.Gateways)
	for text, projects := range t.Tokens {
		x.addGrant(text, projects)
	}
	for _, k := range t.Keys {
		x.addKey(k)
	}
	return x
}

func (x *Index) addModel(r *Route) {
	if r.Model == "" || x.runs[routeKey{r.Project, r.Name}] != r {
		return
	}
	key := routeKey{r.Project, r.Model}
	if len(x.models[key]) == 0 {
		x.projects[r.Project] = append(x.projects[r.Project], Model{Name: r.Model, Since: r.Since})
	}
	x.models[key] = append(x.models[key], r)
}

func (x *Index) addGrant(text string, projects []string) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != sha256.Size {
		return
	}
	g := &Grant{digest: Digest(raw), projects: make(map[string]bool, len(projects))}
	for _, p := range projects {
		if p == "*" {
			g.all = true
			continue
		}
		g.projects[lowerASCII(p)] = true
	}
	x.tokens[g.digest] = g
}

// Run returns the route of the run that a destination names, or nil.
func (x *Index) Run(d Destination) *Route {
	if r := x.runs[routeKey{d.Project, d.Run}]; r != nil && r.IsAt(d.Gateway) {
		return r
	}
	return nil
}

// Model returns the routes of all runs at a destination that have a model, in the
// order in which they were submitted. The caller must not modify them.
func (x *Index) Model(d Destination, model string) []*Route {
	routes := x.models[routeKey{d.Project, model}]
	isElsewhere := func(r *Route) bool { return !r.IsAt(d.Gateway) }
	if slices.ContainsFunc(routes, isElsewhere) {
		routes = slices.DeleteFunc(slices.Clone(routes), isElsewhere)
	}
	return routes
}

// Models returns the models at a destination, in the order in which their first
// runs were submitted. The caller must not modify them.
func (x *Index) Models(d Destination) []Model {
	models := x.projects[d.Project]
	isElsewhere := func(m Model) bool { return len(x.Model(d, m.Name)) == 0 }
	if slices.ContainsFunc(models, isElsewhere) {
		models = slices.DeleteFunc(slices.Clone(models), isElsewhere)
	}
	return models
}

// HasProject reports whether a project exists, also without any run. It is true if the
// table does not list the projects.
func (x *Index) HasProject(project string) bool { return x.existing == nil || x.existing[project] }

// Runs calls each for every route, in no order.
func (x *Index) Runs(each func(*Route)) {
	for _, r := range x.runs {
		each(r)
	}
}

// Grant returns the grant of a token, or nil for an unknown one. It compares
// digests alone, in constant time, so that the time it takes reveals nothing
// about any token.
func (x *Index) Grant(token Digest) *Grant {
	g := x.tokens[token]
	if g == nil || subtle.ConstantTimeCompare(g.digest[:], token[:]) != 1 {
		return nil
	}
	return g
}

// Allows reports whether the token may use the services of a project. A nil grant
// allows nothing.
func (g *Grant) Allows(project string) bool {
	return g != nil && (g.all || g.projects[project])
}
