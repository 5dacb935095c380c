package job

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// UpdateStrategy is what a change of a service needs.
type UpdateStrategy string

// Every way there is.
const (
	InPlace UpdateStrategy = "in place" // nothing is started or stopped: replicas stay as they are
	Rolling UpdateStrategy = "rolling"  // replicas are replaced by new ones
)

// Code is the path of the one change that no configuration tells: other files
// were uploaded.
const Code = "code"

// ways says of every field how a change of it is made. Rolling is whatever an
// order or a requirement is made of, or will be: nothing acts on volumes, setup
// and home_dir yet. Probes are, too: a new replica must pass the new ones
// before an old one leaves.
var ways = map[string]UpdateStrategy{
	"model": InPlace, "https": InPlace, "auth": InPlace, "name": InPlace,
	"replicas": InPlace, "scaling": InPlace, "rate_limits": InPlace, "hold": InPlace, "drain_timeout": InPlace,
	"max_duration": InPlace, "retry": InPlace, "retry_policy": InPlace,
	"pool_name": InPlace, "instance_name": InPlace, "creation_policy": InPlace,
	"termination_policy": InPlace, "termination_idle_time": InPlace, "idle_duration": InPlace,

	"port": Rolling, "image": Rolling, "entrypoint": Rolling, "commands": Rolling, "env": Rolling,
	"working_dir": Rolling, "home_dir": Rolling, "registry_auth": Rolling, "python": Rolling, "nvcc": Rolling,
	"resources": Rolling, "volumes": Rolling, "setup": Rolling, "backends": Rolling, "regions": Rolling,
	"instance_types": Rolling, "spot_policy": Rolling, "max_price": Rolling,
	"probes": Rolling, "type": Rolling, Code: Rolling,
}

// StrategyOfChange says how a change is made, by its path as spec.Diff names it:
// commands.1. What is not known is rolling, which is always right.
func StrategyOfChange(path string) UpdateStrategy {
	field, _, _ := strings.Cut(path, ".")
	if how, known := ways[field]; known {
		return how
	}
	return Rolling
}

// Difference is one change between two specs of a run, and how it is made.
type Difference struct {
	spec.Change
	Strategy UpdateStrategy
}

// CompareSpecs tells all that differs for the replicas of a run, wherever it
// was written: in the configuration, its profile or beside both. The name is
// not among it: both are of one run. Those of the configuration come first,
// in the order of spec.Diff.
func CompareSpecs(from, to dstack.RunSpec) []Difference {
	var all []Difference
	for _, c := range spec.Diff(whole(from), whole(to)) {
		all = append(all, Difference{c, StrategyOfChange(c.Path)})
	}
	listed := slices.ContainsFunc(all, func(d Difference) bool { return d.Path == "working_dir" })
	if old, fresh := ResolveWorkingDir(from), ResolveWorkingDir(to); old != fresh && old != "" && fresh != "" && !listed {
		all = append(all, Difference{spec.Change{Path: "working_dir", From: old, To: fresh}, Rolling})
	}
	if old, fresh := codeOf(from), codeOf(to); old != fresh {
		d := Difference{spec.Change{Path: Code, From: brief(old), To: brief(fresh)}, StrategyOfChange(Code)}
		if len(to.Configuration.Commands) == 0 {
			d.Strategy = InPlace // an image without commands gets no code
		}
		all = append(all, d)
	}
	return all
}

// NeedsRollout tells whether one of the differences needs new containers. While it
// is false, replicas of one spec are as good as those of the other.
func NeedsRollout(from, to dstack.RunSpec) bool {
	return slices.ContainsFunc(CompareSpecs(from, to), isRolling)
}

func isRolling(d Difference) bool { return d.Strategy == Rolling }

// whole is a configuration with what its profile fills in.
func whole(s dstack.RunSpec) spec.Service {
	c := s.Configuration
	c.Params = spec.Merge(s.Configuration, s.Profile)
	c.Name = ""
	return c
}

func codeOf(s dstack.RunSpec) string {
	if s.RepoCodeHash == nil {
		return ""
	}
	return *s.RepoCodeHash
}

// brief is as much of a hash as people compare.
func brief(hash string) string { return hash[:min(len(hash), 8)] }
