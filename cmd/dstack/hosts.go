package main

import (
	"context"
	"fmt"
	"slices"

	"dstack/internal/backend/local"
	"dstack/internal/backend/ssh"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// openHosts opens the backend for the hosts of fleets, which every project has. It connects to a host once it is used, or its
// tasks run.
func (d *daemon) openHosts(ctx context.Context) error {
	installation, err := d.store.Installation(ctx)
	if err != nil {
		return err
	}
	d.hosts = ssh.New(ssh.Options{
		Hosts: d.store, Installation: installation, Code: d.openCode, Files: d.openFile, Dialer: d.dialer, Log: d.log,
		Changed:    func() { d.reconciler.Wake() }, // it is created later, and before the tasks run
		OwnMachine: d.listOwnEngines,
	})
	d.backends.Share(ssh.Key, d.hosts)
	return d.hosts.ReadHosts(ctx)
}

// listOwnEngines returns the IDs of the Docker Engines of the server's own machine that replicas run on without SSH, and the
// ID of the machine's last boot.
func (d *daemon) listOwnEngines() (engines []string, bootID string) {
	for _, opened := range slices.Concat(d.opened, d.retired) {
		if l, ok := opened.Backend.(*local.Local); ok && l.DockerID() != "" {
			engines = append(engines, l.DockerID())
		}
	}
	return engines, local.BootID()
}

// describeHosts describes the hosts of all fleets in one line for the start message; empty: there are none.
func (d *daemon) describeHosts(ctx context.Context) string {
	hosts, err := d.store.ListHosts(ctx)
	if err != nil || len(hosts) == 0 {
		return ""
	}
	fleets, ready := map[dstack.FleetID]bool{}, 0
	for _, h := range hosts {
		fleets[h.Fleet] = true
		if h.Check.Status == dstack.HostReady {
			ready++
		}
	}
	return fmt.Sprintf("%s in %s, %d ready at the last check", human.Count(len(hosts), "host"), human.Count(len(fleets), "fleet"), ready)
}
