// Package local is the backend of the machine that the server runs on.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/process"
	"dstack/internal/human"
)

// autoTimeout is how long a Docker Engine may take to answer before plain
// processes are taken instead.
const autoTimeout = 2 * time.Second

// dockerTimeout is how long one may take that is wanted, so that one that hangs
// does not keep the server from saying so.
var dockerTimeout = 10 * time.Second

// Options says what to run replicas with.
type Options struct {
	Engine       string // auto, docker or process
	Dir          string // where plain processes have their folders
	Installation dstack.Installation
	HostID       string // this machine, among all servers of one database
	Self         string // our own binary, for keepers
	Code         engine.CodeOpener
	Dialer       *dial.Dialer // opens the connections of port checks; nil: directly
	Log          *slog.Logger
}

// closableEngine is an engine of this machine.
type closableEngine interface {
	engine.Engine
	Close() error
}

// Local is this machine. It is owned: always there, never made nor deleted.
type Local struct {
	Options
	engine       closableEngine
	capabilities dstack.EngineCapabilities
	engineTitle  string       // the engine, for people
	dockerAbout  docker.About // zero without one
	notice       string
	name         string
	gpus         gpuLister
}

var _ backend.Backend = (*Local)(nil)

// New picks the engine: the one that is asked for, or with auto Docker where
// one answers, else plain processes. Close it after use; replicas run on.
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
		l.notice = "Docker does not answer here, so services run as plain processes of this machine: nothing isolates them,\n" +
			" and `image` cannot be used. Install Docker and start the server again for containers."
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
	e, err := docker.New(ctx, docker.Options{Installation: l.Installation, Code: l.Code, Dialer: l.Dialer, Log: l.Log})
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
		Dir: filepath.Join(l.Dir, string(l.Installation)), Self: l.Self, Code: l.Code, Dialer: l.Dialer,
		GPUs: len(l.gpus.list(ctx)) > 0,
	})
	if err != nil {
		return err
	}
	l.engine, l.capabilities = e, process.Capabilities()
	l.engineTitle = "plain processes"
	return nil
}

// Close stops what the engine does for us; replicas run on.
func (l *Local) Close() error {
	if l.engine == nil {
		return nil
	}
	return l.engine.Close()
}

// Describe says what this machine is: 8 cpu, 32GB, Docker 28.1 (containers), no GPU.
func (l *Local) Describe() string {
	h := l.detectHardware(context.Background())
	gpus := "no GPU"
	if n := len(h.GPUs); n > 0 {
		gpus = fmt.Sprintf("%d×%s %s", n, h.GPUs[0].Name, human.Gigabytes(h.GPUs[0].MemoryMiB))
	}
	return fmt.Sprintf("%d cpu, %s, %s, %s", h.CPUs, human.Gigabytes(h.MemoryMiB), l.engineTitle, gpus)
}

// Notice is what its owner should know about the engine that was picked;
// empty when there is nothing.
func (l *Local) Notice() string { return l.notice }

// Key is this backend's in backend.Set. Another engine is another backend, so
// that what runs in one is never taken for lost by the other.
func (l *Local) Key() string { return "local-" + l.capabilities.Name }

// instanceID is the instance that this machine is with this engine.
func (l *Local) instanceID() dstack.InstanceID {
	return dstack.InstanceID("local-" + l.HostID + "-" + l.capabilities.Name)
}

// Offers returns this machine, with all of its hardware.
func (l *Local) Offers(ctx context.Context, _ dstack.Requirements) ([]dstack.Offer, error) {
	return []dstack.Offer{{
		Backend: "local", Key: l.Key(), Region: "local", Type: l.name, Hardware: l.detectHardware(ctx),
		OwnedInstance: l.instanceID(), Host: l.HostID, Engine: l.capabilities,
	}}, nil
}

// Create does nothing: the machine is there.
func (l *Local) Create(context.Context, backend.CreateRequest) error { return nil }

// Delete does nothing: the machine is not ours to delete.
func (l *Local) Delete(context.Context, dstack.InstanceID) error { return nil }

// Machines is always this one.
func (l *Local) Machines(context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	return map[dstack.InstanceID]dstack.Machine{l.instanceID(): {Ref: l.name, State: dstack.MachineRunning}}, nil
}

// Engine returns this machine's engine.
func (l *Local) Engine(_ context.Context, id dstack.InstanceID) (engine.Engine, error) {
	if id != l.instanceID() {
		return nil, &dstack.Error{
			Kind: dstack.NotFound, Message: fmt.Sprintf("the instance %s is not run by this machine's engine, %s", id, l.capabilities.Name),
			Hint: "choose the engine that it was made with in the server's config.yml, or stop its runs", Cause: errors.ErrUnsupported,
		}
	}
	return l.engine, nil
}
