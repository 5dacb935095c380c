package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"dstack/internal/backend"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/loop"
	control "dstack/internal/server"
	"dstack/internal/server/logs"
	"dstack/internal/server/reconcile"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// simulatedHost is the host ID of the installation that can reach the machines.
const simulatedHost = "bench"

// controlPlane is a complete control plane with a gateway in this process, constructed as in the server but with
// simulated machines.
type controlPlane struct {
	store   *store.Store
	passes  *reconcile.Reconciler
	server  *control.Server
	project dstack.ProjectID
	changed *loop.Broadcast
	end     func() error // of the passes and the gateway; a second call does nothing
	stop    func() error
}

// newControlPlane starts a control plane with a new database in dir. links is what gateway processes get.
func newControlPlane(dir string, m *machines, links control.LinkOptions, version string) (*controlPlane, error) {
	ctx := context.Background()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, "sqlite://"+filepath.Join(dir, "bench.db"), nil)
	if err != nil {
		return nil, err
	}
	p := &controlPlane{store: db}
	if _, err := control.Boot(ctx, control.BootOptions{Store: db, Dir: dir, Token: token}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	main, err := db.Project(ctx, control.DefaultProject)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	p.project = main.ID
	set, changed, quiet := backend.NewSet(), &loop.Broadcast{}, slog.New(slog.DiscardHandler)
	set.Add(control.DefaultProject, "simulated", m)
	output := logs.New(filepath.Join(dir, "projects"), 1<<20)
	p.passes = reconcile.New(reconcile.Options{
		Store: db, Backends: set, Logs: output, Broadcast: changed, Log: quiet,
		Owner: simulatedHost + "/1", Host: simulatedHost,
		Limits: lifecycle.Limits{StartTimeout: time.Hour, PlaceTimeout: time.Hour},
	})
	p.server = control.New(control.Options{
		Store: db, Logs: output, Backends: set, Wake: p.passes.Wake, Broadcast: changed, Dir: dir, Log: quiet,
		Links: links, Version: version,
	})
	p.changed = changed
	front := gateway.New(gateway.Options{
		Control: p.server, Name: simulatedHost, Log: quiet,
	})
	p.start(append(p.passes.Tasks(), front.Tasks()...))
	return p, nil
}

func (p *controlPlane) start(tasks []loop.Task) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, tasks...) }()
	p.end = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	p.stop = func() error { return errors.Join(p.end(), p.store.Close()) }
}

// submitService submits a service whose replicas need one CPU each.
func (p *controlPlane) submitService(name string, replicas int) error {
	return p.submit(name, fmt.Sprintf("type: service\nname: %s\nport: 8000\ncommands: [serve]\nreplicas: %d\nresources:\n  cpu: 1\n", name, replicas))
}

// submit submits a service.
func (p *controlPlane) submit(name, text string) error {
	service, err := spec.ParseService(name, []byte(text))
	if err != nil {
		return err
	}
	now := time.Now()
	err = p.store.SubmitRun(context.Background(), dstack.Run{
		ID: dstack.RunID(uuid.NewString()), ProjectID: p.project, Project: control.DefaultProject, User: control.AdminName, Name: name,
		Revision: 1, Status: dstack.RunSubmitted, SubmittedAt: now, Since: now,
		Spec: dstack.RunSpec{Configuration: *service, Profile: spec.Profile{Name: "default"}, WorkingDir: ".", RepoData: []byte(`{"repo_type":"virtual"}`)},
	})
	if err != nil {
		return err
	}
	p.passes.Wake()
	return nil
}

// waitUntilReady waits until the route table has the wanted number of ready replicas.
func (p *controlPlane) waitUntilReady(want int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for since, got := uint64(0), 0; ; {
		table, err := p.server.Table(ctx, since)
		if err != nil {
			return fmt.Errorf("%d of %d replicas are ready after %s: %w", got, want, limit, err)
		}
		got, since = 0, table.Version
		for _, r := range table.Routes {
			got += len(r.Ready)
		}
		if got >= want {
			return nil
		}
	}
}
