package spec

import "dstack/internal/strictyaml"

// Origin is the source of a field's value.
type Origin string

// The origins, in order of precedence.
const (
	FromConfiguration Origin = "configuration"
	FromProfile       Origin = "profile"
	FromDefault       Origin = "default"
)

// Origins returns, for every field of Params by its YAML name, the source from
// which Merge takes the value. Both spellings of retry count as the field
// retry.
func Origins(s Service, p Profile) map[string]Origin {
	configured, profiled := s.Params.setFields(), p.Params.setFields()
	origins := make(map[string]Origin, len(configured))
	for field := range configured {
		switch {
		case configured[field]:
			origins[field] = FromConfiguration
		case profiled[field]:
			origins[field] = FromProfile
		default:
			origins[field] = FromDefault
		}
	}
	return origins
}

// setFields returns, for every field by its YAML name, whether it is set.
func (p Params) setFields() map[string]bool {
	return map[string]bool{
		"backends":              p.Backends != nil,
		"regions":               p.Regions != nil,
		"instance_types":        p.InstanceTypes != nil,
		"spot_policy":           p.SpotPolicy != "",
		"retry":                 p.Retry != nil || p.RetryPolicy != nil,
		"max_duration":          p.MaxDuration != nil,
		"max_price":             p.MaxPrice != nil,
		"pool_name":             p.PoolName != "",
		"instance_name":         p.InstanceName != "",
		"creation_policy":       p.CreationPolicy != "",
		"termination_policy":    p.TerminationPolicy != "",
		"termination_idle_time": p.TerminationIdleTime != nil,
		"fleets":                p.Fleets != nil,
		"availability_zones":    p.AvailabilityZones != nil,
	}
}

// WrittenFields returns the top-level fields that a configuration file sets.
func WrittenFields(text []byte) map[string]bool {
	written := map[string]bool{}
	root := strictyaml.Load(text, &strictyaml.Problems{})
	if root == nil {
		return written
	}
	for _, pair := range root.Pairs {
		written[pair.Key.Text] = !pair.Value.IsNull()
	}
	return written
}
