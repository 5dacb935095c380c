package route

import "slices"

// PublishedNames returns the names below the domains of the table's gateways that have something to serve, sorted:
// <run>.<domain> of each run, and gateway.<domain> for the models of the project.
func (x *Index) PublishedNames() []string {
	var names []string
	for domain, g := range x.gateways {
		names = append(names, ModelsLabel+"."+domain)
		for key, r := range x.runs {
			if key.project == g.Project && r.IsAt(g.ID) && !r.IsStopping {
				names = append(names, key.name+"."+domain)
			}
		}
	}
	slices.Sort(names)
	return names
}
