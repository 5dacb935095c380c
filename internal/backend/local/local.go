// Package local is the backend for the machine that the server runs on. It needs no
// account: the machine is owned, and is never created or deleted.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/process"
	"dstack/internal/gpu"
	"dstack/internal/human"
)

// autoTimeout limits how long New waits for a Docker Engine before it uses plain
// processes instead, with engine: auto.
const autoTimeout = 2 * time.Second

// dockerTimeout limits how long New waits for a Docker Engine that the configuration
// demands. Tests change it.
var dockerTimeout = 10 * time.Second

// Options configures a Local.
type Options struct {
	Engine        string // auto, docker or process; empty: auto
	Dir           string // the folder of the processes' folders
	Installation  dstack.Installation
	HostID        string            // identifies this machine among the servers that share a database
	KeeperProgram string            // the dstack program, which runs the keepers of processes
	Hidden        []string          // folders that processes must not read, if the system can hide them
	MayStart      engine.StartCheck // asked before a container starts; nil: always
	Code          engine.CodeOpener
	Files         engine.FileOpener
	Retired       bool         // offers nothing: the engine only runs what it has
	Dialer        *dial.Dialer // opens the connections of port checks; nil: directly
	Log           *slog.Logger
}

// closableEngine is an engine that this package opened and has to close.
type closableEngine interface {
	engine.Engine
	Close() error
}

// Local is the backend for this machine with one engine.
type Local struct {
	Options
	engine       closableEngine
	capabilities dstack.EngineCapabilities
	engineTitle  string       // describes the engine to the user
	dockerAbout  docker.About // zero without Docker
	notice       string
	name         string
	gpus         gpuLister
}

var _ backend.Backend = (*Local)(nil)

// New opens the engine that the options name. With auto, that is Docker if a Docker
// Engine answers, otherwise plain processes. If Docker is demanded and does not
// answer, the error is of kind Unavailable. Close the result after use.
func New(ctx context.Context, o Options) (*Local, error) {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	l := &Local{Options: o, name: name}
	switch o.Engine {
	case engineDocker:
		return l, l.useDocker(ctx)
	case engineProcess:
		return l, l.useProcesses(ctx)
	case engineAuto, "":
		answer, cancel := context.WithTimeout(ctx, autoTimeout)
		defer cancel()
		if _, err := docker.Ping(answer, ""); err == nil {
			return l, l.useDocker(ctx)
		}
		l.notice = "Docker does not answer, so services run as plain processes of this machine, without isolation and `image`.\n" +
			" To use containers, install Docker and restart the server."
		return l, l.useProcesses(ctx)
	default:
		return nil, &dstack.Error{
			Kind: dstack.Invalid, Message: fmt.Sprintf("the local backend has no engine %q", o.Engine),
			Hint: "write engine: auto, docker or process in the server's config.yml",
		}
	}
}

func (l *Local) useDocker(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dockerTimeout)
	defer cancel()
	e, err := docker.New(ctx, docker.Options{
		Installation: l.Installation, MayStart: l.MayStart, Code: l.Code, Files: l.Files, Dialer: l.Dialer, Log: l.Log,
	})
	if err != nil {
		return err
	}
	l.engine, l.capabilities = e, docker.Capabilities()
	l.dockerAbout = e.About()
	l.engineTitle = "Docker " + l.dockerAbout.Version + " (containers)"
	return nil
}

func (l *Local) useProcesses(ctx context.Context) error {
	e, err := process.New(process.Options{
		Dir: filepath.Join(l.Dir, string(l.Installation)), VolumesDir: filepath.Join(l.Dir, "volumes", string(l.Installation)),
		KeeperProgram: l.KeeperProgram, Code: l.Code, Files: l.Files, Dialer: l.Dialer,
		Hidden: l.Hidden, GPUs: len(l.gpus.list(ctx).GPUs) > 0, Log: l.Log,
	})
	if err != nil {
		return err
	}
	l.engine, l.capabilities = e, process.Capabilities()
	if l.capabilities.ShowsServer = !e.HidesServer(); l.capabilities.ShowsServer && len(l.Hidden) > 0 {
		l.notice = strings.TrimPrefix(l.notice+"\n "+showsServerNotice, "\n ")
	}
	l.engineTitle = "plain processes"
	return nil
}

const showsServerNotice = "This machine cannot hide the server's folder from plain processes: they can read its database and keys."

// Close closes the engine. Replicas keep running.
func (l *Local) Close() error {
	if l.engine == nil {
		return nil
	}
	return l.engine.Close()
}

// Describe describes the machine to the user, as in "8 cpu, 32GB, Docker 28.1
// (containers), no GPU".
func (l *Local) Describe() string {
	h := l.detectHardware(context.Background())
	names := make([]string, len(h.GPUs))
	for i, g := range h.GPUs {
		names[i] = gpu.Title(g.Name, g.MemoryMiB)
	}
	gpus := cmp.Or(human.CountEach(names, "×"), "no GPU")
	return fmt.Sprintf("%d cpu, %s, %s, %s", h.CPUs, human.Gigabytes(h.MemoryMiB), l.engineTitle, gpus)
}

// DockerID returns the ID of the Docker Engine that this backend uses; empty: it uses none.
func (l *Local) DockerID() string { return l.dockerAbout.ID }

// BootID returns what identifies the last boot of this machine; empty: it is not known.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// Notice returns what the user should know about the engine that New chose, or "".
func (l *Local) Notice() string { return l.notice }

// Key returns the key of this backend in a backend.Set. Each engine has its own, so
// that one engine does not report the replicas of the other as lost.
func (l *Local) Key() string { return "local-" + l.capabilities.Name }

// instanceID returns the ID of the only instance: this machine with this engine.
func (l *Local) instanceID() dstack.InstanceID { return InstanceID(l.HostID, l.capabilities.Name) }

// InstanceID returns the ID of a machine with one of its Engines.
func InstanceID(hostID, engine string) dstack.InstanceID {
	return dstack.InstanceID("local-" + hostID + "-" + engine)
}

// Engines returns the engines that a machine may have had under earlier
// configurations.
func Engines() []string { return []string{engineDocker, engineProcess} }

// Offers returns this machine, with all of its hardware.
func (l *Local) Offers(ctx context.Context, _ dstack.Requirements) ([]dstack.Offer, error) {
	if l.Retired {
		return nil, nil
	}
	return []dstack.Offer{{
		Backend: "local", Key: l.Key(), Region: "local", Type: l.name, Hardware: l.detectHardware(ctx),
		OwnedInstance: l.instanceID(), Host: l.HostID, Engine: l.capabilities,
	}}, nil
}

// Create does nothing, because the machine exists.
func (l *Local) Create(context.Context, backend.CreateRequest) error { return nil }

// Delete does nothing, because the machine is owned.
func (l *Local) Delete(context.Context, dstack.InstanceID) error { return nil }

// Machines returns this machine, unless its engine is retired.
func (l *Local) Machines(context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	if l.Retired {
		return map[dstack.InstanceID]dstack.Machine{}, nil
	}
	return map[dstack.InstanceID]dstack.Machine{l.instanceID(): {Ref: l.name, State: dstack.MachineRunning}}, nil
}

// Engine returns the engine of this machine. The error for any other instance is of
// kind NotFound.
func (l *Local) Engine(_ context.Context, id dstack.InstanceID) (engine.Engine, error) {
	if id != l.instanceID() {
		return nil, &dstack.Error{
			Kind: dstack.NotFound, Message: fmt.Sprintf("the instance %s is not run by this machine's engine, %s", id, l.capabilities.Name),
			Hint: "set its engine in the server's config.yml again, or stop its runs", Cause: errors.ErrUnsupported,
		}
	}
	return l.engine, nil
}
