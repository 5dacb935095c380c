package spec

import "slices"

// DefaultGroup is the name of the only group of a service without groups.
const DefaultGroup = "0"

// Group is some of the replicas of a service, which differ from the others in
// what they run or require, or in how many they are. What a group does not set
// is as the service has it. Versions of dstack after 0.18.10 have groups.
type Group struct {
	Name       string
	Replicas   Replicas
	Scaling    *Scaling
	Resources  Resources
	Commands   []string
	Image      Text
	Python     Text
	NVCC       *bool
	SpotPolicy Text
}

// GroupNames returns the names of the groups, in the order of the file. A service
// without groups has DefaultGroup.
func (s *Service) GroupNames() []string {
	if len(s.Groups) == 0 {
		return []string{DefaultGroup}
	}
	names := make([]string, len(s.Groups))
	for i, g := range s.Groups {
		names[i] = g.Name
	}
	return names
}

// ForGroup returns the service as the replicas of a group run it: a service
// without groups. ok is false if there is no such group.
func (s Service) ForGroup(name string) (_ Service, ok bool) {
	if len(s.Groups) == 0 {
		return s, name == DefaultGroup
	}
	i := slices.IndexFunc(s.Groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return s, false
	}
	return s.withGroup(s.Groups[i]), true
}

func (s Service) withGroup(g Group) Service {
	s.Groups = nil
	s.Replicas, s.Scaling, s.Resources, s.Commands = g.Replicas, g.Scaling, g.Resources, g.Commands
	overrideText(&s.Image, g.Image)
	overrideText(&s.Python, g.Python)
	overrideText(&s.SpotPolicy, g.SpotPolicy)
	if g.NVCC != nil {
		s.NVCC = g.NVCC
	}
	return s
}

// HasCommands reports whether any replica runs commands.
func (s *Service) HasCommands() bool {
	return len(s.Commands) > 0 || slices.ContainsFunc(s.Groups, func(g Group) bool { return len(g.Commands) > 0 })
}

// FindScaling returns the first rule by which a number of replicas follows the
// load: of the service, or of its groups; nil: all numbers are fixed.
func (s *Service) FindScaling() *Scaling {
	if s.Scaling != nil {
		return s.Scaling
	}
	for _, g := range s.Groups {
		if g.Scaling != nil {
			return g.Scaling
		}
	}
	return nil
}

// joinGroups returns a service with groups in the terms of 0.18.10, which has none:
// all replicas of all groups, with the rest of the first group. Clients of that
// version can show it.
func (s Service) joinGroups() Service {
	if len(s.Groups) == 0 {
		return s
	}
	joined := s.withGroup(s.Groups[0])
	joined.Replicas, joined.Scaling = s.Replicas, nil
	if s.Replicas.Min != s.Replicas.Max {
		joined.Scaling = s.FindScaling()
	}
	return joined
}

// sumReplicas returns the range of the number of all replicas.
func sumReplicas(groups []Group) (sum Replicas) {
	for _, g := range groups {
		sum.Min += g.Replicas.Min
		sum.Max += g.Replicas.Max
	}
	return sum
}
