package spec

import "strings"

// Unsupported returns a problem for each feature that a service and its profile
// use and that is not implemented yet. It is checked when a run is planned, not
// when a file is parsed, so that such files can still be read, shown and
// compared.
func Unsupported(s *Service, p Profile) Problems {
	all := s.Unsupported()
	given := s.Params.setFields()
	for _, problem := range p.Unsupported() {
		if given[problem.Path] {
			continue // the configuration overrides the profile
		}
		problem.Path = "profile." + problem.Path
		all = append(all, problem)
	}
	return all
}

// Unsupported returns the features of the service that are not implemented yet.
func (s *Service) Unsupported() Problems {
	return append(serviceMapping.findUnsupported(s), problemsOf(s.UnsupportedNotes)...)
}

// Unsupported returns the features of the profile that are not implemented yet.
func (p *Profile) Unsupported() Problems {
	return append(profileMapping.findUnsupported(p), problemsOf(p.UnsupportedNotes)...)
}

// Unsupported returns the features of the fleet that are not implemented yet.
func (f *Fleet) Unsupported() Problems { return problemsOf(f.UnsupportedNotes) }

// Unsupported returns the features of the volume that are not implemented yet: those of clouds without disks that
// can be volumes.
func (v *Volume) Unsupported() Problems {
	all := problemsOf(v.UnsupportedNotes)
	if !v.IsOnOwnMachine() && !v.IsInCluster() && !v.IsInCloud() {
		all = append(Problems{newUnsupported("backend", "volumes of the backend "+v.Backend,
			"write backend: aws or gcp for a disk of a cloud, backend: ssh for a host of a fleet, backend: local for the server's machine, "+
				"or backend: kubernetes for a cluster")}, all...)
	}
	return all
}

// Unsupported returns the features of the gateway that are not implemented yet: the machines and certificates of clouds.
func (g *Gateway) Unsupported() Problems {
	all := problemsOf(g.UnsupportedNotes)
	if g.IsOnOwnMachine() {
		return all
	}
	return append(Problems{newUnsupported("backend", "gateways of the backend "+g.Backend, "write backend: local for the server itself, "+
		"backend: ssh for a host of a fleet, or backend: external for any other machine of yours")}, all...)
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

// trimPath returns path relative to its parent to.
func trimPath(to, path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, to), ".")
}
