// Package docker runs replicas as containers of a Docker engine on this
// machine. All that is known of a container is on its labels, so that the
// next server finds it again.
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

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Options are what a Docker engine needs.
type Options struct {
	Host         string // such as unix:///var/run/docker.sock; empty: as the docker command finds it
	Installation dstack.Installation
	Code         engine.CodeOpener // nil: no order has code
	Log          *slog.Logger
	Publish      bool // reach replicas by published ports even where their own addresses would do
}

// Engine runs attempts as containers.
type Engine struct {
	opts            Options
	docker          *client.Client
	about           About
	usesContainerIP bool // containers are reached at their own addresses
	ctx             context.Context
	cancel          context.CancelFunc
	work            sync.WaitGroup

	mu           sync.Mutex
	startups     map[dstack.AttemptID]*startup
	endedReports map[dstack.AttemptID]dstack.Report // those of which no container tells
	inspections  map[string]inspection              // by container ID
	terminations map[dstack.AttemptID]*termination
	portOpen     map[dstack.AttemptID]bool // what a running one's port said last
}

var _ engine.Engine = (*Engine)(nil)

// About is what a Docker engine says of itself.
type About struct {
	Version    string // 28.1.1
	CPUs       int
	MemoryMiB  int64
	Root       string // where its images and containers lie
	isRootless bool
	isDesktop  bool // it runs in a machine of its own
}

// Ping asks the engine at a host (empty: as the docker command finds it) for
// itself. An error means that none answers.
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

// findSocket is where the engine listens for this user; empty: where the client
// looks by itself. Docker Desktop, Colima, OrbStack and rootless engines have
// sockets of their own, which the docker command knows by its context.
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

// New connects to a Docker engine. Containers in it, of an earlier server of
// the same installation too, are known at once.
func New(ctx context.Context, opts Options) (*Engine, error) {
	docker, err := newClient(opts.Host)
	if err != nil {
		return nil, err
	}
	what, err := fetchAbout(ctx, docker)
	if err != nil {
		_ = docker.Close()
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	local := runtime.GOOS == "linux" && strings.HasPrefix(docker.DaemonHost(), "unix://")
	e := &Engine{
		opts: opts, docker: docker, about: what,
		usesContainerIP: local && !what.isRootless && !what.isDesktop && !opts.Publish,
		startups:        map[dstack.AttemptID]*startup{},
		endedReports:    map[dstack.AttemptID]dstack.Report{},
		inspections:     map[string]inspection{},
		terminations:    map[dstack.AttemptID]*termination{},
		portOpen:        map[dstack.AttemptID]bool{},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

// About is what the Docker engine said of itself when it was opened.
func (e *Engine) About() About { return e.about }

// Close ends what the engine is doing and waits for it. Containers go on.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	return e.docker.Close()
}

// callTimeout is the longest that any call to the engine takes which is not
// expected to.
const callTimeout = 10 * time.Second
