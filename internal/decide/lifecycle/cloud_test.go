package lifecycle_test

import (
	"errors"

	"dstack/internal/dstack"
)

// cloud is a simulated backend that rents machines. Machines appear late, get
// lost or fail; creations are refused; deletions are accepted but not done; and
// lists lack machines.
type cloud struct {
	w        *world
	machines map[dstack.InstanceID]*machine
}

func newCloud(w *world) *cloud {
	return &cloud{w: w, machines: map[dstack.InstanceID]*machine{}}
}

// offers returns what the backends of the world offer.
func (w *world) offers() (all []dstack.Offer) {
	if w.owned != nil && !w.chance(5, "the owned machine is not offered") {
		all = append(all, w.offer)
	}
	for _, m := range w.hosts {
		if w.isNode(m) && (m.isRemoved || w.isAPIDown()) || w.chance(5, "a host is not offered") {
			continue
		}
		o := m.offer
		o.IsDraining = m.isDraining
		all = append(all, o)
	}
	if w.account != nil && !w.chance(5, "the account offers nothing") {
		all = append(all, w.account.offers()...)
	}
	all = append(all, w.idleOffers()...)
	if w.cloud != nil && !w.chance(5, "the cloud offers nothing") {
		hardware := dstack.Hardware{CPUs: 8}
		all = append(all, dstack.Offer{Backend: "cloud", Key: "cloud", Type: "cpu", Hardware: hardware, Price: 1})
		hardware.GPUs = []dstack.GPU{{ID: "GPU-a", Name: "L4", MemoryMiB: 24 << 10}}
		all = append(all, dstack.Offer{Backend: "cloud", Key: "cloud", Type: "gpu", Hardware: hardware, Price: 2})
	}
	return all
}

// create creates an instance's machine. It may be repeated.
func (c *cloud) create(id dstack.InstanceID) error {
	if c.machines[id] != nil {
		return nil
	}
	if c.w.chance(5, "no machine is left") {
		return &dstack.Error{Kind: dstack.NoCapacity, Message: "no machine is left"}
	}
	c.machines[id] = newMachine(id, c.w.after(10, "listed in"), c.w.after(20, "alive in"))
	return nil
}

// delete deletes an instance's machine. It may be repeated.
func (c *cloud) delete(id dstack.InstanceID) error {
	switch {
	case c.w.chance(5, "the deletion is refused"):
		return errors.New("try again")
	case c.w.chance(4, "the deletion is accepted and not done"):
		return nil
	}
	delete(c.machines, id)
	return nil
}

// describe returns a machine's entry in the backend's list; nil: there is none.
func (c *cloud) describe(id dstack.InstanceID) *dstack.Machine {
	m := c.machines[id]
	if m == nil || c.w.now.Before(m.listedAt) || c.w.chance(10, "a machine is forgotten") {
		return nil
	}
	switch {
	case m.failed:
		return &dstack.Machine{Ref: string(id), State: dstack.MachineFailed}
	case c.w.now.Before(m.aliveAt):
		return &dstack.Machine{Ref: string(id), State: dstack.MachinePending}
	default:
		return &dstack.Machine{Ref: string(id), State: dstack.MachineRunning}
	}
}
