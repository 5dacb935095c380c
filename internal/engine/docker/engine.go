// Package docker runs replicas as containers of a Docker Engine, on this machine or on
// another one. Labels on each container hold everything that the engine has to know about
// it, so that a restarted server finds it again.
package docker

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
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
	Host         string  // such as unix:///var/run/docker.sock; empty: the same as the docker command's
	Remote       *Remote // the engine of another machine, in place of Host; nil: an engine of this machine
	Installation dstack.Installation
	MayStart     engine.StartCheck // nil: always
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
	streams         *client.Client // for calls that last; the same as docker, unless its connections are limited
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
	gateways     map[gatewayKey]*gatewayStartup // starts and removals under way, and failed starts
}

var _ engine.Engine = (*Engine)(nil)

// New connects to the Docker Engine. ListReports returns the containers of an earlier
// server of the same installation, too.
func New(ctx context.Context, opts Options) (*Engine, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Dialer == nil {
		opts.Dialer = &dial.Dialer{}
	}
	e := &Engine{
		opts:         opts,
		startups:     map[dstack.AttemptID]*startup{},
		endedReports: map[dstack.AttemptID]dstack.Report{},
		inspections:  map[string]inspection{},
		terminations: map[dstack.AttemptID]*termination{},
		portOpen:     map[dstack.AttemptID]bool{},
		sockets:      map[dstack.AttemptID]containerSockets{},
		gateways:     map[gatewayKey]*gatewayStartup{},
	}
	if err := e.connect(ctx); err != nil {
		e.closeClients()
		return nil, err
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.work.Go(func() {
		_ = e.recoverPanic(func() error {
			e.endLeftoverCommands()
			return nil
		})
	})
	return e, nil
}

// connect makes the clients, and asks the Docker Engine about itself.
func (e *Engine) connect(ctx context.Context) (err error) {
	if r := e.opts.Remote; r == nil {
		e.docker, err = newClient(e.opts.Host)
		e.streams = e.docker
	} else {
		if e.docker, err = newRemoteClient(*r, r.MaxConns, maxAnswer); err == nil {
			streams := *r
			if r.DialStreams != nil {
				streams.Dial = r.DialStreams
			}
			e.streams, err = newRemoteClient(streams, 0, 0)
		}
	}
	if err != nil {
		return err
	}
	if e.about, err = fetchAbout(ctx, e.docker, e.newUnreachableError); err != nil {
		return err
	}
	hasSocket := strings.HasPrefix(e.docker.DaemonHost(), "unix://")
	e.isLocal = e.opts.Remote == nil && runtime.GOOS == "linux" && hasSocket
	e.usesContainerIP = (e.isLocal || e.opts.Remote != nil) && !e.about.isRootless && !e.about.isDesktop && !e.opts.PublishPorts
	return nil
}

func (e *Engine) closeClients() {
	for _, c := range []*client.Client{e.docker, e.streams} {
		if c != nil {
			_ = c.Close() // only closes idle connections
		}
	}
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
	e.closeClients()
	return nil
}

// recoverPanic runs a function, and returns its panic as an error. A panic in the background would end the whole server, and
// the answers of another machine's engine may be anything.
func (e *Engine) recoverPanic(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.opts.Log.Error("work on a container panicked", "panic", p, "stack", string(debug.Stack()))
			err = &dstack.Error{Kind: dstack.Internal, Message: "dstack failed on an answer of Docker; its log has more about it"}
		}
	}()
	return do()
}

// callTimeout limits a call to Docker that is expected to return at once.
const callTimeout = 10 * time.Second
