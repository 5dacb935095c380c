// Package ssh is the backend for the hosts of fleets: the user's own machines, which the
// server reaches over SSH, and on which nothing but Docker has to be installed. It keeps one
// connection to each host, and checks the hosts again and again.
package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/host"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/docker"
	"dstack/internal/loop"
	"dstack/internal/sshclient"
)

// Key is the key of the backend in a backend.Set.
const Key = "ssh"

// Options configures a Backend.
type Options struct {
	Hosts        Hosts
	Installation dstack.Installation
	MayStart     engine.StartCheck // asked before a container starts; nil: always
	Code         engine.CodeOpener
	Files        engine.FileOpener
	Dialer       *dial.Dialer // gets an entry for each host, by its ID
	Changed      func()       // called after the status of a host changed; nil: nothing
	Log          *slog.Logger // nil: no log

	// OwnMachines returns the machines of the servers that share the database, whose Docker Engines
	// another backend uses. nil: there are none.
	OwnMachines func() []dstack.ServerMachine
}

// Backend is the backend for all hosts of all fleets.
type Backend struct {
	Options
	limits      *sshclient.LoginLimiter
	wake        loop.Wake
	slots       chan struct{} // holds a value for each check under way
	loginScript string        // tests change it
	// pingInterval is enginePingInterval. Tests shorten it.
	pingInterval time.Duration

	work     sync.WaitGroup // checks, and the closing of clients
	checked  loop.Broadcast // notified after each check
	failures loop.RepeatFilter

	deciding sync.Mutex // held from the decision on a check until other checks see it

	mu       sync.Mutex
	isListed bool // whether the hosts were read once
	links    map[dstack.InstanceID]*link
	jumps    []*jump
}

var (
	_ backend.Backend   = (*Backend)(nil)
	_ backend.Unusables = (*Backend)(nil)
)

// maxChecks is how many hosts that answer are checked at the same time.
const maxChecks = 32

// New returns a backend. It knows no hosts until ReadHosts is called or its Tasks run. Close it
// after they have ended.
func New(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dialer == nil {
		o.Dialer = &dial.Dialer{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.OwnMachines == nil {
		o.OwnMachines = func() []dstack.ServerMachine { return nil }
	}
	return &Backend{
		Options: o, limits: sshclient.NewLoginLimiter(), wake: loop.NewWake(), loginScript: loginScript, pingInterval: enginePingInterval,
		slots: make(chan struct{}, maxChecks), links: map[dstack.InstanceID]*link{},
	}
}

// Wake makes the backend read the hosts at once, after a fleet was applied. A lost call only
// delays the work by one interval.
func (b *Backend) Wake() { b.wake.Signal() }

// Close closes the engines and connections of all hosts. Containers keep running.
func (b *Backend) Close() error {
	b.work.Wait()
	b.mu.Lock()
	links, jumps := b.links, b.jumps
	b.links, b.jumps = map[dstack.InstanceID]*link{}, nil
	b.mu.Unlock()
	var errs []error
	for _, l := range links {
		errs = append(errs, l.close())
	}
	for _, j := range jumps {
		errs = append(errs, j.client.Close())
	}
	return errors.Join(errs...)
}

// listHosts returns the hosts as this server knows them: as read last, with the checks that
// it made since.
func (b *Backend) listHosts(ctx context.Context) ([]dstack.Host, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isListed { // the server has just started
		return b.Hosts.ListHosts(ctx)
	}
	hosts := make([]dstack.Host, 0, len(b.links))
	for _, l := range b.links {
		hosts = append(hosts, l.snapshot())
	}
	slices.SortFunc(hosts, compareHosts)
	return hosts, nil
}

// Offers returns the hosts of a project on which replicas can be started, in the order of the
// names of fleets and of hosts in them. Requirements without a project get those of all.
func (b *Backend) Offers(ctx context.Context, need dstack.Requirements) ([]dstack.Offer, error) {
	hosts, err := b.listHosts(ctx)
	if err != nil {
		return nil, err
	}
	var offers []dstack.Offer
	for _, h := range hosts {
		if (need.Project == "" || h.Project == need.Project) && b.explainUnusable(h) == "" {
			offers = append(offers, newOffer(h))
		}
	}
	return offers, nil
}

// ListUnusable returns the hosts of a project on which nothing can be placed now, and why.
func (b *Backend) ListUnusable(ctx context.Context, project dstack.ProjectID) ([]dstack.Rejection, error) {
	hosts, err := b.listHosts(ctx)
	if err != nil {
		return nil, err
	}
	var rejections []dstack.Rejection
	for _, h := range hosts {
		if why := b.explainUnusable(h); why != "" && h.Project == project {
			rejections = append(rejections, dstack.Rejection{
				Offer: newOffer(h), Constraint: dstack.ConstraintUsable, Reason: why, Help: h.Check.Hint,
			})
		}
	}
	return rejections, nil
}

// explainUnusable returns why nothing can be placed on a host; empty: something can. A ready
// host whose connection broke is not checked again yet.
func (b *Backend) explainUnusable(h dstack.Host) string {
	if why := host.ExplainUnusable(h); why != "" {
		return why
	}
	if l := b.findLink(h.ID); l != nil && !l.silentSince().IsZero() {
		return "it does not answer"
	}
	return ""
}

func newOffer(h dstack.Host) dstack.Offer {
	return dstack.Offer{
		Backend: "ssh", Key: Key, Region: "remote", Type: h.Name, Hardware: h.Check.Found.Hardware, OwnedInstance: h.ID,
		Fleet: h.FleetName, IsRemote: true, IsDraining: h.IsDraining || h.IsLeaving, Engine: docker.Capabilities(),
	}
}

func compareHosts(a, b dstack.Host) int {
	return cmp.Or(
		cmp.Compare(a.ProjectName, b.ProjectName), cmp.Compare(a.FleetName, b.FleetName), cmp.Compare(a.Num, b.Num), cmp.Compare(a.ID, b.ID),
	)
}

// Create does nothing, because hosts exist.
func (b *Backend) Create(context.Context, backend.CreateRequest) error { return nil }

// Delete does nothing, because hosts are owned.
func (b *Backend) Delete(context.Context, dstack.InstanceID) error { return nil }

// Machines returns all hosts, whether they answer or not.
func (b *Backend) Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	hosts, err := b.listHosts(ctx)
	if err != nil {
		return nil, err
	}
	machines := make(map[dstack.InstanceID]dstack.Machine, len(hosts))
	for _, h := range hosts {
		m := dstack.Machine{
			Ref: h.Name, State: dstack.MachineRunning, Hardware: h.Check.Found.Hardware, IsDraining: h.IsDraining || h.IsLeaving,
		}
		if l := b.findLink(h.ID); l != nil {
			m.SilentSince, m.SilentReason = l.silentSince(), l.silentReason()
		}
		machines[h.ID] = m
	}
	return machines, nil
}

func (b *Backend) findLink(id dstack.InstanceID) *link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.links[id]
}

// firstCheckWait is how long Engine waits for the first check of a host since the server
// started.
const firstCheckWait = 3 * time.Second

// Engine returns the Docker engine of a host. While a host does not answer, the engine's
// calls fail. The error is of kind Unavailable if the host has not answered since the server
// started, or may not be used.
func (b *Backend) Engine(ctx context.Context, id dstack.InstanceID) (engine.Engine, error) {
	deadline := time.NewTimer(firstCheckWait)
	defer deadline.Stop()
	for {
		changed := b.checked.Changed()
		l := b.findLink(id)
		if l == nil {
			break
		}
		eng, isFinal, err := l.usableEngine()
		if isFinal {
			return eng, err
		}
		select {
		case <-changed:
		case <-deadline.C:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, &dstack.Error{
		Kind: dstack.NotFound, Message: fmt.Sprintf("the host %s does not belong to a fleet any more", id),
		Hint: "apply its fleet again, or stop the runs on it",
	}
}

// Tasks returns what has to run while the server runs.
func (b *Backend) Tasks() []loop.Task {
	return []loop.Task{loop.Repeat("hosts", b.wake, b.visitHosts)}
}

// listInterval is how often the hosts are read: other servers may change them.
const listInterval = time.Second

// listTimeout limits one reading of the hosts.
const listTimeout = 10 * time.Second

// ReadHosts makes the hosts known, so that they can be dialed. It connects to none.
func (b *Backend) ReadHosts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	hosts, err := b.Hosts.ListHosts(ctx)
	if err == nil {
		b.updateLinks(ctx, hosts)
	}
	return err
}

// visitHosts reads the hosts, opens and closes connections, and begins the checks that are
// due. It waits for none of them.
func (b *Backend) visitHosts(ctx context.Context) (time.Duration, error) {
	if err := b.ReadHosts(ctx); err != nil {
		return 0, err
	}
	b.mu.Lock()
	links := make([]*link, 0, len(b.links))
	for _, l := range b.links {
		links = append(links, l)
	}
	b.mu.Unlock()
	for _, l := range links {
		if l.beginCheck(time.Now()) {
			b.work.Go(func() { b.runCheck(ctx, l) })
		} else if eng, ok := l.beginPing(time.Now()); ok {
			b.work.Go(func() { b.runPing(ctx, l, eng) })
		}
	}
	return listInterval, nil
}
