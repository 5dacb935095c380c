// Package docker runs replicas as containers of the Docker Engine on this machine.
// Labels on each container hold everything that the engine has to know about it, so
// that a restarted server finds it again.
package docker

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Options configures an Engine.
type Options struct {
	Host         string // such as unix:///var/run/docker.sock; empty: the same as the docker command's
	Installation dstack.Installation
	Code         engine.CodeOpener // nil: attempts have no code
	Files        engine.FileOpener // nil: attempts have no files
	Dialer       *dial.Dialer      // opens the connections of port checks; nil: directly
	Log          *slog.Logger      // nil: no log
	PublishPorts bool              // always publish ports, even if container addresses are reachable
}

// Engine runs attempts as containers.
type Engine struct {
	opts            Options
	docker          *client.Client
	about           About
	isLocal         bool // its containers may run as processes of this machine
	usesContainerIP bool // containers are reached at their own addresses, not at published ports
	ctx             context.Context
	cancel          context.CancelFunc
	work            sync.WaitGroup // startups and terminations

	mu           sync.Mutex
	startups     map[dstack.AttemptID]*startup
	endedReports map[dstack.AttemptID]dstack.Report // attempts that ended without a container
	inspections  map[string]inspection              // by container ID
	terminations map[dstack.AttemptID]*termination
	portOpen     map[dstack.AttemptID]bool // the last definite result of checkPort
	sockets      map[dstack.AttemptID]containerSockets
}

var _ engine.Engine = (*Engine)(nil)

// About is what the Docker Engine reports about itself.
type About struct {
	Version    string // such as 28.1.1
	CPUs       int
	MemoryMiB  int64
	Root       string // the folder of its images and containers
	isRootless bool
	isDesktop  bool // Docker Desktop: it runs in a virtual machine
}

// Ping returns what the Docker Engine at host reports about itself. An empty host is
// the same as the docker command's. An error means that no usable engine answers.
func Ping(ctx context.Context, host string) (About, error) {
	docker, err := newClient(host)
	if err != nil {
		return About{}, err
	}
	defer docker.Close()
	return fetchAbout(ctx, docker)
}

func newClient(host string) (*client.Client, error) {
	options := []client.Opt{client.FromEnv}
	if host == "" {
		host = findSocket(os.Getenv, pathExists)
	}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	docker, err := client.New(options...)
	if err != nil {
		return nil, newUnreachableError(err)
	}
	at, err := url.Parse(docker.DaemonHost())
	if err == nil && at.Scheme != "unix" && at.Scheme != "npipe" && !isLoopback(at.Hostname()) {
		_ = docker.Close()
		return nil, &dstack.Error{
			Kind:    dstack.Unsupported,
			Message: "the Docker engine at " + docker.DaemonHost() + " is on another machine",
			Hint:    "unset DOCKER_HOST, so that the engine of this machine is used",
		}
	}
	return docker, nil
}

// findSocket returns the address of this user's Docker socket; empty means the client's
// default. Docker Desktop, Colima, OrbStack and rootless engines have sockets of their
// own, which the docker command finds by its context and the client does not.
func findSocket(env func(string) string, exists func(string) bool) string {
	if env("DOCKER_HOST") != "" || exists("/var/run/docker.sock") {
		return ""
	}
	for _, socket := range [][2]string{
		{env("XDG_RUNTIME_DIR"), "docker.sock"},
		{env("HOME"), ".docker/run/docker.sock"},
		{env("HOME"), ".orbstack/run/docker.sock"},
		{env("HOME"), ".colima/default/docker.sock"},
	} {
		if path := filepath.Join(socket[0], socket[1]); socket[0] != "" && exists(path) {
			return "unix://" + path
		}
	}
	return ""
}

func pathExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func fetchAbout(ctx context.Context, docker *client.Client) (About, error) {
	got, err := docker.Info(ctx, client.InfoOptions{})
	if err != nil {
		return About{}, newUnreachableError(err)
	}
	i := got.Info
	if i.OSType != "linux" {
		return About{}, &dstack.Error{
			Kind:    dstack.Unsupported,
			Message: "the Docker engine runs " + i.OSType + " containers",
			Hint:    "switch it to Linux containers",
		}
	}
	return About{
		Version: i.ServerVersion, CPUs: i.NCPU, MemoryMiB: i.MemTotal >> 20, Root: i.DockerRootDir,
		isRootless: slices.Contains(i.SecurityOptions, "name=rootless"),
		isDesktop:  strings.Contains(i.OperatingSystem, "Docker Desktop"),
	}, nil
}

func newUnreachableError(err error) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: "the Docker engine does not answer",
		Hint:  "start Docker, and see that this user may use it (docker version), or choose engine: process in the server's config.yml",
		Cause: err,
	}
}

// New connects to the Docker Engine. ListReports returns the containers of an earlier
// server of the same installation, too.
func New(ctx context.Context, opts Options) (*Engine, error) {
	docker, err := newClient(opts.Host)
	if err != nil {
		return nil, err
	}
	info, err := fetchAbout(ctx, docker)
	if err != nil {
		_ = docker.Close()
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Dialer == nil {
		opts.Dialer = &dial.Dialer{}
	}
	local := runtime.GOOS == "linux" && strings.HasPrefix(docker.DaemonHost(), "unix://")
	e := &Engine{
		opts: opts, docker: docker, about: info, isLocal: local,
		usesContainerIP: local && !info.isRootless && !info.isDesktop && !opts.PublishPorts,
		startups:        map[dstack.AttemptID]*startup{},
		endedReports:    map[dstack.AttemptID]dstack.Report{},
		inspections:     map[string]inspection{},
		terminations:    map[dstack.AttemptID]*termination{},
		portOpen:        map[dstack.AttemptID]bool{},
		sockets:         map[dstack.AttemptID]containerSockets{},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.work.Go(e.endLeftoverCommands)
	return e, nil
}

// Capabilities returns what Docker engines can do.
func Capabilities() dstack.EngineCapabilities {
	return dstack.EngineCapabilities{Name: "docker", Containers: true, Mounts: true}
}

// About returns what the Docker Engine reported about itself to New.
func (e *Engine) About() About { return e.about }

// Close cancels startups and terminations, ends commands and waits for all of them.
// Containers keep running.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	return e.docker.Close()
}

// callTimeout limits a call to Docker that is expected to return at once.
const callTimeout = 10 * time.Second
