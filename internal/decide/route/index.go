package route

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
)

// Digest is the SHA-256 of a token.
type Digest = [sha256.Size]byte

// Index is a table made ready to be asked: no question walks through it. It
// never changes once made.
type Index struct {
	Version       uint64
	DrainSequence int64 // see Table
	runs          map[named]*Route
	models        map[named][]*Route
	projects      map[string][]Model
	tokens        map[Digest]*Grant
}

// named is a run or a model within its project.
type named struct{ project, name string }

// Model is one model of a project, whichever runs serve it.
type Model struct {
	Name  string
	Since int64 // unix seconds: when the first run that has it was submitted
}

// Grant is what a token opens.
type Grant struct {
	digest   Digest
	all      bool
	projects map[string]bool
}

// NewIndex builds the index of a table. Of two runs with one name in one
// project the later submitted is meant; runs with one model share it. A token
// whose digest is not one opens nothing.
func NewIndex(t Table) *Index {
	x := &Index{
		Version:       t.Version,
		DrainSequence: t.DrainSequence,
		runs:          make(map[named]*Route, len(t.Routes)),
		models:        map[named][]*Route{},
		projects:      map[string][]Model{},
		tokens:        make(map[Digest]*Grant, len(t.Tokens)),
	}
	routes := slices.Clone(t.Routes)
	slices.SortStableFunc(routes, func(a, b Route) int { return cmp.Compare(a.Since, b.Since) })
	for i := range routes {
		x.runs[named{routes[i].Project, routes[i].Name}] = &routes[i]
	}
	for i := range routes {
		x.addModel(&routes[i])
	}
	for text, projects := range t.Tokens {
		x.grant(text, projects)
	}
	return x
}

func (x *Index) addModel(r *Route) {
	if r.Model == "" || x.Run(r.Project, r.Name) != r {
		return
	}
	key := named{r.Project, r.Model}
	if len(x.models[key]) == 0 {
		x.projects[r.Project] = append(x.projects[r.Project], Model{Name: r.Model, Since: r.Since})
	}
	x.models[key] = append(x.models[key], r)
}

func (x *Index) grant(text string, projects []string) {
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

// Run returns the route of a run, or nil.
func (x *Index) Run(project, name string) *Route { return x.runs[named{project, name}] }

// Model returns the routes of all runs that have a model, the one submitted
// first at the front. The caller does not change them.
func (x *Index) Model(project, model string) []*Route { return x.models[named{project, model}] }

// Models returns the models of a project in the order in which they came.
// The caller does not change them.
func (x *Index) Models(project string) []Model { return x.projects[project] }

// Runs calls each for every route there is.
func (x *Index) Runs(each func(*Route)) {
	for _, r := range x.runs {
		each(r)
	}
}

// Grant returns what a token opens, or nil for a token that nobody has. Only
// digests are compared, in constant time: how long it takes says nothing
// about any token.
func (x *Index) Grant(token Digest) *Grant {
	g := x.tokens[token]
	if g == nil || subtle.ConstantTimeCompare(g.digest[:], token[:]) != 1 {
		return nil
	}
	return g
}

// Allows says whether the token may use the services of a project. A nil
// grant opens nothing.
func (g *Grant) Allows(project string) bool {
	return g != nil && (g.all || g.projects[project])
}
