package process

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// inheritedNames are the only variables of the server's environment that a replica gets.
// The others may be tokens and settings of the server.
var inheritedNames = []string{"PATH", "HOME", "LANG", "TMPDIR", "USER"}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inheritEnv returns the variables of the server's environment that a replica gets.
func inheritEnv(server []string) []string {
	env := []string{}
	hasPath := false
	for _, v := range server {
		name, value, _ := strings.Cut(v, "=")
		if value != "" && slices.Contains(inheritedNames, name) {
			env = append(env, v)
			hasPath = hasPath || name == "PATH"
		}
	}
	if !hasPath {
		env = append(env, "PATH="+defaultPath)
	}
	return env
}

// buildEnv returns the complete environment of a replica's process. The variables of the
// specification override inherited ones. If the machine has GPUs, the process sees only
// those that the specification lists.
func buildEnv(spec dstack.AttemptSpec, server []string, gpus bool) []string {
	all := map[string]string{}
	for _, v := range inheritEnv(server) {
		name, value, _ := strings.Cut(v, "=")
		all[name] = value
	}
	if gpus || len(spec.GPUs) > 0 {
		ids := make([]string, 0, len(spec.GPUs))
		for _, g := range spec.GPUs {
			ids = append(ids, g.ID)
		}
		all["CUDA_VISIBLE_DEVICES"] = strings.Join(ids, ",")
	}
	for name, value := range spec.Env {
		all[name] = value
	}
	env := make([]string, 0, len(all))
	for name, value := range all {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}
