package process

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// inheritedNames are the server's own variables that a replica gets, and all it gets:
// no token or setting of the server reaches it.
var inheritedNames = []string{"PATH", "HOME", "LANG", "TMPDIR", "USER"}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inheritEnv returns those of the server's variables that are passed on.
func inheritEnv(server []string) []string {
	env := []string{}
	path := false
	for _, v := range server {
		name, value, _ := strings.Cut(v, "=")
		if value != "" && slices.Contains(inheritedNames, name) {
			env = append(env, v)
			path = path || name == "PATH"
		}
	}
	if !path {
		env = append(env, "PATH="+defaultPath)
	}
	return env
}

// buildEnv is all that a replica's process sees. The order's variables win.
// On a machine with GPUs it sees those that it was given, and no others.
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
