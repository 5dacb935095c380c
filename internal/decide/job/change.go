package job

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// UpdateStrategy is how a change of a service is carried out.
type UpdateStrategy string

// The strategies.
const (
	InPlace UpdateStrategy = "in place" // no replica is started or stopped
	Rolling UpdateStrategy = "rolling"  // replicas are replaced by new ones
)

// Code is the path of a change of the uploaded files. It and the secrets are the
// only changes that are not in the configuration.
const Code = "code"

// strategies maps every field of a service to the strategy for its change. Fields
// that affect AttemptSpec or Requirements are Rolling, including fields that are
// not implemented yet (setup, home_dir). Probes are Rolling, too, so
// that a new replica passes the new probes before an old one is drained.
var strategies = map[string]UpdateStrategy{
	"groups": Rolling, "model": InPlace, "gateway": InPlace, "https": InPlace, "auth": InPlace, "name": InPlace,
	"replicas": InPlace, "scaling": InPlace, "rate_limits": InPlace, "hold": InPlace, "drain_timeout": InPlace,
	"max_duration": InPlace, "retry": InPlace, "retry_policy": InPlace,
	"pool_name": InPlace, "termination_policy": InPlace, "termination_idle_time": InPlace,
	"idle_duration": InPlace,

	"port": Rolling, "image": Rolling, "entrypoint": Rolling, "commands": Rolling, "env": Rolling,
	"working_dir": Rolling, "home_dir": Rolling, "registry_auth": Rolling, "python": Rolling, "nvcc": Rolling,
	"resources": Rolling, "volumes": Rolling, "setup": Rolling, "backends": Rolling, "regions": Rolling, "fleets": Rolling,
	"availability_zones": Rolling,
	"instance_types":     Rolling, "spot_policy": Rolling, "max_price": Rolling, "instance_name": Rolling,
	"creation_policy": Rolling, "probes": Rolling, "type": Rolling, Code: Rolling,
	"files": Rolling, "repos": Rolling,
}

// StrategyOfChange returns the strategy for a change by its path as in spec.Diff,
// such as commands.1, or groups.large.commands.1. A group that is added or removed, and
// unknown fields, are Rolling, which is always correct.
func StrategyOfChange(path string) UpdateStrategy {
	field, rest, _ := strings.Cut(path, ".")
	if _, own, isField := strings.Cut(rest, "."); field == "groups" && isField {
		field, _, _ = strings.Cut(own, ".")
	}
	if strategy, known := strategies[field]; known {
		return strategy
	}
	return Rolling
}

// Difference is one change between two specifications of a run, and the strategy
// for it.
type Difference struct {
	spec.Change
	Strategy UpdateStrategy
}

// CompareSpecs returns everything that differs between two specifications of one
// run: first the fields of configuration and profile in the order of spec.Diff,
// then the working directory, the code, the files and the values of secrets. Names are not compared.
func CompareSpecs(from, to dstack.RunSpec) []Difference {
	var all []Difference
	for _, c := range spec.Diff(mergeProfile(from), mergeProfile(to)) {
		all = append(all, Difference{c, StrategyOfChange(c.Path)})
	}
	listed := slices.ContainsFunc(all, func(d Difference) bool { return d.Path == "working_dir" })
	if oldDir, newDir := resolveAnyWorkingDir(from), resolveAnyWorkingDir(to); oldDir != newDir && oldDir != "" && newDir != "" && !listed {
		all = append(all, Difference{spec.Change{Path: "working_dir", From: oldDir, To: newDir}, Rolling})
	}
	if oldCode, newCode := describeCode(from), describeCode(to); oldCode != newCode {
		d := Difference{spec.Change{Path: Code, From: oldCode.String(), To: newCode.String()}, StrategyOfChange(Code)}
		if !NeedsCode(to) {
			d.Strategy = InPlace // without commands, no code is copied into the image
		}
		all = append(all, d)
	}
	return append(append(all, compareFiles(from, to)...), compareSecrets(from, to)...)
}

// compareFiles returns the files whose content changed. Changes of their paths are those of
// the configuration.
func compareFiles(from, to dstack.RunSpec) []Difference {
	var all []Difference
	for i := range min(len(from.FileArchives), len(to.FileArchives)) {
		older, newer := from.FileArchives[i], to.FileArchives[i]
		if older.Path == newer.Path && older.Hash != newer.Hash {
			all = append(all, Difference{spec.Change{Path: fmt.Sprintf("files.%d", i),
				From: newer.Path + " " + shortenHash(older.Hash), To: newer.Path + " " + shortenHash(newer.Hash)}, Rolling})
		}
	}
	return all
}

// resolveAnyWorkingDir is ResolveWorkingDir for the first group that has a directory.
func resolveAnyWorkingDir(s dstack.RunSpec) string {
	for _, name := range s.Configuration.GroupNames() {
		group, _ := s.ForGroup(name)
		if dir := ResolveWorkingDir(group); dir != "" {
			return dir
		}
	}
	return ""
}

// SecretsPrefix begins the paths of changes of the values of secrets.
const SecretsPrefix = "secrets."

// IsSecret reports whether the value of a secret changed, and not the configuration.
func (d Difference) IsSecret() bool { return strings.HasPrefix(d.Path, SecretsPrefix) }

// compareSecrets returns the secrets that both specifications refer to with other
// values. It does not show the values.
func compareSecrets(from, to dstack.RunSpec) []Difference {
	var all []Difference
	for _, name := range slices.Sorted(maps.Keys(to.Secrets)) {
		if version, ok := from.Secrets[name]; ok && version != to.Secrets[name] {
			all = append(all, Difference{spec.Change{Path: SecretsPrefix + name, From: "an earlier value", To: "a later value"},
				Rolling})
		}
	}
	return all
}

// NeedsRollout reports whether a change from one specification to the other
// replaces replicas. If not, replicas of either specification are identical.
func NeedsRollout(from, to dstack.RunSpec) bool {
	return slices.ContainsFunc(CompareSpecs(from, to), isRolling)
}

// UnchangedGroups returns the groups of a specification whose replicas are identical in
// another one. A change from one to the other leaves them alone.
func UnchangedGroups(from, to dstack.RunSpec) []string {
	var unchanged []string
	for _, name := range to.Configuration.GroupNames() {
		old, isOld := from.ForGroup(name)
		group, _ := to.ForGroup(name)
		if isOld && !NeedsRollout(old, group) {
			unchanged = append(unchanged, name)
		}
	}
	return unchanged
}

func isRolling(d Difference) bool { return d.Strategy == Rolling }

// mergeProfile returns the configuration with its profile applied and without
// its name.
func mergeProfile(s dstack.RunSpec) spec.Service {
	c := s.Configuration
	c.Params = spec.Merge(s.Configuration, s.Profile)
	c.Name = ""
	return c
}

// code identifies the code of a run.
type code struct{ branch, commit, upload string }

func describeCode(s dstack.RunSpec) code {
	var c code
	if s.RepoCodeHash != nil {
		c.upload = *s.RepoCodeHash
	}
	if checkout := FindCheckout(s); checkout != nil {
		c.branch, c.commit = checkout.Branch, checkout.Hash
	}
	return c
}

// String returns the code for users: main@0123abcd+4567ef01, where the last part is the
// upload.
func (c code) String() string {
	text := shortenHash(c.upload)
	if c.commit == "" {
		return text
	}
	if text != "" {
		text = "+" + text
	}
	return c.branch + "@" + shortenHash(c.commit) + text
}

// shortenHash returns the first 8 characters of a hash.
func shortenHash(hash string) string { return hash[:min(len(hash), 8)] }
