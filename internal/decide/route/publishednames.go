package route

import (
	"maps"
	"slices"
)

// PublishedNames returns the names below the domain of a gateway that have something to serve, sorted: <run>.<domain> of
// each run, and gateway.<domain> if the project has a model there.
func (t Table) PublishedNames(g Gateway) []string {
	return g.publishedNames(func(yield func(*Route) bool) {
		for i := range t.Routes {
			if !yield(&t.Routes[i]) {
				return
			}
		}
	})
}

// PublishedNames returns those of Table.PublishedNames for all gateways of the index.
func (x *Index) PublishedNames() []string {
	var names []string
	for _, g := range x.gateways {
		names = append(names, g.publishedNames(maps.Values(x.runs))...)
	}
	slices.Sort(names)
	return names
}

func (g Gateway) publishedNames(routes func(yield func(*Route) bool)) []string {
	domain, project := lowerASCII(g.Domain), lowerASCII(g.Project)
	names := map[string]bool{}
	for r := range routes {
		if r.Project != project || !r.IsAt(g.ID) {
			continue
		}
		names[lowerASCII(r.Name)+"."+domain] = true
		if r.Model != "" {
			names[ModelsLabel+"."+domain] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
