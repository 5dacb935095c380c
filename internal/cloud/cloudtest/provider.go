package cloudtest

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// Provider is what one installation sees of an Account.
type Provider struct {
	account      *Account
	installation dstack.Installation
}

var (
	_ cloud.Provider     = (*Provider)(nil)
	_ cloud.Disks        = (*Provider)(nil)
	_ cloud.PriceList    = (*Provider)(nil)
	_ cloud.Availability = (*Provider)(nil)
	_ cloud.Leftovers    = (*Provider)(nil)
)

// CheckAccess fails as Faults say.
func (p *Provider) CheckAccess(ctx context.Context) error {
	if err := p.account.enter(ctx, "CheckAccess"); err != nil {
		return err
	}
	p.account.mu.Unlock()
	return nil
}

// Launch makes a machine, unless the token has one.
func (p *Provider) Launch(ctx context.Context, l cloud.Launch) (cloud.Machine, error) {
	a := p.account
	if err := a.enter(ctx, "Launch"); err != nil {
		return cloud.Machine{}, err
	}
	lost := a.faults.findLaunchFault(Place{Region: l.Offer.Region, Zone: l.Offer.Zone, Type: l.Offer.Type, Spot: l.Offer.Spot})
	if lost != nil && !a.faults.LaunchAnyway {
		a.mu.Unlock()
		return cloud.Machine{}, lost
	}
	m, isNew, err := a.launch(p.installation, l)
	if err != nil {
		a.mu.Unlock()
		return cloud.Machine{}, err
	}
	answer, failure := m.Machine, a.faults.EndLaunched
	if a.loseNext {
		lost, a.loseNext = NewTimeoutError(), false
	}
	a.mu.Unlock()
	if isNew {
		a.boot(m, answer, failure)
	}
	if lost != nil {
		return cloud.Machine{}, lost
	}
	return answer, nil
}

// launch finds or makes the machine of a token. The caller holds the lock.
func (a *Account) launch(installation dstack.Installation, l cloud.Launch) (m *machine, isNew bool, err error) {
	a.advance()
	key := l.Offer.Region + "/" + l.Token
	if m := a.tokens[key]; m != nil {
		if m.State == cloud.MachineEnded || m.State == cloud.MachineEnding {
			return nil, false, newConflictError("the machine of this token has ended")
		}
		if !isSameLaunch(m.launch, l) {
			return nil, false, newConflictError("the token was used for another launch")
		}
		return m, false, nil
	}
	if err := a.checkLaunch(l); err != nil {
		return nil, false, err
	}
	place := Place{Region: l.Offer.Region, Zone: l.Offer.Zone, Type: l.Offer.Type, Spot: l.Offer.Spot}
	if err := a.checkQuotas(place); err != nil {
		return nil, false, err
	}
	zone, ok := a.findZone(place)
	if !ok {
		return nil, false, NewNoCapacityError(place)
	}
	m = a.add(installation, zone, l)
	a.tokens[key] = m
	return m, true, nil
}

// boot calls the hook of a new machine. The caller does not hold the lock.
func (a *Account) boot(m *machine, answer cloud.Machine, failure *dstack.MachineFailure) {
	address, err := fmt.Sprintf("192.0.2.%d", 1+m.number%250), error(nil)
	if failure == nil && a.options.OnBoot != nil {
		address, err = a.options.OnBoot(answer, m.launch)
	}
	if err != nil {
		failure = &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: err.Error()}
	}
	if failure != nil {
		a.End(m.Ref, failure)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.State != cloud.MachineEnded {
		m.Address = address
	}
}

// checkLaunch refuses launches that a cloud would refuse.
func (a *Account) checkLaunch(l cloud.Launch) error {
	invalid := func(format string, args ...any) error {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf(format, args...)}
	}
	zones, known := a.options.Zones[l.Offer.Region]
	switch {
	case l.Token == "" || len(l.Token) > 64:
		return invalid("the token %q has no or more than 64 characters", l.Token)
	case l.Instance == "":
		return invalid("the launch has no instance")
	case len(l.UserData) > 16<<10:
		return invalid("the user data has %d bytes, more than 16 KiB", len(l.UserData))
	case !isName(l.Name):
		return invalid("the name %q is not allowed", l.Name)
	case !known:
		return invalid("there is no region %s", l.Offer.Region)
	case l.Offer.Zone != "" && !slices.Contains(zones, l.Offer.Zone):
		return invalid("there is no zone %s", l.Offer.Zone)
	case a.findRow(l.Offer.Region, l.Offer.Zone, l.Offer.Type, l.Offer.Spot) == nil:
		return NewNoCapacityError(Place{Region: l.Offer.Region, Zone: l.Offer.Zone, Type: l.Offer.Type})
	}
	return nil
}

func isName(name string) bool {
	return len(name) <= 60 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (a *Account) findRow(region, zone, kind string, spot bool) *catalogue.Row {
	for i, r := range a.options.Types {
		if r.Region == region && r.Type == kind && r.Spot == spot && (r.Zone == "" || zone == "" || r.Zone == zone) {
			return &a.options.Types[i]
		}
	}
	return nil
}

// checkQuotas checks that the account may have one more machine.
func (a *Account) checkQuotas(p Place) error {
	for _, q := range a.regions[p.Region] {
		if q.Spot != p.Spot || !slices.Contains(q.Types, p.Type) {
			continue
		}
		used := a.countFor(q, p)
		for _, m := range a.machines {
			if m.State != cloud.MachineEnded && m.Region == p.Region && m.Spot == q.Spot && slices.Contains(q.Types, m.Type) {
				used += a.countFor(q, placeOf(m.Machine))
			}
		}
		if used > q.CPUs {
			return NewQuotaError(p.Region, q.Name, q.Types...)
		}
	}
	return nil
}

func (a *Account) countFor(q cloud.Quota, p Place) int {
	row := a.findRow(p.Region, p.Zone, p.Type, p.Spot)
	switch {
	case row == nil:
		return 0
	case q.IsGPU:
		return row.GPUs
	}
	return row.CPUs
}

// findZone returns the zone for one more machine, and takes the capacity for it.
func (a *Account) findZone(p Place) (zone string, ok bool) {
	everywhere := Place{Region: p.Region, Type: p.Type, Spot: p.Spot}
	if left, isLimited := a.capacity[everywhere]; isLimited && left <= 0 {
		return "", false
	}
	zones := a.options.Zones[p.Region]
	if p.Zone != "" {
		zones = []string{p.Zone}
	}
	for _, zone := range zones {
		p.Zone = zone
		if left, isLimited := a.capacity[p]; isLimited && left <= 0 || a.findRow(p.Region, zone, p.Type, p.Spot) == nil {
			continue
		}
		for _, limited := range []Place{p, everywhere} {
			if left, isLimited := a.capacity[limited]; isLimited {
				a.capacity[limited] = left - 1
			}
		}
		return zone, true
	}
	return "", false
}

func placeOf(m cloud.Machine) Place {
	return Place{Region: m.Region, Zone: m.Zone, Type: m.Type, Spot: m.Spot}
}

// isSameLaunch compares what a cloud compares when a token is used again.
func isSameLaunch(a, b cloud.Launch) bool {
	return a.Offer.Zone == b.Offer.Zone && a.Offer.Type == b.Offer.Type && a.Offer.Spot == b.Offer.Spot &&
		a.Offer.Hardware.DiskMiB == b.Offer.Hardware.DiskMiB && a.UserData == b.UserData && a.Name == b.Name &&
		a.Group == b.Group && a.Instance == b.Instance && reflect.DeepEqual(a.Labels, b.Labels)
}

// ListMachines returns the machines of the installation that the cloud shows by now.
func (p *Provider) ListMachines(ctx context.Context) ([]cloud.Machine, error) {
	a := p.account
	if err := a.enter(ctx, "ListMachines"); err != nil {
		return nil, err
	}
	ended := a.advance()
	err := a.checkRegions()
	var list []cloud.Machine
	now := a.options.Now()
	for _, ref := range slices.Sorted(maps.Keys(a.machines)) {
		m := a.machines[ref]
		isShown := now.Sub(m.LaunchedAt) >= a.options.Latency.Listed
		if m.State == cloud.MachineEnded && (m.Failure == nil || now.Sub(m.endingAt) > shownAfterEnd) {
			isShown = false
		}
		if m.installation != p.installation || !isShown {
			continue
		}
		shown := m.Machine
		if shown.State == cloud.MachinePending {
			shown.Address = ""
		}
		list = append(list, shown)
		if a.faults.ListTwice {
			list = append(list, shown)
		}
	}
	a.mu.Unlock()
	a.callEnd(ended)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// checkRegions fails if a region does not answer. The caller holds the lock.
func (a *Account) checkRegions() error {
	if len(a.faults.Regions) == 0 {
		return nil
	}
	return &dstack.Error{Kind: dstack.Unavailable, Message: "no answer from " + strings.Join(a.faults.Regions, ", ")}
}

// Terminate begins to end machines of the installation.
func (p *Provider) Terminate(ctx context.Context, machines []cloud.Machine) error {
	a := p.account
	if err := a.enter(ctx, "Terminate"); err != nil {
		return err
	}
	if !a.faults.IgnoreTerminate {
		for _, m := range machines {
			known := a.machines[m.Ref]
			if known == nil || known.installation != p.installation || known.State == cloud.MachineEnded || known.State == cloud.MachineEnding {
				continue
			}
			known.State, known.endingAt, known.Failure = cloud.MachineEnding, a.options.Now(), nil
		}
	}
	ended := a.advance()
	a.mu.Unlock()
	a.callEnd(ended)
	return nil
}

// ListTypes returns the rows of a region.
func (p *Provider) ListTypes(ctx context.Context, region string) ([]catalogue.Row, error) {
	a := p.account
	if err := a.enter(ctx, "ListTypes"); err != nil {
		return nil, err
	}
	defer a.mu.Unlock()
	var rows []catalogue.Row
	for _, r := range a.options.Types {
		if r.Region == region {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// ListZones returns the zones of each type of a region.
func (p *Provider) ListZones(ctx context.Context, region string) (map[string][]string, error) {
	a := p.account
	if err := a.enter(ctx, "ListZones"); err != nil {
		return nil, err
	}
	defer a.mu.Unlock()
	zones := map[string][]string{}
	for _, r := range a.options.Types {
		offered := a.options.Zones[region]
		if r.Zone != "" {
			offered = []string{r.Zone}
		}
		for _, zone := range offered {
			if r.Region == region && !slices.Contains(zones[r.Type], zone) {
				zones[r.Type] = append(zones[r.Type], zone)
			}
		}
	}
	return zones, nil
}

// ListQuotas returns the quotas of a region.
func (p *Provider) ListQuotas(ctx context.Context, region string) ([]cloud.Quota, error) {
	a := p.account
	if err := a.enter(ctx, "ListQuotas"); err != nil {
		return nil, err
	}
	defer a.mu.Unlock()
	return slices.Clone(a.regions[region]), nil
}
