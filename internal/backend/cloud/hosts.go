package cloud

import (
	"context"
	"fmt"
	"time"

	"dstack/internal/dstack"
)

// rentedHosts is the backend as the hosts that its SSH backend connects to and checks. See ssh.Hosts.
type rentedHosts struct{ b *Backend }

// recentlyAdded is how long a machine that was just recorded is kept although a reading does not have it: the reading may
// have begun before.
const recentlyAdded = 10 * time.Second

// readHosts reads the recorded machines.
func (b *Backend) readHosts(ctx context.Context) error {
	began := time.Now()
	read, err := b.Store.ListRentedHosts(ctx, b.Key)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	hosts := make(map[dstack.InstanceID]dstack.RentedHost, len(read))
	for _, h := range read {
		if before, ok := b.hosts[h.Instance]; ok && before.Check.CheckedAt.After(h.Check.CheckedAt) {
			h.Check = before.Check // it is not saved
		}
		hosts[h.Instance] = h
	}
	for id, h := range b.hosts {
		if _, ok := hosts[id]; !ok && began.Sub(h.CreatedAt) < recentlyAdded {
			hosts[id] = h
		}
	}
	b.hosts, b.isRead = hosts, true
	for id, s := range b.states {
		if _, ok := hosts[id]; !ok && began.Sub(s.seenAt) > maxListLag {
			delete(b.states, id)
		}
	}
	return nil
}

// ensureRead reads the recorded machines unless that was done.
func (b *Backend) ensureRead(ctx context.Context) error {
	b.mu.Lock()
	isRead := b.isRead
	b.mu.Unlock()
	if isRead {
		return nil
	}
	return b.readHosts(ctx)
}

// ListHosts returns the machines whose addresses are known and that are not being deleted.
func (r rentedHosts) ListHosts(ctx context.Context) ([]dstack.Host, error) {
	b := r.b
	if err := b.readHosts(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	hosts := make([]dstack.Host, 0, len(b.hosts))
	for id, h := range b.hosts {
		s := b.states[id]
		if h.Login.Address == "" || h.Login.PrivateKey == "" || s != nil && !s.deletedAt.IsZero() {
			continue
		}
		host := dstack.Host{ID: id, Name: h.Offer.Type + " " + h.Ref, FleetName: b.Key, Login: h.Login, CreatedAt: h.CreatedAt, AppliedAt: h.CreatedAt, Check: h.Check}
		if h.ReadyAt.IsZero() {
			host.AppliedAt = b.retryTime(h, now)
			if needsCheck(h, s) {
				host.Check.NextAt = now
			}
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// bootRetry is how soon a machine that boots is tried again after it was not reached. SSH servers answer before users and
// keys are there, which for other hosts is a mistake of the user and is not repeated soon.
const bootRetry = 3 * time.Second

// retryTime returns since when a machine is to be reached. A later time makes the SSH backend try again at once. b.mu is held.
func (b *Backend) retryTime(h dstack.RentedHost, now time.Time) time.Time {
	s, check := b.state(h.Instance), h.Check
	if s.triedAt.IsZero() {
		s.triedAt = h.CreatedAt
	}
	isUnreached := check.Step == dstack.HostStepConnect || check.Step == dstack.HostStepHostKey || check.Step == dstack.HostStepLogin ||
		check.Step == dstack.HostStepShell
	wasTried := check.Status != dstack.HostPending && check.Status != "" && check.AppliedAt.Equal(s.triedAt)
	mayDiffer := isUnreached || s.setup.isDone && check.CheckedAt.Before(s.setup.doneAt)
	if wasTried && check.Status != dstack.HostReady && mayDiffer && now.Sub(check.CheckedAt) >= bootRetry {
		s.triedAt = now
	}
	return s.triedAt
}

// PinHostKey returns the key that the machine was given. It is never asked for: the key is pinned from the start.
func (r rentedHosts) PinHostKey(_ context.Context, id dstack.InstanceID, _ bool, _ string) (string, error) {
	h, ok := r.b.findHost(id)
	if !ok {
		return "", &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the machine of instance %s is not there any more", id)}
	}
	return h.Login.HostKey, nil
}

// SaveHostCheck keeps a check, and records it unless nothing has changed while the machine boots.
func (r rentedHosts) SaveHostCheck(ctx context.Context, id dstack.InstanceID, check dstack.HostCheck) error {
	b := r.b
	b.mu.Lock()
	h, ok := b.hosts[id]
	before := h.Check
	h.Check = check
	if ok {
		b.hosts[id] = h
	}
	b.mu.Unlock()
	isSame := before.Status == check.Status && before.Step == check.Step && before.Message == check.Message
	if !ok || isSame && h.ReadyAt.IsZero() && check.Status != dstack.HostReady {
		return nil
	}
	if wasMarked, err := b.markReady(ctx, id); wasMarked || err != nil {
		return err
	}
	return b.Store.SaveRentedHost(ctx, h)
}

// markReady records that a machine can run replicas, once its setup has ended and a check succeeded after that. It reports
// whether it did.
func (b *Backend) markReady(ctx context.Context, id dstack.InstanceID) (bool, error) {
	b.mu.Lock()
	h, ok := b.hosts[id]
	s := b.states[id]
	isReady := ok && s != nil && h.ReadyAt.IsZero() && s.setup.isDone && h.Check.Status == dstack.HostReady && !needsCheck(h, s) &&
		missingGPUs(h) <= 0
	if isReady {
		h.ReadyAt = time.Now()
		b.hosts[id] = h
	}
	b.mu.Unlock()
	if !isReady {
		return false, nil
	}
	if err := b.Store.SaveRentedHost(ctx, h); err != nil {
		return false, err
	}
	b.Log.Info("a rented machine is ready", "backend", b.Key, "instance", id, "type", h.Offer.Type, "machine", h.Ref, "after",
		h.ReadyAt.Sub(h.CreatedAt).Round(time.Second))
	b.Changed()
	return true, nil
}

// needsCheck reports whether the GPUs of a machine were looked for before its setup had ended.
func needsCheck(h dstack.RentedHost, s *machineState) bool {
	return s != nil && s.setup.isDone && len(h.Offer.Hardware.GPUs) > 0 && h.Check.CheckedAt.Before(s.setup.doneAt)
}
