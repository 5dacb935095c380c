package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/peers"
)

// joinServers makes this server one of those that share the database. On SQLite it is alone.
func (d *daemon) joinServers(ctx context.Context) error {
	if !d.store.IsShared() {
		return nil
	}
	name, _ := os.Hostname() // it is for people only
	self := dstack.Server{
		ID: dstack.ServerID(d.hostID), Process: uuid.NewString(), Name: name, Version: currentVersion(),
		Machine: d.describeMachine(), StartedAt: time.Now(),
	}
	var err error
	d.membership, err = peers.Join(ctx, peers.Options{Register: d.store, Self: self, Changed: d.noteChange, Log: d.log})
	return err
}

// checkOwnEngines fails if another server starts containers with the Docker Engine of this machine, too: each would stop those
// of the other.
func (d *daemon) checkOwnEngines(ctx context.Context) error {
	if !d.store.IsShared() {
		return nil
	}
	servers, err := d.store.ListServers(ctx)
	if err != nil {
		return err
	}
	for _, other := range servers {
		for _, engine := range d.describeMachine().Engines {
			if other.ID != dstack.ServerID(d.hostID) && !other.IsEnded && slices.Contains(other.Machine.Engines, engine) {
				return &dstack.Error{Kind: dstack.Conflict,
					Message: fmt.Sprintf("the Docker Engine of this machine is used by the server %s on %s, which shares the database", other.ID, other.Name),
					Hint:    "give this server no local backend: write `backends: []` for its projects in " + d.filePath("config.yml")}
			}
		}
	}
	return nil
}

// noteChange makes the passes and all waiting calls look again, after another server has changed something.
func (d *daemon) noteChange() {
	if d.reconciler != nil { // it is created after this server has joined the others
		d.reconciler.Wake()
		d.hosts.Wake()
	}
	d.changes.Notify()
}

// shareTasks returns the tasks of a server that shares its database.
func (d *daemon) shareTasks() []loop.Task {
	if d.membership == nil {
		return nil
	}
	return append(d.store.ShareTasks(dstack.ServerID(d.hostID), d.noteChange), d.membership.Task())
}

// leaveServers lets the other servers go on at once.
func (d *daemon) leaveServers() {
	if err := d.membership.Leave(context.Background()); err != nil {
		d.log.Warn("the other servers were not told that this one stops; they go on in a few seconds", "err", err)
	}
}

// permit is the Permit of the passes.
func (d *daemon) permit() (check func() error) { return d.membership.Permit() }

// mayStart is the engine.StartCheck of all engines that run containers.
func (d *daemon) mayStart(ctx context.Context, attempt dstack.AttemptID) error {
	return d.store.CheckStart(ctx, attempt, dstack.ServerID(d.hostID))
}
