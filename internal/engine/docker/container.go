package docker

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// The labels of our containers.
const (
	labelInstallation = "dstack.installation"
	labelAttempt      = "dstack.attempt"
	labelRun          = "dstack.run"
	labelReplica      = "dstack.replica"
	labelPort         = "dstack.port"
	labelProject      = "dstack.project"
)

// The bounds on a container where its order has none.
const (
	pidsLimit = 32 << 10
	logSize   = "16m"
	logFiles  = "2"
)

// name is a container's: for people, and to make it once.
func name(o dstack.AttemptSpec) string {
	id := string(o.Attempt)
	return fmt.Sprintf("dstack-%s-%d-%d-%s", o.Run, o.ReplicaNum, o.AttemptNum, id[:min(8, len(id))])
}

func (e *Engine) labels(o dstack.AttemptSpec) map[string]string {
	return map[string]string{
		labelInstallation: string(e.opts.Installation),
		labelAttempt:      string(o.Attempt),
		labelRun:          o.Run,
		labelReplica:      string(o.Replica),
		labelPort:         strconv.Itoa(o.Port),
		labelProject:      o.Project,
	}
}

// plan is the container of an order. withInit puts Docker's small init before
// the command, which passes SIGTERM to its whole group and reaps orphans.
func (e *Engine) plan(o dstack.AttemptSpec, image string, withInit bool) (client.ContainerCreateOptions, error) {
	port, ok := network.PortFrom(uint16(o.Port), network.TCP) // parsed ports are 1 to 65535
	if !ok {
		return client.ContainerCreateOptions{}, &dstack.Error{
			Kind: dstack.Invalid, Message: fmt.Sprintf("%d is no port", o.Port), Hint: "choose one from 1 to 65535",
		}
	}
	config := &container.Config{
		User: "0", Env: environment(o, withInit), Entrypoint: entrypoint(o.Argv), Image: image,
		Labels: e.labels(o), ExposedPorts: network.PortSet{port: {}},
	}
	if o.WorkingDir != "" {
		dir, err := engine.ResolveWorkingDir(o)
		if err != nil {
			return client.ContainerCreateOptions{}, err
		}
		config.WorkingDir = path.Join(engine.CodeFolder, dir)
	}
	pids := int64(pidsLimit)
	host := &container.HostConfig{
		LogConfig:   container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": logSize, "max-file": logFiles}},
		SecurityOpt: []string{"no-new-privileges"},
		ShmSize:     o.ShmBytes,
		Init:        &withInit,
		Resources: container.Resources{
			Memory: o.MemoryMiB << 20, NanoCPUs: int64(o.CPUs) * 1e9, PidsLimit: &pids,
			DeviceRequests: devices(o.GPUs),
		},
	}
	if !e.direct {
		host.PortBindings = network.PortMap{port: {{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}}
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host, Name: name(o)}, nil
}

// devices asks for the order's GPUs by ID, and no others.
func devices(gpus []dstack.GPU) []container.DeviceRequest {
	if len(gpus) == 0 {
		return nil
	}
	ids := make([]string, 0, len(gpus))
	for _, g := range gpus {
		ids = append(ids, g.ID)
	}
	return []container.DeviceRequest{{DeviceIDs: ids, Capabilities: [][]string{{"gpu"}}}}
}

func environment(o dstack.AttemptSpec, withInit bool) []string {
	env := map[string]string{"HOME": "/root"}
	if len(o.GPUs) == 0 { // images may ask for all of them
		env["NVIDIA_VISIBLE_DEVICES"] = "void"
	}
	if withInit {
		env["TINI_KILL_PROCESS_GROUP"] = "1"
	}
	maps.Copy(env, o.Env)
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// entrypoint is what the container runs; empty: what the image says.
//
// The wire asks for interactive shells. bash stays one, so that it reads its
// start-up files, which is where conda lives; what it says about having no
// terminal, and what those files say, is kept from the output. sh reads none
// when it is given commands, and an interactive one would pass on to its last
// command that it ignores SIGTERM: it becomes a plain one.
//
// Both wait for what they have started when SIGTERM comes, which reaches that
// as well: the container ends with its first process, ready or not.
func entrypoint(argv []string) []string {
	if len(argv) != 4 || argv[1] != "-i" || argv[2] != "-c" {
		return argv
	}
	const waitAtTheEnd = "trap 'trap - TERM; wait; exit 143' TERM\n"
	shell, script := argv[0], waitAtTheEnd+argv[3]
	switch shell {
	case "/bin/bash":
		return []string{
			shell, "-c", `exec 3>&1 4>&2 >/dev/null 2>&1; exec "$0" -i -c "$1"`, shell,
			"exec >&3 2>&4 3>&- 4>&-\n" + script,
		}
	case "/bin/sh":
		return []string{shell, "-c", script}
	default:
		return argv
	}
}
