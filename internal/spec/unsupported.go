package spec

import "fmt"

// Unsupported tells what a service and its profile ask for that nothing acts
// on yet. It is asked when a run is planned, so that a file with such a field
// can still be read, shown and compared.
func Unsupported(s *Service, p Profile) Problems {
	var all Problems
	for _, u := range []struct {
		path, hint string
		asked      bool
	}{
		{"model", "format tgi is not served; where the server speaks the OpenAI API, write format: openai", s.Model != nil && s.Model.Format == "tgi"},
		{"replicas", replicasLater(s.Replicas), s.Replicas.Min != s.Replicas.Max || s.Replicas.Max == 0},
		{"scaling", "remove it, and write one number of replicas", s.Scaling != nil},
		{"home_dir", "remove it; the home folder is /root", s.HomeDir != "/root" && s.HomeDir != ""},
		{"setup", "move these lines to the beginning of `commands`", len(s.Setup) > 0},
		{"volumes", "remove them; files outside of a volume are gone with the replica", len(s.Volumes) > 0},
	} {
		if u.asked {
			all = append(all, unsupported(u.path, u.path, u.hint))
		}
	}
	all = append(all, unsupportedParams("", s.Params)...)
	return append(all, unsupportedParams("profile.", p.Params)...)
}

func replicasLater(r Replicas) string {
	if r.Max == 0 {
		return "write 1 or more; to have none, stop the run"
	}
	return fmt.Sprintf("write one number, such as replicas: %d", max(1, r.Min))
}

func unsupportedParams(at string, p Params) Problems {
	var all Problems
	for _, u := range []struct {
		path, hint string
		asked      bool
	}{
		{"max_duration", "remove it, or write off; a service runs until it is stopped", p.MaxDuration != nil && !p.MaxDuration.Off},
		{"pool_name", "remove it; there are no pools", p.PoolName != ""},
		{"instance_name", "remove it; use `instance_types` to choose a machine", p.InstanceName != ""},
		{"creation_policy", "remove it", p.CreationPolicy != ""},
		{"termination_policy", "remove it", p.TerminationPolicy != ""},
		{"termination_idle_time", "remove it", p.TerminationIdleTime != nil},
	} {
		if u.asked {
			all = append(all, unsupported(at+u.path, u.path, u.hint))
		}
	}
	return all
}

func unsupported(path, field, hint string) Problem {
	return Problem{Path: path, Message: "not supported yet: " + field, Hint: hint, Unsupported: true}
}
