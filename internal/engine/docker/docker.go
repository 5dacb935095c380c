// Package docker runs replicas in containers of a Docker Engine.
package docker

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Options says which engine, and whose containers.
type Options struct {
	Host         string // unix:///var/run/docker.sock; empty: as DOCKER_HOST says
	Installation dstack.Installation
	Code         engine.Code
	Log          *slog.Logger
}

// Engine is one Docker Engine. It keeps its promise of engine.Engine by
// labels: what it made is found again after any restart.
type Engine struct {
	Options
	api     *client.Client
	version string
	direct  bool // containers are reached at their own addresses

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	starting map[dstack.AttemptID]*start
	stopping map[dstack.AttemptID]time.Time // when SIGKILL comes
	ended    map[string]dstack.Report       // by container: what does not change any more
	begun    map[string]time.Time           // by container
}

// Ping says whether an engine answers there, and which version it is.
func Ping(ctx context.Context, host string) (version string, err error) {
	api, err := connect(host)
	if err != nil {
		return "", err
	}
	defer api.Close()
	info, err := api.Info(ctx, client.InfoOptions{})
	return info.Info.ServerVersion, err
}

func connect(host string) (*client.Client, error) {
	if host != "" {
		return client.New(client.WithHost(host))
	}
	return client.New(client.FromEnv)
}

// New connects to an engine. Close it after use.
func New(ctx context.Context, o Options) (*Engine, error) {
	api, err := connect(o.Host)
	if err != nil {
		return nil, fmt.Errorf("cannot reach Docker: %w", err)
	}
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		_ = api.Close() // nothing was asked of it
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "Docker does not answer", Hint: "start it, or choose `engine: process` in the server's config.yml", Cause: err}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		Options: o, api: api, version: info.Info.ServerVersion,
		direct:   runtime.GOOS == "linux" && strings.HasPrefix(api.DaemonHost(), "unix://") && !rootless(info.Info.SecurityOptions),
		starting: map[dstack.AttemptID]*start{}, stopping: map[dstack.AttemptID]time.Time{},
		ended: map[string]dstack.Report{}, begun: map[string]time.Time{},
	}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return e, nil
}

// rootless engines, and those in a virtual machine, have networks of their own
// that this machine cannot reach.
func rootless(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.Contains(o, "name=rootless") })
}

// Version is the engine's own version.
func (e *Engine) Version() string { return e.version }

// Close stops what is under way (a pull, say; it goes on when Start is
// repeated) and waits for it. Containers run on.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	return e.api.Close()
}

// The labels by which containers are known again.
const (
	labelInstallation = "dstack.installation"
	labelAttempt      = "dstack.attempt"
	labelReplica      = "dstack.replica"
	labelRun          = "dstack.run"
	labelProject      = "dstack.project"
	labelPort         = "dstack.port"
)

// list returns our containers, of one attempt or of all.
func (e *Engine) list(ctx context.Context, id dstack.AttemptID) ([]container.Summary, error) {
	filters := client.Filters{}.Add("label", labelInstallation+"="+string(e.Installation))
	if id != "" {
		filters = filters.Add("label", labelAttempt+"="+string(id))
	}
	found, err := e.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "Docker does not answer", Hint: "see that the Docker Engine runs", Cause: err}
	}
	return found.Items, nil
}

// find returns the container of an attempt, or nil.
func (e *Engine) find(ctx context.Context, id dstack.AttemptID) (*container.Summary, error) {
	found, err := e.list(ctx, id)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}
