package spec

import "strings"

// Unsupported tells what a service and its profile ask for that nothing acts
// on yet. It is asked when a run is planned, so that a file with such a field
// can still be read, shown and compared.
func Unsupported(s *Service, p Profile) Problems {
	all := s.Unsupported()
	given := s.Params.setFields()
	given["idle_duration"] = given["termination_idle_time"] || given["termination_policy"]
	for _, problem := range p.Unsupported() {
		if given[problem.Path] {
			continue // the configuration decides
		}
		problem.Path = "profile." + problem.Path
		all = append(all, problem)
	}
	return all
}

// Unsupported is the part of the configuration that nothing acts on yet.
func (s *Service) Unsupported() Problems {
	return append(serviceBlock.findUnsupported(s), problemsOf(s.UnsupportedNotes)...)
}

// Unsupported is the part of the profile that nothing acts on yet.
func (p *Profile) Unsupported() Problems {
	return append(profileBlock.findUnsupported(p), problemsOf(p.UnsupportedNotes)...)
}

// Unsupported is all of it: there are no fleets yet.
func (f *Fleet) Unsupported() Problems {
	return unsupportedType("fleet", "remove the file; machines come from the backends in the server's config.yml", f.UnsupportedNotes)
}

// Unsupported is all of it: there are no volumes yet.
func (v *Volume) Unsupported() Problems {
	return unsupportedType("volume", "remove the file; store data outside of the service for now", v.UnsupportedNotes)
}

// Unsupported is all of it: the server publishes services itself.
func (g *Gateway) Unsupported() Problems {
	return unsupportedType("gateway", "remove the file; the server itself publishes services, at its own address", g.UnsupportedNotes)
}

func unsupportedType(kind, hint string, notes []UnsupportedNote) Problems {
	return append(Problems{newUnsupported("type", "type "+kind, hint)}, problemsOf(notes)...)
}

func problemsOf(notes []UnsupportedNote) Problems {
	var all Problems
	for _, n := range notes {
		all = append(all, newUnsupported(n.Path, n.What, n.Hint))
	}
	return all
}

func newUnsupported(path, field, hint string) Problem {
	return Problem{Path: path, Message: "not supported yet: " + field, Hint: hint, Unsupported: true}
}

// trimPath is a path below another one.
func trimPath(to, path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, to), ".")
}
