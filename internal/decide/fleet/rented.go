package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

const (
	defaultIdleTime = 72 * time.Hour   // of a machine of a fleet
	lookEvery       = 20 * time.Second // between two steps of a fleet in which nothing happens
	goneEvery       = time.Second      // between two looks whether the machines of a deleted fleet are gone
	firstPause      = time.Second      // until the next offer is tried, doubled with each round up to maxPause
	maxPause        = 30 * time.Second
	firstLack       = 15 * time.Second // until offers are read again if none suits, doubled with each round up to maxLack
	maxLack         = 5 * time.Minute
)

// RentedFacts is everything that a decision on a cloud fleet needs.
type RentedFacts struct {
	Fleet      dstack.Fleet
	Placements []dstack.Placement // machines to rent, best first; read only if CountMissing is not 0
	Rejections []dstack.Rejection // some machines that do not suit, the nearest first; read as Placements are
	Refusal    string             // why no machine may be rented now, for the user; empty: it may
}

// RentedStep is what happens next to a cloud fleet.
type RentedStep struct {
	Rent   []dstack.Offer // one machine of each
	Leave  []Departure
	Rounds dstack.FleetRounds
	IsGone bool      // the fleet is deleted and has no machines any more
	Due    time.Time // when to decide again if nothing changes
}

// Departure is a machine that leaves its fleet as soon as it has no replicas.
type Departure struct {
	Instance dstack.InstanceID
	Reason   dstack.Reason
}

// BuildRequirements returns what a fleet requires of the machines that it rents. Fields of its profile apply where its
// configuration sets nothing. The caller sets IsGlobalAdmin.
func BuildRequirements(f dstack.Fleet) dstack.Requirements {
	p := mergeParams(f)
	need := dstack.Requirements{
		Project: f.Project, Resources: f.Configuration.Resources, AnyPort: true, NeedsImage: true,
		Backends: spec.TitleBackends(p.Backends), Regions: p.Regions, Zones: p.AvailabilityZones, InstanceTypes: p.InstanceTypes, MaxPrice: p.MaxPrice,
	}
	if spot := p.SpotPolicy == "spot"; spot || p.SpotPolicy == "on-demand" {
		need.Spot = &spot
	}
	return need
}

func mergeParams(f dstack.Fleet) spec.Params {
	return spec.Merge(spec.Service{Params: f.Configuration.Params}, f.Profile)
}

// idleTime returns how long a machine that is not needed may be without replicas; negative: no limit.
func idleTime(f dstack.Fleet) time.Duration {
	p := mergeParams(f)
	switch own, profile := f.Configuration.TerminationIdleTime, f.Profile.TerminationIdleTime; {
	case p.TerminationPolicy == spec.KeepIdle:
		return -1
	case own == nil && profile == nil:
		return defaultIdleTime
	case *p.TerminationIdleTime < 0:
		return -1
	default:
		return time.Duration(*p.TerminationIdleTime) * time.Second
	}
}

// IsCounted reports whether a machine counts as one of its fleet's: it is not on its way out. A spot machine that its cloud
// takes back does not, so that another one is rented at once.
func IsCounted(m dstack.FleetInstance) bool {
	return !m.IsLeaving && m.Instance.TakenBackAt.IsZero() && m.Instance.Status != dstack.InstanceDeleting && m.Instance.Status != dstack.InstanceDeleted
}

func countMachines(f dstack.Fleet, matches func(dstack.FleetInstance) bool) (n int) {
	for _, m := range f.Instances {
		if IsCounted(m) && matches(m) {
			n++
		}
	}
	return n
}

func isAny(dstack.FleetInstance) bool { return true }

func isUp(m dstack.FleetInstance) bool { return m.Instance.Status != dstack.InstanceCreating }

// isUnused reports whether a machine has no replicas.
func isUnused(m dstack.FleetInstance) bool { return m.Replicas == 0 }

// WasUsable reports whether a machine was ever up. One that never was, and is being deleted, is a rental that failed.
func WasUsable(m dstack.FleetInstance) bool {
	return m.Instance.Status == dstack.InstanceUp || m.Instance.Status == dstack.InstanceAway || !m.Instance.LastResponseAt.IsZero()
}

// goal returns how many machines a fleet is to have now, beyond those that its runs added.
func goal(f dstack.Fleet) int {
	least, target, _, _ := f.Configuration.NodeCounts()
	switch {
	case f.IsDeleting:
		return 0
	case f.Rounds.ReachedTarget:
		return least
	}
	return max(least, target)
}

// CountMissing returns how many machines a fleet rents now, if there are offers.
func CountMissing(f dstack.Fleet, now time.Time) int {
	if f.Rounds.NextAt.After(now) && f.Rounds.NextAt.Sub(now) <= maxLack {
		return 0
	}
	return max(goal(f)-countMachines(f, isAny), 0)
}

// CountSurplus returns how many machines a fleet has beyond its limit.
func CountSurplus(f dstack.Fleet) int {
	_, _, most, isLimited := f.Configuration.NodeCounts()
	if !isLimited {
		return 0
	}
	return max(countMachines(f, isAny)-most, 0)
}

// HasRoom reports whether runs may add a machine to a fleet.
func HasRoom(f dstack.Fleet) bool {
	_, _, most, isLimited := f.Configuration.NodeCounts()
	return f.IsRented() && !f.IsDeleting && (!isLimited || countMachines(f, isAny) < most)
}

// Shortage is why a fleet has fewer machines than it should.
type Shortage struct {
	Missing int           // machines that are not even requested
	Reason  dstack.Reason // why, for the user; empty: they are about to be requested
	IsFinal bool          // no offer is left, and retry does not ask to wait for one; they are tried again nevertheless
}

// FindShortage returns how many machines of a fleet are missing, and why.
func FindShortage(f dstack.Fleet, now time.Time) Shortage {
	s := Shortage{Missing: max(goal(f)-countMachines(f, isAny), 0)}
	if s.Missing == 0 {
		return Shortage{}
	}
	s.Reason = f.Rounds.Reason
	events, window := mergeParams(f).RetryRule()
	if !slices.Contains(events, "no-capacity") {
		window = 0
	}
	s.IsFinal = f.Rounds.IsExhausted && now.Sub(f.Rounds.MissingSince) >= time.Duration(window)*time.Second
	return s
}

// DecideRented decides the next step of a cloud fleet: the machines that it rents, and those that leave.
func DecideRented(seen RentedFacts, now time.Time) RentedStep {
	f := seen.Fleet
	step := RentedStep{Rounds: f.Rounds, Due: now.Add(lookEvery)}
	if f.IsDeleting {
		for _, m := range f.Instances {
			if !m.IsLeaving {
				step.Leave = append(step.Leave, Departure{m.Instance.ID, "its fleet was deleted"})
			}
		}
		step.IsGone, step.Due = len(f.Instances) == 0, now.Add(goneEvery)
		return step
	}
	if countMachines(f, isUp) >= goal(f) {
		step.Rounds = dstack.FleetRounds{ReachedTarget: true}
		f.Rounds = step.Rounds
	}
	if missing := CountMissing(f, now); missing > 0 {
		step.rent(seen, missing, now)
	}
	step.release(f, now)
	if next := step.Rounds.NextAt; next.After(now) && next.Before(step.Due) {
		step.Due = next
	}
	return step
}

// rent chooses the offers of missing machines. If there are none, they are missing for a longer time.
func (step *RentedStep) rent(seen RentedFacts, missing int, now time.Time) {
	rounds := &step.Rounds
	if rounds.MissingSince.IsZero() || rounds.MissingSince.After(now) {
		rounds.MissingSince = now
	}
	offers := chooseOffers(seen, missing)
	if failed, ok := findFailure(seen.Fleet); ok {
		rounds.Reason = failed
	}
	wasExhausted := rounds.IsExhausted
	rounds.IsExhausted = len(offers) == 0
	if rounds.IsExhausted != wasExhausted {
		rounds.Failures = 0
	}
	pause := min(firstPause<<min(rounds.Failures, 10), maxPause)
	if rounds.IsExhausted {
		pause = min(firstLack<<min(rounds.Failures, 10), maxLack)
		rounds.Reason = explainLack(seen)
	}
	rounds.Failures++
	rounds.NextAt = now.Add(pause)
	step.Rent = offers
}

// chooseOffers returns the offers of missing machines: the best one for all of them. With placement: cluster, all machines
// of a fleet are in one zone.
func chooseOffers(seen RentedFacts, missing int) (offers []dstack.Offer) {
	if seen.Refusal != "" {
		return nil
	}
	anchor := findAnchor(seen.Fleet)
	for _, p := range seen.Placements {
		o := p.Offer
		if o.OwnedInstance != "" || o.Availability == dstack.NotAvailable || o.Availability == dstack.NoQuota ||
			anchor != nil && !isSamePlace(o, *anchor) {
			continue
		}
		o.Fleet = seen.Fleet.Name
		return slices.Repeat([]dstack.Offer{o}, missing)
	}
	return nil
}

// IsCluster reports whether the machines of a fleet are to be close to each other.
func IsCluster(f dstack.Fleet) bool { return f.Configuration.Placement == "cluster" }

// findAnchor returns the place where the machines of a cluster are; nil: they may be anywhere.
func findAnchor(f dstack.Fleet) *dstack.Offer {
	if !IsCluster(f) {
		return nil
	}
	for _, m := range f.Instances {
		if IsCounted(m) {
			return &m.Instance.Offer
		}
	}
	return nil
}

func isSamePlace(a, b dstack.Offer) bool {
	return a.Key == b.Key && a.Region == b.Region && a.Zone == b.Zone
}

// findFailure returns why the latest rental failed.
func findFailure(f dstack.Fleet) (dstack.Reason, bool) {
	var latest *dstack.FleetInstance
	for i, m := range f.Instances {
		isFailed := m.Instance.Status == dstack.InstanceDeleting && !m.IsLeaving && !WasUsable(m)
		if isFailed && (latest == nil || m.Instance.Since.After(latest.Instance.Since)) {
			latest = &f.Instances[i]
		}
	}
	if latest == nil {
		return "", false
	}
	return latest.Instance.Reason, true
}

// explainLack says why no machine can be rented.
func explainLack(seen RentedFacts) dstack.Reason {
	switch anchor := findAnchor(seen.Fleet); {
	case seen.Refusal != "":
		return dstack.Reason(seen.Refusal)
	case anchor != nil && len(seen.Placements) > 0:
		place := anchor.Region
		if anchor.Zone != "" {
			place = anchor.Zone
		}
		return dstack.Reason(fmt.Sprintf("with placement: cluster, all machines are in %s, which has none to rent now", place))
	case len(seen.Placements) > 0:
		return "all machines that suit are used up, or not allowed by a quota"
	case len(seen.Rejections) > 0:
		first := seen.Rejections[0]
		return dstack.Reason(fmt.Sprintf("no machine to rent suits: %s %s", first.Offer.Type, first))
	default:
		return "no backend of the project rents machines; add one to the server's config.yml"
	}
}

// release lets machines leave that are more than the fleet may have, and those that were idle for too long and are not
// needed. What has replicas stays.
func (step *RentedStep) release(f dstack.Fleet, now time.Time) {
	least, _, most, isLimited := f.Configuration.NodeCounts()
	count := countMachines(f, isAny)
	idle, needed := idleTime(f), max(least, goal(f))
	for _, m := range sortUnused(f) {
		if isLimited && count > most {
			step.Leave = append(step.Leave, Departure{m.Instance.ID, dstack.Reason(fmt.Sprintf("its fleet has %d machines at most", most))})
			count--
			continue
		}
		if count <= needed || idle < 0 || m.Instance.Status != dstack.InstanceUp || m.Instance.EmptySince.IsZero() {
			continue
		}
		since := m.Instance.EmptySince
		if m.Instance.Since.After(since) { // it was not up yet
			since = m.Instance.Since
		}
		if end := since.Add(idle); end.After(now) {
			step.Due = minTime(step.Due, end)
			continue
		}
		step.Leave = append(step.Leave, Departure{m.Instance.ID, "idle for " + dstack.Reason(human.RoundDuration(idle)) + ", and its fleet needs fewer machines"})
		count--
	}
}

// sortUnused returns the machines without replicas, in the order in which they leave: those that drain or are not up
// yet, then the dearest, then the newest.
func sortUnused(f dstack.Fleet) []dstack.FleetInstance {
	var unused []dstack.FleetInstance
	for _, m := range f.Instances {
		if IsCounted(m) && isUnused(m) {
			unused = append(unused, m)
		}
	}
	rank := func(m dstack.FleetInstance) int {
		switch {
		case m.IsDraining:
			return 0
		case !isUp(m):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(unused, func(a, b dstack.FleetInstance) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Instance.Offer.Price, a.Instance.Offer.Price), cmp.Compare(b.Num, a.Num))
	})
	return unused
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// NextNum returns the lowest number that no machine of a fleet has. The rentals that failed have none.
func NextNum(f dstack.Fleet) int {
	taken := map[int]bool{}
	for _, m := range f.Instances {
		if IsCounted(m) || WasUsable(m) {
			taken[m.Num] = true
		}
	}
	num := 0
	for taken[num] {
		num++
	}
	return num
}
