package cloud

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	// defaultBusyListingAge is how old a listing may be while machines come and go.
	defaultBusyListingAge = 3 * time.Second
	// defaultCalmListingAge is how old a listing may be while all machines just run: their loss is noticed by their connections.
	defaultCalmListingAge = 75 * time.Second
)

const (
	// maxUnreachable is how long after its boot a machine may not be reached by SSH.
	maxUnreachable = 10 * time.Minute
	// maxUnprepared is how long a machine may take to be prepared: drivers and images of GPUs are large.
	maxUnprepared = 17 * time.Minute
)

// machineState is what this process knows of a machine beside what is recorded.
type machineState struct {
	launched   cloud.Machine // as its launch returned it
	launchedAt time.Time     // zero: this process did not launch it
	wasListed  bool          // since this process launched it, or was started
	deletedAt  time.Time     // when its deletion was requested first
	setup      setupState    // as its setup reported it
	takenBack  time.Time     // see dstack.Machine.TakenBackAt
	triedAt    time.Time     // when it was last to be reached again at once, while it boots
	seenAt     time.Time     // when it was used last, so that states of machines that are gone are removed
}

// state returns the state of a machine. b.mu is held.
func (b *Backend) state(id dstack.InstanceID) *machineState {
	s := b.states[id]
	if s == nil {
		s = &machineState{}
		b.states[id] = s
	}
	s.seenAt = time.Now()
	return s
}

func (b *Backend) findHost(id dstack.InstanceID) (dstack.RentedHost, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.hosts[id]
	return h, ok
}

// keepHost keeps what was recorded of a machine, until the next reading.
func (b *Backend) keepHost(h dstack.RentedHost) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hosts[h.Instance] = h
}

func (b *Backend) noteLaunched(m cloud.Machine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(m.Instance)
	s.launched, s.launchedAt, s.wasListed, s.deletedAt = m, time.Now(), false, time.Time{}
}

func (b *Backend) noteDeleted(id dstack.InstanceID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.state(id); s.deletedAt.IsZero() {
		s.deletedAt = now
	}
}

func (b *Backend) noteListed(id dstack.InstanceID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state(id).wasListed = true
}

// launchedMachine returns a machine that was launched so lately that listings need not have it yet.
func (b *Backend) launchedMachine(host dstack.RentedHost, now time.Time) (cloud.Machine, bool) {
	b.mu.Lock()
	s, ok := b.states[host.Instance]
	var known machineState
	if ok {
		known = *s
	}
	b.mu.Unlock()
	if known.wasListed {
		return cloud.Machine{}, false
	}
	if !known.launchedAt.IsZero() && now.Sub(known.launchedAt) < maxListLag {
		return known.launched, true
	}
	if host.Ref == "" || now.Sub(host.CreatedAt) >= maxListLag {
		return cloud.Machine{}, false
	}
	return cloud.Machine{ // launched before the server was restarted
		Instance: host.Instance, Ref: host.Ref, Region: host.Region, Zone: host.Zone, Type: host.Offer.Type, Spot: host.Offer.Spot,
		State: cloud.MachinePending, LaunchedAt: host.CreatedAt,
	}, true
}

// chooseMachine returns the machine of an instance among those that its cloud lists; nil: there is none. If there are several,
// it is the one that was recorded, then one that lives, then the oldest.
func chooseMachine(machines []cloud.Machine, host dstack.RentedHost) *cloud.Machine {
	var best *cloud.Machine
	rank := func(m *cloud.Machine) int {
		switch {
		case m.Ref == host.Ref && m.State != cloud.MachineEnded:
			return 0
		case m.State == cloud.MachinePending, m.State == cloud.MachineRunning:
			return 1
		case m.State == cloud.MachineEnding:
			return 2
		default:
			return 3
		}
	}
	for i := range machines {
		m := &machines[i]
		if m.Instance != host.Instance {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(rank(m), rank(best)), m.LaunchedAt.Compare(best.LaunchedAt), strings.Compare(m.Ref, best.Ref)) < 0 {
			best = m
		}
	}
	return best
}

// Machines returns every machine of the account that dstack rented, as its cloud and its connection report it.
func (b *Backend) Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	if err := b.ensureRead(ctx); err != nil {
		return nil, err
	}
	reached, err := b.remote.Machines(ctx)
	if err != nil {
		return nil, err
	}
	got, err := b.listings.getSoon(ctx, b.maxListingAge(reached))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	hosts := b.copyHosts()
	for _, m := range got.machines { // also those that no instance is known for
		if _, ok := hosts[m.Instance]; !ok && m.Instance != "" {
			hosts[m.Instance] = dstack.RentedHost{Instance: m.Instance}
		}
	}
	machines := make(map[dstack.InstanceID]dstack.Machine, len(hosts))
	for id, host := range hosts {
		m := chooseMachine(got.machines, host)
		if m != nil {
			b.noteListed(id)
		} else {
			if lately, ok := b.launchedMachine(host, now); ok && !b.wasDeletedBefore(id, got.begunAt) {
				m = &lately
			}
		}
		if m == nil {
			continue
		}
		if err := b.noteAddress(ctx, host, *m); err != nil {
			return nil, err
		}
		if described, exists := b.describe(*m, host, reached[id], now); exists {
			machines[id] = described
		}
	}
	return machines, nil
}

// wasDeletedBefore reports whether the deletion of a machine was requested before a time.
func (b *Backend) wasDeletedBefore(id dstack.InstanceID, t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.states[id]
	return s != nil && !s.deletedAt.IsZero() && s.deletedAt.Before(t)
}

// noteAddress records where a machine is reached, once that is known or has changed.
func (b *Backend) noteAddress(ctx context.Context, host dstack.RentedHost, m cloud.Machine) error {
	isLive := m.State == cloud.MachinePending || m.State == cloud.MachineRunning
	if host.Backend == "" || !isLive {
		return nil
	}
	return b.saveFound(ctx, host, m)
}

func (b *Backend) copyHosts() map[dstack.InstanceID]dstack.RentedHost {
	b.mu.Lock()
	defer b.mu.Unlock()
	hosts := make(map[dstack.InstanceID]dstack.RentedHost, len(b.hosts))
	for id, h := range b.hosts {
		hosts[id] = h
	}
	return hosts
}

// maxListingAge returns how old a listing may be now: the cloud is asked often only while a machine comes, goes or is silent.
func (b *Backend) maxListingAge(reached map[dstack.InstanceID]dstack.Machine) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, h := range b.hosts {
		s := b.states[id]
		isGoing := h.Status == dstack.InstanceDeleting || h.Status == dstack.InstanceAway || s != nil && (!s.deletedAt.IsZero() || !s.takenBack.IsZero())
		if h.ReadyAt.IsZero() || isGoing || !reached[id].SilentSince.IsZero() || h.Check.Status != dstack.HostReady {
			return b.busyListingAge
		}
	}
	return b.calmListingAge
}

// describe returns a machine as the backend reports it. exists is false for a machine that has ended and costs nothing.
func (b *Backend) describe(m cloud.Machine, host dstack.RentedHost, reached dstack.Machine, now time.Time) (d dstack.Machine, exists bool) {
	b.mu.Lock()
	var s machineState
	if known := b.states[host.Instance]; known != nil {
		s = *known
	}
	b.mu.Unlock()
	d = dstack.Machine{Ref: m.Ref, State: dstack.MachinePending}
	if m.Address != "" {
		d.Endpoint = dstack.Endpoint{Address: b.withPort(m.Address)}
	}
	isDeleted := !s.deletedAt.IsZero()
	switch {
	case m.State == cloud.MachineEnded && (isDeleted || m.Failure == nil):
		return d, false
	case isDeleted, m.State == cloud.MachineEnding && m.Failure == nil:
		d.State = dstack.MachineStopping
	case m.State == cloud.MachineEnded, m.State == cloud.MachineEnding:
		d.State, d.Failure = dstack.MachineFailed, m.Failure
	case host.ReadyAt.IsZero():
		d.Progress = s.setup.text
		if d.Failure = explainUnready(host, s, now); d.Failure != nil {
			d.State = dstack.MachineFailed
		}
	default:
		d.State = dstack.MachineRunning
		d.SilentSince, d.SilentReason = reached.SilentSince, reached.SilentReason
		d.TakenBackAt, d.IsDraining = s.takenBack, !s.takenBack.IsZero()
	}
	return d, true
}

// explainUnready returns why a machine that cannot run replicas yet never will; nil: it may.
func explainUnready(host dstack.RentedHost, s machineState, now time.Time) *dstack.MachineFailure {
	since := cmp.Or(host.CreatedAt, now)
	broken := func(format string, args ...any) *dstack.MachineFailure {
		return &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: fmt.Sprintf(format, args...)}
	}
	check, waited := host.Check, human.RoundDuration(now.Sub(since))
	isUnreached := check.Step == dstack.HostStepConnect || check.Step == dstack.HostStepHostKey || check.Step == dstack.HostStepLogin
	switch {
	case s.setup.failure != "":
		return broken("its setup failed: %s", s.setup.failure)
	case s.setup.isDone && check.Status == dstack.HostReady && !needsCheck(host, &s) && missingGPUs(host) > 0:
		return broken("%d of its %s not found: the image has no driver for them (os_images, or image)", missingGPUs(host),
			human.Count(len(host.Offer.Hardware.GPUs), "GPU"))
	case now.Sub(since) >= maxUnreachable && host.Login.Address != "" && check.Status != dstack.HostReady && isUnreached:
		return broken("SSH did not answer within %s: %s", waited, check.Message)
	case now.Sub(since) >= maxUnprepared && s.setup.text != "" && !isUnreached:
		return broken("it was not ready within %s: its setup still %s", waited, s.setup.text)
	case now.Sub(since) >= maxUnprepared && check.Message != "":
		return broken("it was not ready within %s: %s", waited, check.Message)
	case now.Sub(since) >= maxUnprepared:
		return broken("it was not ready within %s", waited)
	default:
		return nil
	}
}

// missingGPUs returns how many GPUs the machine lacks that its offer has.
func missingGPUs(host dstack.RentedHost) int {
	return len(host.Offer.Hardware.GPUs) - len(host.Check.Found.Hardware.GPUs)
}

// sshPort is where the SSH server of a machine listens.
const sshPort = "22"

// withPort returns the address of the SSH server of a machine. Stand-ins for clouds name a port.
func (b *Backend) withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(address, sshPort)
}
