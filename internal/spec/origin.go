package spec

import "dstack/internal/strictyaml"

// Origin is what gives a field its value.
type Origin string

// Every origin there is, the strongest first.
const (
	FromConfiguration Origin = "configuration"
	FromProfile       Origin = "profile"
	FromDefault       Origin = "default"
)

// Origins tells for every field of Params, by its name in a file, where Merge
// takes it from. The name retry stands for both of its spellings.
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

// setFields tells for every field whether it has a value here.
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
	}
}

// WrittenFields names the fields that a configuration file itself gives a value
// to; all others have their defaults.
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
