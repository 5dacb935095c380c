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

// Labels of the engine's containers and volumes.
const (
	labelInstallation = "dstack.installation"
	labelAttempt      = "dstack.attempt"
	labelRun          = "dstack.run"
	labelReplica      = "dstack.replica"
	labelPort         = "dstack.port"
	labelProject      = "dstack.project"
)

// Limits on every container.
const (
	maxPIDs     = 32 << 10
	maxLogSize  = "16m"
	maxLogFiles = "2"
)

// containerName returns the name of an attempt's container. The name is for people,
// and makes Docker refuse a second container of the attempt.
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

// newContainerOptions returns the options to create the container of an attempt. With
// withInit the container runs Docker's init program (tini), which passes SIGTERM to
// the command's process group and reaps orphans.
func (e *Engine) newContainerOptions(spec dstack.AttemptSpec, image string, withInit bool) (client.ContainerCreateOptions, error) {
	port, ok := network.PortFrom(uint16(spec.Port), network.TCP) // configurations allow ports from 1 to 65535
	if !ok {
		return client.ContainerCreateOptions{}, &dstack.Error{
			Kind: dstack.Invalid, Message: fmt.Sprintf("%d is not a port number", spec.Port),
			Hint: "choose a port from 1 to 65535",
		}
	}
	if err := engine.ValidateMounts(spec); err != nil {
		return client.ContainerCreateOptions{}, err
	}
	if err := engine.ValidateLaunch(spec); err != nil {
		return client.ContainerCreateOptions{}, err
	}
	config := &container.Config{
		User: "0", Env: buildEnv(spec, withInit), Entrypoint: engine.BuildEntrypoint(spec.Argv), Image: image,
		Labels: e.attemptLabels(spec), ExposedPorts: network.PortSet{port: {}},
	}
	if spec.WorkingDir != "" {
		dir, err := engine.ResolveContainerDir(spec)
		if err != nil {
			return client.ContainerCreateOptions{}, err
		}
		config.WorkingDir = dir
	}
	pids := int64(maxPIDs)
	host := &container.HostConfig{
		LogConfig: container.LogConfig{
			Type: "json-file", Config: map[string]string{"max-size": maxLogSize, "max-file": maxLogFiles},
		},
		SecurityOpt: []string{"no-new-privileges"},
		ShmSize:     spec.ShmBytes,
		Mounts:      newMounts(spec.Mounts),
		Init:        &withInit,
		Resources: container.Resources{
			Memory: spec.MemoryMiB << 20, NanoCPUs: int64(spec.CPUs) * 1e9, PidsLimit: &pids,
			DeviceRequests: newDeviceRequests(spec.GPUs), Devices: newDevices(spec.GPUs),
		},
	}
	if !e.usesContainerIP {
		host.PortBindings = network.PortMap{port: {{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}}
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host, Name: containerName(spec)}, nil
}

// makerAMD is the maker of GPUs whose ID is the name of their device in /dev/dri, such as renderD128.
const makerAMD = "amd"

// newDeviceRequests requests the given GPUs of NVIDIA by ID, and no others.
func newDeviceRequests(gpus []dstack.GPU) []container.DeviceRequest {
	var ids []string
	for _, g := range gpus {
		if g.Maker != makerAMD {
			ids = append(ids, g.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return []container.DeviceRequest{{DeviceIDs: ids, Capabilities: [][]string{{"gpu"}}}}
}

// newDevices returns the devices of the given GPUs of AMD, which need no runtime: the one that all of its GPUs share, and one
// for each.
func newDevices(gpus []dstack.GPU) []container.DeviceMapping {
	var devices []container.DeviceMapping
	add := func(path string) {
		devices = append(devices, container.DeviceMapping{PathOnHost: path, PathInContainer: path, CgroupPermissions: "rwm"})
	}
	for _, g := range gpus {
		if g.Maker != makerAMD {
			continue
		}
		if len(devices) == 0 {
			add("/dev/kfd")
		}
		add("/dev/dri/" + path.Base(g.ID))
	}
	return devices
}

func buildEnv(spec dstack.AttemptSpec, withInit bool) []string {
	env := map[string]string{"HOME": "/root"}
	if newDeviceRequests(spec.GPUs) == nil { // an image may set it to all
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
