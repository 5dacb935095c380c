package lifecycle_test

import (
	"errors"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// account simulates an account of a cloud: regions with zones, spot machines, capacity that comes and goes, a quota, lists
// that lag a minute behind, launches that time out and happen nevertheless, and deletions that fail for an hour. A launch
// with a token that was used makes no second machine.
type account struct {
	w        *world
	machines map[dstack.InstanceID]*machine // that cost money
	launches []launch                       // requested; some happen later
	tokens   map[string]dstack.InstanceID   // every token that a machine was made for
	ended    map[dstack.InstanceID]ending
	full     map[string]time.Time // zone → until when it has no machines left

	quotaUntil, throttledUntil, deafUntil time.Time // until when a quota is used up, requests are refused, deletions fail
	made                                  int       // machines
}

// launch is a request for a machine on its way.
type launch struct {
	id    dstack.InstanceID
	token string
	offer dstack.Offer
	at    time.Time
}

// ending is a machine that has ended.
type ending struct {
	at         time.Time
	shownUntil time.Time // lists show it as if it lived
	wasTaken   bool      // the cloud took it back, and says so until its deletion is requested
}

// addAccount makes a world with a cloud.
func (w *world) addAccount() *account {
	w.account = &account{w: w, machines: map[dstack.InstanceID]*machine{}, tokens: map[string]dstack.InstanceID{},
		ended: map[dstack.InstanceID]ending{}, full: map[string]time.Time{}}
	return w.account
}

var zones = []string{"east-a", "east-b", "west-a"}

// offers returns what the account offers: the same machine in each zone, on demand and spot.
func (c *account) offers() (all []dstack.Offer) {
	for i, zone := range zones {
		for _, spot := range []bool{false, true} {
			o := dstack.Offer{Backend: "aws", Key: "aws", Region: zone[:4], Zone: zone, Type: "g6.xlarge", Price: 2 + float64(i), Spot: spot, IsRemote: true,
				Hardware: dstack.Hardware{CPUs: 8, GPUs: []dstack.GPU{{Name: "L4", MemoryMiB: 24 << 10}}},
				Engine:   dstack.EngineCapabilities{Name: "docker", Containers: true}}
			if spot {
				o.Price /= 2
			}
			all = append(all, o)
		}
	}
	return all
}

// live advances the account by a tick.
func (c *account) live() {
	w := c.w
	if w.chance(60, "a zone is full") {
		c.full[rapid.SampledFrom(zones).Draw(w.t, "zone")] = w.after(400, "full for")
	}
	if w.chance(300, "the quota is used up") {
		c.quotaUntil = w.after(400, "for")
	}
	if w.chance(150, "requests are throttled") {
		c.throttledUntil = w.after(60, "for")
	}
	if w.chance(300, "deletions fail") {
		c.deafUntil = w.after(rapid.SampledFrom([]int{60, 7200}).Draw(w.t, "at most"), "for")
	}
	left := c.launches[:0:0]
	for _, l := range c.launches {
		if w.now.Before(l.at) {
			left = append(left, l)
		} else {
			c.make(l)
		}
	}
	c.launches = left
	for _, id := range sorted(c.machines) {
		c.takeBack(c.machines[id])
	}
}

// takeBack takes spot machines back, with a notice or without one.
func (c *account) takeBack(m *machine) {
	w := c.w
	switch {
	case !m.takenBackAt.IsZero() && !w.now.Before(m.takenBackAt):
		c.end(m.id, true)
	case !m.offer.Spot || !m.takenBackAt.IsZero():
	case w.chance(150, "its cloud takes it back"):
		m.takenBackAt = w.now.Add(rapid.SampledFrom([]time.Duration{0, 30 * time.Second, 2 * time.Minute}).Draw(w.t, "notice"))
	}
}

// end ends a machine. Lists may show it for a while as if it lived.
func (c *account) end(id dstack.InstanceID, wasTaken bool) {
	if c.machines[id] != nil {
		delete(c.machines, id)
		c.ended[id] = ending{at: c.w.now, shownUntil: c.lag("shown as alive for"), wasTaken: wasTaken}
	}
}

// lag returns until when lists do not show a change.
func (c *account) lag(what string) time.Time {
	if !c.w.faults {
		return c.w.now
	}
	return c.w.after(rapid.SampledFrom([]int{4, 120}).Draw(c.w.t, "at most"), what)
}

// make makes a machine, unless its token was used.
func (c *account) make(l launch) {
	if c.tokens[l.token] != "" {
		return
	}
	if c.machines[l.id] != nil {
		c.w.t.Fatalf("a second machine is made for instance %s", l.id)
	}
	m := newMachine(l.id, c.lag("listed in"), c.w.after(20, "alive in"))
	m.offer = l.offer
	c.machines[l.id], c.tokens[l.token] = m, l.id
	c.made++
}

// create requests the machine of an instance.
func (c *account) create(i dstack.Instance) error {
	w, l := c.w, launch{i.ID, fmt.Sprint(i.ID, i.Offer.Zone, i.Offer.Type, i.Offer.Spot), i.Offer, c.w.now}
	switch isEnded := c.tokens[l.token] != "" && c.machines[i.ID] == nil; {
	case w.now.Before(c.throttledUntil):
		return &dstack.Error{Kind: dstack.Unavailable, Message: "slow down", Cause: &dstack.MachineFailure{RetryAfter: 5 * time.Second}}
	case isEnded:
		return &dstack.Error{Kind: dstack.Conflict, Message: "the machine of this token has ended"}
	case c.tokens[l.token] != "":
		return nil
	case w.now.Before(c.full[i.Offer.Zone]):
		return &dstack.Error{Kind: dstack.NoCapacity, Message: i.Offer.Zone + " is full", Cause: &dstack.MachineFailure{Cause: dstack.FailureNoCapacity}}
	case w.now.Before(c.quotaUntil) && i.Offer.Region == "east":
		return &dstack.Error{Kind: dstack.NoCapacity, Message: "the quota is used up", Cause: &dstack.MachineFailure{
			Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"g6.*"}}}
	case w.chance(8, "the launch times out"):
		if l.at = w.after(20, "happens in"); w.chance(2, "never") {
			return errors.New("no answer")
		}
		c.launches = append(c.launches, l)
		return errors.New("no answer")
	}
	c.make(l)
	if w.chance(10, "the launch happens, and an error is returned") {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "internal error"}
	}
	return nil
}

// delete requests the end of an instance's machine.
func (c *account) delete(id dstack.InstanceID) error {
	switch w := c.w; {
	case w.now.Before(c.throttledUntil):
		return &dstack.Error{Kind: dstack.Unavailable, Message: "slow down", Cause: &dstack.MachineFailure{RetryAfter: 5 * time.Second}}
	case w.now.Before(c.deafUntil):
		return &dstack.Error{Kind: dstack.Unavailable, Message: "internal error"}
	case w.chance(4, "the deletion is accepted and not done"):
		return nil
	}
	c.end(id, false)
	if e, isEnded := c.ended[id]; isEnded {
		e.wasTaken = false
		c.ended[id] = e
	}
	return nil
}

// describe returns a machine's entry in the account's list; nil: there is none.
func (c *account) describe(id dstack.InstanceID) *dstack.Machine {
	w, m := c.w, c.machines[id]
	if m == nil {
		switch e, isEnded := c.ended[id]; {
		case !isEnded:
			return nil
		case w.now.Before(e.shownUntil):
			return &dstack.Machine{State: dstack.MachineRunning, SilentSince: e.at}
		case e.wasTaken && w.now.Sub(e.at) < time.Hour:
			return &dstack.Machine{State: dstack.MachineFailed, Failure: &dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: "spot capacity was reclaimed"}}
		}
		return nil
	}
	switch {
	case w.now.Before(m.listedAt):
		return nil
	case m.failed:
		return &dstack.Machine{State: dstack.MachineFailed}
	case w.now.Before(m.aliveAt):
		return &dstack.Machine{State: dstack.MachinePending}
	}
	listed := &dstack.Machine{State: dstack.MachineRunning, TakenBackAt: m.takenBackAt}
	if w.now.Before(m.silentUntil) && w.now.Sub(m.silentAt) > 6*time.Second {
		listed.SilentSince = m.silentAt
	}
	return listed
}

// idleOffers returns the offers of rented machines that run nothing.
func (w *world) idleOffers() (all []dstack.Offer) {
	used := map[dstack.InstanceID]bool{}
	for _, r := range w.replicas {
		used[r.Instance] = used[r.Instance] || !r.Status.IsFinished()
	}
	for _, id := range sorted(w.instances) {
		i := w.instances[id]
		if i.Offer.OwnedInstance == "" && i.Status == dstack.InstanceUp && !i.IsDraining && i.UnlistedSince.IsZero() && i.ConsecutiveFailures == 0 && !used[id] {
			all = append(all, placement.NewIdleOffer(*i))
		}
	}
	return all
}
