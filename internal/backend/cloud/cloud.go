// Package cloud is the backend for the rented machines of one account of a cloud. A machine is rented for a replica,
// prepared by a launch description, and then reached as a host of a fleet is: by an SSH backend of its own.
package cloud

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/ssh"
	"dstack/internal/cloud"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/loop"
)

// Options configures a Backend. Key, Type, Provider, Store and Installation are required.
type Options struct {
	Key          string // in a backend.Set: aws, gcp, aws-research
	Type         string // of the cloud: aws, gcp
	Provider     cloud.Provider
	Regions      []string // in which machines are rented
	Prices       Prices   // nil: nothing is offered
	Disk         DiskLimits
	Store        Store
	Installation dstack.Installation
	MayStart     engine.StartCheck // asked before a container starts; nil: always
	Code         engine.CodeOpener
	Files        engine.FileOpener
	Dialer       *dial.Dialer                  // gets an entry for each machine, by its instance
	OwnMachines  func() []dstack.ServerMachine // see ssh.Options; nil: there are none
	Changed      func()                        // called after the state of a machine changed; nil: nothing
	Log          *slog.Logger                  // nil: no log
}

// Store is where rented machines are kept, so that all servers reach them after a restart. All methods may be called again
// with the same arguments.
type Store interface {
	// AddRentedHost records a machine that is to be requested. It returns the recorded one: another one if the instance has
	// one already, and isNew is false then.
	AddRentedHost(ctx context.Context, h dstack.RentedHost) (recorded dstack.RentedHost, isNew bool, err error)

	// ListRentedHosts returns the machines of a backend whose instances are not deleted, with their private keys.
	ListRentedHosts(ctx context.Context, backend string) ([]dstack.RentedHost, error)

	// SaveRentedHost records Ref, Region, Zone, Login.Address, ReadyAt and Check. It does nothing if the machine is not
	// recorded any more.
	SaveRentedHost(ctx context.Context, h dstack.RentedHost) error

	// ListRented returns the instances and volumes whose machines and disks may exist: all that are not deleted, of every backend.
	ListRented(ctx context.Context) (map[dstack.InstanceID]bool, map[dstack.VolumeID]bool, error)

	// SaveLeftovers records what a sweep of a backend found, and returns all of the backend with the time when each was seen
	// first. Those that are not among the found ones are forgotten.
	SaveLeftovers(ctx context.Context, backend string, found []dstack.Leftover, now time.Time) ([]dstack.Leftover, error)
}

// Remote reaches machines through SSH, by the IDs of their instances. *ssh.Backend implements it, and closes what it opens.
// The calls may be repeated; they fail with kind NotFound for a machine whose address is not known.
type Remote interface {
	// Engine and Machines are those of backend.Backend.
	Engine(ctx context.Context, id dstack.InstanceID) (engine.Engine, error)
	Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error)

	// Run runs a command of POSIX sh with the standard input, and returns what it prints. A command that fails is an error.
	Run(ctx context.Context, id dstack.InstanceID, command string, stdin io.Reader) (output string, err error)

	// Follow runs a command of POSIX sh and calls read with each line that it prints, until the command or ctx ends, or the
	// connection is lost.
	Follow(ctx context.Context, id dstack.InstanceID, command string, read func(line string)) error
}

// Backend is the backend for the rented machines of one account of a cloud.
type Backend struct {
	Options
	remote       Remote
	ssh          *ssh.Backend // the same; nil in tests without SSH
	listings     *listings
	access       accessCheck
	availability availability
	watches      *watches
	failures     loop.RepeatFilter

	creating keyedLocks
	disks    diskListing

	busyListingAge, calmListingAge time.Duration // tests shorten them
	watchInterval, attachPoll      time.Duration

	mu        sync.Mutex
	hosts     map[dstack.InstanceID]dstack.RentedHost // as read last
	isRead    bool                                    // whether they were read once
	states    map[dstack.InstanceID]*machineState
	leftovers []dstack.Leftover // of the latest sweep
}

var (
	_ backend.Backend = (*Backend)(nil)
	_ Remote          = (*ssh.Backend)(nil)
)

// New returns a backend. It asks the cloud nothing before its tasks run or it is used. Close it after the tasks have ended.
func New(o Options) *Backend {
	b := newBackend(o)
	b.ssh = ssh.New(ssh.Options{
		Hosts: rentedHosts{b}, Installation: o.Installation, MayStart: o.MayStart, Code: o.Code, Files: o.Files, Dialer: o.Dialer,
		Changed: b.Changed, Log: b.Log, OwnMachines: o.OwnMachines,
	})
	b.remote = b.ssh
	return b
}

// newBackend returns a backend that reaches no machines.
func newBackend(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	b := &Backend{Options: o, hosts: map[dstack.InstanceID]dstack.RentedHost{}, states: map[dstack.InstanceID]*machineState{},
		busyListingAge: defaultBusyListingAge, calmListingAge: defaultCalmListingAge, watchInterval: defaultWatchInterval,
		attachPoll: defaultAttachPoll}
	b.listings = newListings(o.Provider)
	b.watches = newWatches(b)
	return b
}

// ReadHosts makes the machines known, so that they can be dialed. It connects to none.
func (b *Backend) ReadHosts(ctx context.Context) error {
	if b.ssh == nil {
		return b.readHosts(ctx)
	}
	return b.ssh.ReadHosts(ctx)
}

// Close closes the connections to the machines, and the provider. Containers keep running.
func (b *Backend) Close() error {
	b.listings.close()
	var err error
	switch closer := b.Provider.(type) {
	case interface{ Close() error }:
		err = closer.Close()
	case interface{ Close() }:
		closer.Close()
	}
	if b.ssh != nil {
		err = errors.Join(b.ssh.Close(), err)
	}
	return err
}

// Tasks returns what has to run while the server runs, by one process for each server's folder.
func (b *Backend) Tasks() []loop.Task {
	tasks := []loop.Task{
		loop.Repeat("access to "+b.Key, nil, b.repeatAccessCheck),
		b.watches.task(),
		loop.Repeat("availability of "+b.Key, nil, b.readAvailability),
		loop.Repeat("sweep of "+b.Key, nil, b.sweep),
	}
	if b.ssh != nil {
		tasks = append(tasks, b.ssh.Tasks()...)
	}
	return tasks
}

// Engine returns the Docker engine of a machine. While the machine does not answer, the engine's calls fail.
func (b *Backend) Engine(ctx context.Context, id dstack.InstanceID) (engine.Engine, error) {
	eng, err := b.remote.Engine(ctx, id)
	if dstack.KindOf(err) != dstack.NotFound {
		return eng, err
	}
	machines, listErr := b.Machines(ctx)
	if _, exists := machines[id]; listErr != nil || exists {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the machine of the instance " + string(id) + " was not reached yet"}
	}
	return nil, &dstack.Error{Kind: dstack.NotFound, Message: "there is no machine for the instance " + string(id)}
}

// keyedLocks are locks by instance.
type keyedLocks struct {
	mu    sync.Mutex
	locks map[dstack.InstanceID]*keyedLock
}

type keyedLock struct {
	held    chan struct{}
	holders int
}

// lock waits for the lock of an instance. The caller calls unlock if err is nil.
func (k *keyedLocks) lock(ctx context.Context, id dstack.InstanceID) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[dstack.InstanceID]*keyedLock{}
	}
	l := k.locks[id]
	if l == nil {
		l = &keyedLock{held: make(chan struct{}, 1)}
		k.locks[id] = l
	}
	l.holders++
	k.mu.Unlock()
	release := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.holders--; l.holders == 0 {
			delete(k.locks, id)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; release() }, nil
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
}
