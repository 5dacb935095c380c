package docker

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"path"
	"sort"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

const (
	mostProcesses = 32 << 10
	logFileSize   = "16m" // the engine's own copy; ours is bounded by itself
	logFiles      = "2"
	shortID       = 8
)

// container is an order in Docker's words. init asks for an init process that
// passes signals on to the whole group: an interactive shell ignores SIGTERM.
func (e *Engine) container(o dstack.Order, init bool) (client.ContainerCreateOptions, error) {
	var none client.ContainerCreateOptions
	dir := ""
	if o.WorkingDir != "" {
		below, err := engine.WorkingDir(o)
		if err != nil {
			return none, err
		}
		dir = path.Join(engine.CodeFolder, below)
	}
	port, err := network.ParsePort(fmt.Sprintf("%d/tcp", o.Port))
	if err != nil {
		return none, err
	}
	processes := int64(mostProcesses)
	host := &container.HostConfig{
		Init: &init, ShmSize: o.ShmBytes,
		SecurityOpt: []string{"no-new-privileges"},
		LogConfig:   container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": logFileSize, "max-file": logFiles}},
		Resources: container.Resources{
			PidsLimit: &processes, NanoCPUs: int64(o.CPUs) * 1e9, Memory: o.MemoryMiB << 20, DeviceRequests: devices(o.GPUs),
		},
	}
	if !e.direct {
		host.PortBindings = network.PortMap{port: {{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}}
	}
	config := &container.Config{
		Image: tagged(o.Image), User: "root", Env: environment(o.Env, init), WorkingDir: dir,
		ExposedPorts: network.PortSet{port: {}},
		Labels: map[string]string{
			labelInstallation: string(e.Installation), labelAttempt: string(o.Attempt), labelRun: o.Run, labelProject: o.Project,
			labelReplica: string(o.Replica), labelPort: strconv.Itoa(o.Port),
		},
	}
	if len(o.Argv) > 0 {
		config.Entrypoint = quiet(o.Argv)
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host, Name: name(o)}, nil
}

// name tells people what a container is; no two attempts have the same.
func name(o dstack.Order) string {
	id := string(o.Attempt)
	return fmt.Sprintf("dstack-%s-%d-%d-%s", o.Run, o.ReplicaNum, o.AttemptNum, id[:min(shortID, len(id))])
}

func devices(gpus []dstack.GPU) []container.DeviceRequest {
	if len(gpus) == 0 {
		return nil
	}
	ids := make([]string, len(gpus))
	for i, g := range gpus {
		ids[i] = g.ID
	}
	return []container.DeviceRequest{{DeviceIDs: ids, Capabilities: [][]string{{"gpu"}}}}
}

// environment is the order's, with the home folder of the user that
// containers run as.
func environment(vars map[string]string, init bool) []string {
	env := []string{}
	for k, v := range vars {
		env = append(env, k+"="+v)
	}
	if _, ok := vars["HOME"]; !ok {
		env = append(env, "HOME=/root")
	}
	if init {
		env = append(env, "TINI_KILL_PROCESS_GROUP=1")
	}
	sort.Strings(env)
	return env
}

// quiet runs what the wire calls an interactive shell without what such a
// shell says about having no terminal. bash stays interactive, so that it reads
// its start-up files, which is where conda lives. sh reads none then, and would
// pass on to its last command that it ignores SIGTERM: it is a plain one.
func quiet(argv []string) []string {
	if len(argv) != 4 || argv[1] != "-i" || argv[2] != "-c" {
		return argv
	}
	shell, script := argv[0], argv[3]
	if shell != "/bin/bash" {
		return []string{shell, "-c", script}
	}
	return []string{shell, "-c", `exec 3>&1 4>&2 >/dev/null 2>&1; exec "$0" -i -c "$1"`, shell, "exec >&3 2>&4 3>&- 4>&-\n" + script}
}

// emptyTar is the code of an order that has none: the folder is made anyway.
func emptyTar() io.Reader {
	var b bytes.Buffer
	_ = tar.NewWriter(&b).Close() // a buffer takes everything
	return &b
}
