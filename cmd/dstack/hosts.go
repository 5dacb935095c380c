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
		Hosts: d.store, Installation: installation, MayStart: d.mayStart, Code: d.openCode, Files: d.openFile, Dialer: d.dialer, Log: d.log,
		Changed:     func() { d.reconciler.Wake() }, // it is created later, and before the tasks run
		OwnMachines: d.listServerMachines,
	})
	d.openForwards()
	d.backends.Share(ssh.Key, d.hosts)
	return d.hosts.ReadHosts(ctx)
}

// listServerMachines returns the machines of all servers that share the database, whose Docker Engines they use without SSH.
func (d *daemon) listServerMachines() []dstack.ServerMachine {
	machines := []dstack.ServerMachine{d.describeMachine()}
	for _, other := range d.membership.Servers() {
		machines = append(machines, other.Machine)
	}
	return machines
}

// describeMachine returns what identifies this server's machine.
func (d *daemon) describeMachine() dstack.ServerMachine {
	m := dstack.ServerMachine{BootID: local.BootID()}
	for _, opened := range slices.Concat(d.opened, d.retired) {
		if l, ok := opened.Backend.(*local.Local); ok && l.DockerID() != "" {
			m.Engines = append(m.Engines, l.DockerID())
		}
	}
	return m
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
