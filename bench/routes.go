package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/gatewaylink"
	control "dstack/internal/server"
	"dstack/internal/server/store"
)

const (
	routeServices = 1000
	routeMachines = 10
	routeChanges  = 1000
)

// manyRoutes is a control plane in this process with public services, each with one replica, and a gateway process that
// serves them.
type manyRoutes struct {
	control  *controlPlane
	machines *machines
	api      *http.Server
	replicas [2]namedReplica // between which the routes change
	client   *dstackServer   // the command line, which calls the control plane
	gateway  gatewayProcess
}

// namedReplica answers all requests with its name.
type namedReplica struct {
	name    string
	address string
	server  *http.Server
}

// measureRoutes measures what depends on the number of services of a gateway process.
func (b *benchmark) measureRoutes(rounds int) (err error) {
	m, err := b.newManyRoutes()
	if m != nil {
		defer func() { err = errors.Join(err, m.close()) }()
	}
	if err != nil {
		return err
	}
	changes, err := m.changeRoutes(routeChanges)
	if err != nil {
		return err
	}
	changes.report()
	// The process saves its state, and starts again when no server answers.
	if err := m.gateway.stop(); err != nil {
		return err
	}
	if err := m.api.Close(); err != nil {
		return err
	}
	return b.measureGatewayStart(m.gateway, rounds)
}

func (b *benchmark) newManyRoutes() (*manyRoutes, error) {
	dir := filepath.Join(b.dir, "routes")
	m := &manyRoutes{machines: newMachines(routeMachines, routeServices/routeMachines+5)}
	for i, name := range []string{"first", "second"} {
		replica, err := startNamedReplica(name)
		if err != nil {
			return m, err
		}
		m.replicas[i] = replica
	}
	for _, e := range m.machines.engines {
		e.address = m.replicas[0].address
	}
	version, err := runCommand(b.binary, "version")
	if err != nil {
		return m, err
	}
	links := control.LinkOptions{StateKey: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Machine: gatewaylink.MachineID(),
		DeriveKey: func(purpose string) ([]byte, error) {
			sum := sha256.Sum256([]byte(purpose))
			return sum[:], nil
		}}
	if m.control, err = newControlPlane(dir, m.machines, links, version[len("dstack "):]); err != nil {
		return m, err
	}
	for i := range routeServices {
		text := fmt.Sprintf("type: service\nname: web-%d\nport: 8000\nauth: false\ncommands: [serve]\nresources:\n  cpu: 1\n", i)
		if err := m.control.submit(fmt.Sprint("web-", i), text); err != nil {
			return m, err
		}
	}
	if err := m.control.waitUntilReady(routeServices, fleetLimit); err != nil {
		return m, err
	}
	if err := m.control.end(); err != nil && !errors.Is(err, context.Canceled) { // routes change at the word of the benchmark only
		return m, err
	}
	return m, m.startGateway(b.binary, dir)
}

func startNamedReplica(name string) (namedReplica, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return namedReplica{}, err
	}
	r := namedReplica{name: name, address: listener.Addr().String()}
	r.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(name)) // the gateway reports what fails
	})}
	go func() { _ = r.server.Serve(listener) }() // until it is closed
	return r, nil
}

// startGateway publishes the API of the control plane and starts a gateway process that follows it.
func (m *manyRoutes) startGateway(binary, dir string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.api = &http.Server{Handler: m.control.server.Handler()}
	go func() { _ = m.api.Serve(listener) }() // until it is closed
	m.client = &dstackServer{binary: binary, home: filepath.Join(dir, "home"), port: listener.Addr().(*net.TCPAddr).Port}
	if err := os.MkdirAll(m.client.home, 0o755); err != nil {
		return err
	}
	err = m.client.runCLI(m.client.home, "config", "--project", "main", "--url", "http://"+listener.Addr().String(), "--token", token, "-y")
	if err != nil {
		return err
	}
	all, err := m.client.startGateways(1)
	if err != nil {
		return err
	}
	m.gateway = all[0]
	return m.gateway.waitUntilServed(20 * time.Second)
}

func (m *manyRoutes) close() error {
	var errs []error
	if m.gateway.cmd != nil {
		_ = m.gateway.cmd.Process.Kill() // it may have ended already
		_ = m.gateway.cmd.Wait()
	}
	for _, r := range m.replicas {
		if r.server != nil {
			errs = append(errs, r.server.Close())
		}
	}
	if m.api != nil {
		errs = append(errs, m.api.Close())
	}
	if m.control != nil {
		if err := m.control.stop(); !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// move changes the address of a service's replica, as the report of its engine does. It returns when the change was
// committed, which is when others are told of it.
func (m *manyRoutes) move(service int, to namedReplica) (time.Time, error) {
	ctx, db, run := context.Background(), m.control.store, fmt.Sprint("web-", service)
	leases, err := db.Claim(ctx, store.Instances, "bench", simulatedHost, time.Now().Add(time.Hour), time.Millisecond, routeMachines)
	if err != nil {
		return time.Time{}, err
	}
	i := slices.IndexFunc(leases, func(l store.Lease) bool { return m.machines.engines[dstack.InstanceID(l.ID)].move(run, to.address) })
	if i < 0 {
		return time.Time{}, fmt.Errorf("none of %d machines has the run %s", len(leases), run)
	}
	id := dstack.InstanceID(leases[i].ID)
	seen, err := db.InstanceFacts(ctx, id)
	if err != nil {
		return time.Time{}, err
	}
	reports, err := m.machines.engines[id].ListReports(ctx)
	if err != nil {
		return time.Time{}, err
	}
	step := lifecycle.InstanceStep{To: seen.Instance.Status, Due: time.Now()}
	_, err = db.SaveInstanceStep(ctx, leases[i], seen, step, reports, nil, time.Now())
	committed := time.Now()
	m.control.changed.Notify()
	return committed, err
}
