package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"

	"dstack/internal/backend/ssh"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/frontend"
	"dstack/internal/loop"
	"dstack/internal/server/reconcile"
)

// runningProgram is the path of the file that this process runs, also after another file has replaced it.
const runningProgram = "/proc/self/exe"

// gatewayOptions returns what the gateway processes on the hosts of fleets get.
func (d *daemon) gatewayOptions() reconcile.GatewayOptions {
	file := d.program
	if _, err := os.Stat(runningProgram); err == nil {
		file = runningProgram
	}
	read := sync.OnceValues(func() (engine.Program, error) { return readProgram(file) })
	o := reconcile.GatewayOptions{
		Program: func() (engine.Program, string, error) {
			program, err := read()
			return program, currentVersion(), err
		},
		Token: func(ctx context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error) {
			return d.server.NewHostToken(ctx, g, host)
		},
	}
	o.Unreached = d.forwards.Failure
	if d.publicURL != "" {
		o.Servers = []string{d.publicURL}
	}
	o.Cluster = reconcile.ClusterGatewayOptions{Image: os.Getenv("DSTACK_GATEWAY_IMAGE"), PullSecret: os.Getenv("DSTACK_GATEWAY_IMAGE_PULL_SECRET"),
		Servers: o.Servers,
		Token: func(ctx context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error) {
			return d.server.NewClusterToken(ctx, g, host)
		}}
	if own := os.Getenv("DSTACK_GATEWAY_SERVER_URL"); own != "" {
		o.Cluster.Servers = strings.Split(own, ",")
	}
	return o
}

// readProgram returns the program in a file of this machine, for others.
func readProgram(name string) (engine.Program, error) {
	p := engine.Program{OS: runtime.GOOS, Arch: runtime.GOARCH, Open: func() (io.ReadCloser, error) { return os.Open(name) }}
	file, err := p.Open()
	if err != nil {
		return p, fmt.Errorf("read the own program: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	if p.Bytes, err = io.Copy(sum, file); err != nil {
		return p, fmt.Errorf("read the own program: %w", err)
	}
	p.Digest = hex.EncodeToString(sum.Sum(nil))
	return p, nil
}

// openForwards prepares a port of each host with a gateway process, at which that process reaches this server.
func (d *daemon) openForwards() {
	d.forwards = d.hosts.NewForwards(func(ctx context.Context) ([]ssh.Forward, error) {
		placements, err := d.store.ListPlacements(ctx)
		if err != nil {
			return nil, err
		}
		var wanted []ssh.Forward
		for _, p := range placements {
			if dstack.ClusterOf(p.Host) == "" {
				wanted = append(wanted, ssh.Forward{Host: p.Host, Port: p.Port})
			}
		}
		return wanted, nil
	})
}

// hostPortTasks keep the ports on hosts open, and serve what connects to them.
func (d *daemon) hostPortTasks() []loop.Task {
	return []loop.Task{d.forwards.Task(), {Name: "connections from hosts", Run: func(ctx context.Context) error {
		return d.serveHosts(ctx, d.forwards.Listener(ctx))
	}}}
}

// gatewayProcessPaths begin the paths that gateway processes call.
const gatewayProcessPaths = "/api/gateway_processes/"

// serveHosts serves connections from hosts. All users of a host can make them, so that they get nothing but what gateway
// processes call, over TLS, and no rights of this machine's loopback interface.
func (d *daemon) serveHosts(ctx context.Context, l net.Listener) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := frontend.NewServer(allowGatewayProcesses(http.HandlerFunc(d.serveAPI)), frontend.ServerOptions{Log: d.log, BaseContext: func(net.Listener) context.Context { return requests }})
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	config := d.serverTLS()
	config.NextProtos = []string{"http/1.1"}
	err := server.Serve(tls.NewListener(l, config))
	if ctx.Err() != nil && (errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed)) {
		return ctx.Err()
	}
	return err
}

// allowGatewayProcesses passes the calls of gateway processes on, and refuses all others.
func allowGatewayProcesses(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(path.Clean(r.URL.Path), gatewayProcessPaths) {
			http.Error(w, "only processes of gateways are served here", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
