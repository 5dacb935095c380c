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
	maxPIDs     = 32 << 10
	maxLogSize  = "16m"
	maxLogFiles = "2"
)

// containerName is a container's: for people, and to make it once.
func containerName(spec dstack.AttemptSpec) string {
	id := string(spec.Attempt)
	return fmt.Sprintf("dstack-%s-%d-%d-%s", spec.Run, spec.ReplicaNum, spec.AttemptNum, id[:min(8, len(id))])
}

func (e *Engine) attemptLabels(spec dstack.AttemptSpec) map[string]string {
	return map[string]string{
		labelInstallation: string(e.opts.Installation),
		labelAttempt:      string(spec.Attempt),
		labelRun:          spec.Run,
		labelReplica:      string(spec.Replica),
		labelPort:         strconv.Itoa(spec.Port),
		labelProject:      spec.Project,
	}
}

// newContainerOptions is the container of an order. withInit puts Docker's small init before
// the command, which passes SIGTERM to its whole group and reaps orphans.
func (e *Engine) newContainerOptions(spec dstack.AttemptSpec, image string, withInit bool) (client.ContainerCreateOptions, error) {
	port, ok := network.PortFrom(uint16(spec.Port), network.TCP) // parsed ports are 1 to 65535
	if !ok {
		return client.ContainerCreateOptions{}, &dstack.Error{
			Kind: dstack.Invalid, Message: fmt.Sprintf("%d is no port", spec.Port), Hint: "choose one from 1 to 65535",
		}
	}
	config := &container.Config{
		User: "0", Env: buildEnv(spec, withInit), Entrypoint: buildEntrypoint(spec.Argv), Image: image,
		Labels: e.attemptLabels(spec), ExposedPorts: network.PortSet{port: {}},
	}
	if spec.WorkingDir != "" {
		dir, err := engine.ResolveWorkingDir(spec)
		if err != nil {
			return client.ContainerCreateOptions{}, err
		}
		config.WorkingDir = path.Join(engine.CodeFolder, dir)
	}
	pids := int64(maxPIDs)
	host := &container.HostConfig{
		LogConfig:   container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": maxLogSize, "max-file": maxLogFiles}},
		SecurityOpt: []string{"no-new-privileges"},
		ShmSize:     spec.ShmBytes,
		Init:        &withInit,
		Resources: container.Resources{
			Memory: spec.MemoryMiB << 20, NanoCPUs: int64(spec.CPUs) * 1e9, PidsLimit: &pids,
			DeviceRequests: newDeviceRequests(spec.GPUs),
		},
	}
	if !e.usesContainerIP {
		host.PortBindings = network.PortMap{port: {{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}}
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host, Name: containerName(spec)}, nil
}

// newDeviceRequests asks for the order's GPUs by ID, and no others.
func newDeviceRequests(gpus []dstack.GPU) []container.DeviceRequest {
	if len(gpus) == 0 {
		return nil
	}
	ids := make([]string, 0, len(gpus))
	for _, g := range gpus {
		ids = append(ids, g.ID)
	}
	return []container.DeviceRequest{{DeviceIDs: ids, Capabilities: [][]string{{"gpu"}}}}
}

func buildEnv(spec dstack.AttemptSpec, withInit bool) []string {
	env := map[string]string{"HOME": "/root"}
	if len(spec.GPUs) == 0 { // images may ask for all of them
		env["NVIDIA_VISIBLE_DEVICES"] = "void"
	}
	if withInit {
		env["TINI_KILL_PROCESS_GROUP"] = "1"
	}
	maps.Copy(env, spec.Env)
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// buildEntrypoint is what the container runs; empty: what the image says.
//
// The wire asks for interactive shells. bash stays one, so that it reads its
// start-up files, which is where conda lives; what it says about having no
// terminal, and what those files say, is kept from the output. sh reads none
// when it is given commands, and an interactive one would pass on to its last
// command that it ignores SIGTERM: it becomes a plain one.
//
// Both wait for what they have started when SIGTERM comes, which reaches that
// as well: the container ends with its first process, ready or not.
func buildEntrypoint(argv []string) []string {
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
