package cloud

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dstack/internal/backend"
	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// maxListLag is how long a machine may be absent from the listings of its cloud after it was launched.
const maxListLag = 3 * time.Minute

// launchTimeout limits one request for a machine. A request that takes longer may have succeeded.
const launchTimeout = 70 * time.Second

// Create requests the machine of an instance. The keys and the intent are recorded first. A repeated call looks for the machine
// before it asks for it again, with the same token.
func (b *Backend) Create(ctx context.Context, r backend.CreateRequest) error {
	unlock, err := b.creating.lock(ctx, r.Instance)
	if err != nil {
		return err
	}
	defer unlock()
	host, isNew, err := b.recordIntent(ctx, r)
	if err != nil {
		return err
	}
	if !isNew {
		if exists, err := b.findCreated(ctx, host); exists || err != nil {
			return err
		}
	}
	launch, err := b.describeLaunch(r, host)
	if err != nil {
		return err
	}
	launching, cancel := context.WithTimeout(ctx, launchTimeout)
	defer cancel()
	machine, err := b.Provider.Launch(launching, launch)
	if err != nil {
		return b.explainLaunch(ctx, host, err)
	}
	machine.Instance = r.Instance
	b.noteLaunched(machine)
	return b.saveFound(ctx, host, machine)
}

// recordIntent records the machine with new keys, unless it is recorded.
func (b *Backend) recordIntent(ctx context.Context, r backend.CreateRequest) (dstack.RentedHost, bool, error) {
	if host, ok := b.findHost(r.Instance); ok {
		return host, false, nil
	}
	keys, err := newMachineKeys()
	if err != nil {
		return dstack.RentedHost{}, false, err
	}
	host, isNew, err := b.Store.AddRentedHost(ctx, dstack.RentedHost{
		Instance: r.Instance, Backend: b.Key, Offer: r.Offer, Status: dstack.InstanceCreating, Region: r.Offer.Region, Zone: r.Offer.Zone,
		Login:      dstack.SSHLogin{User: loginUser, PrivateKey: keys.login, HostKey: keys.hostPublic},
		HostSecret: keys.host, CreatedAt: time.Now(),
	})
	if err != nil {
		return host, false, err
	}
	b.keepHost(host)
	return host, isNew, nil
}

// findCreated reports whether the machine of an instance was launched by an earlier call, in whatever state it is.
func (b *Backend) findCreated(ctx context.Context, host dstack.RentedHost) (bool, error) {
	got, err := b.listings.get(ctx, 0, time.Time{})
	if err != nil {
		return false, err
	}
	if m := chooseMachine(got.machines, host); m != nil {
		return true, b.saveFound(ctx, host, *m)
	}
	_, isLaunched := b.launchedMachine(host, time.Now())
	return isLaunched, nil
}

// explainLaunch returns the error of a failed launch. If the token belongs to another machine, that one is looked for: the
// answer to an earlier call was lost.
func (b *Backend) explainLaunch(ctx context.Context, host dstack.RentedHost, err error) error {
	if dstack.KindOf(err) != dstack.Conflict {
		return err
	}
	got, listErr := b.listings.get(ctx, 0, time.Now())
	if listErr != nil {
		return listErr
	}
	if m := chooseMachine(got.machines, host); m != nil && m.State != cloud.MachineEnded {
		return b.saveFound(ctx, host, *m)
	}
	return err
}

// saveFound records where a machine is.
func (b *Backend) saveFound(ctx context.Context, host dstack.RentedHost, m cloud.Machine) error {
	changed := host
	changed.Ref, changed.Region, changed.Zone = m.Ref, m.Region, m.Zone
	if m.Address != "" {
		changed.Login.Address = b.withPort(m.Address)
	}
	if changed.Ref == host.Ref && changed.Region == host.Region && changed.Zone == host.Zone && changed.Login.Address == host.Login.Address {
		return nil
	}
	if err := b.Store.SaveRentedHost(ctx, changed); err != nil {
		return err
	}
	b.keepHost(changed)
	return nil
}

// describeLaunch returns the launch of a machine. It is the same for the same instance: a cloud refuses a token that comes
// back with other parameters.
func (b *Backend) describeLaunch(r backend.CreateRequest, host dstack.RentedHost) (cloud.Launch, error) {
	script, err := b.newLaunchScript(r, host)
	if err != nil {
		return cloud.Launch{}, err
	}
	labels := make(map[string]string, len(r.Labels))
	for name, value := range r.Labels {
		labels[name] = value
	}
	return cloud.Launch{
		Instance: r.Instance, Token: cloud.NewToken(b.Installation, r.Instance, r.Offer), Offer: r.Offer, UserData: script,
		Name: machineName(r.Instance), Labels: labels, Group: r.Group,
	}, nil
}

// maxNameBytes is how long the name of a machine may be.
const maxNameBytes = 60

// machineName returns the name of a machine for the cloud's own tools.
func machineName(id dstack.InstanceID) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, string(id))
	name := "dstack-" + clean
	return strings.TrimRight(name[:min(len(name), maxNameBytes)], "-")
}

// Delete requests the deletion of the machine of an instance, and of its doubles if a cloud made some.
func (b *Backend) Delete(ctx context.Context, id dstack.InstanceID) error {
	unlock, err := b.creating.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	got, err := b.listings.get(ctx, b.busyListingAge, time.Time{})
	if err != nil {
		return err
	}
	var targets []cloud.Machine
	isListed := false
	for _, m := range got.machines {
		if m.Instance == id {
			isListed = true
			if m.State != cloud.MachineEnded {
				targets = append(targets, m)
			}
		}
	}
	if host, ok := b.findHost(id); ok && !isListed {
		if m, isLaunched := b.launchedMachine(host, time.Now()); isLaunched {
			targets = append(targets, m)
		}
	}
	if len(targets) > 0 {
		if err := b.Provider.Terminate(ctx, targets); err != nil {
			return err
		}
	}
	b.noteDeleted(id, time.Now())
	return nil
}

var errNoKeys = errors.New("its keys are not recorded")

// missingKeysError is returned for a machine whose keys cannot be opened: the key file of the server was replaced.
func missingKeysError(id dstack.InstanceID) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: fmt.Sprintf("the keys of the machine of instance %s cannot be opened", id),
		Hint: "put the server's key file back from a backup", Cause: errNoKeys,
	}
}
