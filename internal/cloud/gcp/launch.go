package gcp

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const maxUserData = 16 << 10

// Launch implements cloud.Provider.
func (p *Provider) Launch(ctx context.Context, l cloud.Launch) (cloud.Machine, error) {
	if err := p.checkLaunch(l); err != nil {
		return cloud.Machine{}, err
	}
	if err := p.prepareLaunch(ctx, l); err != nil {
		return cloud.Machine{}, err
	}
	if l.Offer.Zone != "" {
		return p.launchIn(ctx, l, l.Offer.Zone)
	}
	// An earlier call may have succeeded in any zone.
	if m, ok, err := p.findMachine(ctx, p.machineName(l)); err != nil || ok {
		return m, err
	}
	zones, err := p.zonesForLaunch(ctx, l)
	if err != nil {
		return cloud.Machine{}, err
	}
	var last error
	for _, zone := range zones {
		m, err := p.launchIn(ctx, l, zone)
		failure, ok := errors.AsType[*dstack.MachineFailure](err)
		isForZone := ok && dstack.KindOf(err) == dstack.NoCapacity && failure.Cause == dstack.FailureNoCapacity && failure.Scope == dstack.ScopeZone
		if !isForZone {
			return m, err
		}
		last = err
	}
	return cloud.Machine{}, widenFailure(last, l)
}

// checkLaunch refuses launches that cannot succeed.
func (p *Provider) checkLaunch(l cloud.Launch) error {
	o := l.Offer
	refuse := func(scope dstack.FailureScope, types []string, message, hint string) error {
		failure := &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Scope: scope, Types: types, Message: message}
		return &dstack.Error{Kind: dstack.NoCapacity, Message: message, Hint: hint, Cause: failure}
	}
	switch {
	case isTPU(o):
		return refuse(dstack.ScopeTypes, []string{o.Type}, "dstack cannot rent TPUs of GCP, such as "+o.Type, "ask for an NVIDIA GPU: gpu: nvidia")
	case !p.settings.hasRegion(o.Region):
		return refuse(dstack.ScopePlace, nil, "the region "+o.Region+" is not one of `regions` in config.yml", "add it there")
	case o.Zone != "" && regionOf(o.Zone) != o.Region:
		return refuse(dstack.ScopeZone, nil, "the zone "+o.Zone+" is not part of the region "+o.Region, "")
	case len(l.UserData) > maxUserData:
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the script of the first boot has %d bytes, more than %d", len(l.UserData), maxUserData)}
	}
	return nil
}

// widenFailure returns the failure of the last zone as one of the whole region.
func widenFailure(err error, l cloud.Launch) error {
	message := "no zone of " + l.Offer.Region + " has machines of type " + l.Offer.Type + " left"
	failure := &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Scope: dstack.ScopeRegion, Message: message}
	return &dstack.Error{Kind: dstack.NoCapacity, Message: message, Cause: errors.Join(failure, err)}
}

// zonesForLaunch returns the zones of a region that offer the type, in the order in which they are tried: always the
// same for one token.
func (p *Provider) zonesForLaunch(ctx context.Context, l cloud.Launch) ([]string, error) {
	offered, err := p.ListZones(ctx, l.Offer.Region)
	if err != nil {
		return nil, err
	}
	zones := slices.Sorted(slices.Values(offered[l.Offer.Type]))
	if len(zones) == 0 {
		message := "no zone of " + l.Offer.Region + " offers " + l.Offer.Type
		failure := &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Scope: dstack.ScopeRegion, Message: message}
		return nil, &dstack.Error{Kind: dstack.NoCapacity, Message: message, Cause: failure}
	}
	hash := fnv.New32a()
	hash.Write([]byte(l.Token))
	first := int(hash.Sum32() % uint32(len(zones)))
	return append(zones[first:], zones[:first]...), nil
}

// prepareLaunch makes what machines refer to, if there is a network.
func (p *Provider) prepareLaunch(ctx context.Context, l cloud.Launch) error {
	if _, err := p.findSubnet(ctx, l.Offer.Region); err != nil {
		return err
	}
	if err := p.ensureRule(ctx, p.sshRule()); err != nil {
		return err
	}
	if l.Group == "" {
		return nil
	}
	if err := p.ensureRule(ctx, p.groupRule(l.Group)); err != nil {
		return err
	}
	return p.ensurePolicy(ctx, l.Group, l.Offer.Region)
}

// ensurePolicy makes the placement policy of a group in a region, if it does not exist.
func (p *Provider) ensurePolicy(ctx context.Context, group, region string) error {
	at, name := p.regionPlace(region), p.groupTag(group)
	what := "place machines close to each other (placement policy " + name + ")"
	r := call{method: http.MethodPost, url: p.client.compute + string(at) + "/resourcePolicies", what: what,
		body: resourcePolicy{Name: name, Description: "dstack", Placement: &groupPlacement{Collocation: "COLLOCATED"}}}
	_, err := read[resourcePolicy](ctx, p, p.settings.ProjectID, "regions/"+region+"/resourcePolicies/"+name, "name", what)
	if !hasMeaning(err, meansNotFound) {
		return p.describeError(err, nil)
	}
	o, err := p.change(ctx, r, at)
	switch {
	case hasMeaning(err, meansExists):
		return nil
	case err == nil && !o.isDone(): // a machine cannot refer to it yet
		return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot " + what + ": GCP still makes the policy", Hint: "dstack tries again"}
	}
	return p.describeError(err, nil)
}

// launchIn requests the machine of a launch in a zone.
func (p *Provider) launchIn(ctx context.Context, l cloud.Launch, zone string) (cloud.Machine, error) {
	body, err := p.describeInstance(ctx, l, zone)
	if err != nil {
		return cloud.Machine{}, err
	}
	what := "rent a machine of type " + l.Offer.Type + " in " + zone
	asked := place{Type: l.Offer.Type, Zone: zone, Region: l.Offer.Region, Spot: l.Offer.Spot}
	machine := cloud.Machine{Instance: l.Instance, Ref: body.Name, Region: l.Offer.Region, Zone: zone, Type: l.Offer.Type,
		Spot: l.Offer.Spot, State: cloud.MachinePending, LaunchedAt: time.Now()}
	at := p.zonePlace(zone)
	r := call{method: http.MethodPost, url: p.client.compute + string(at) + "/instances", body: body, what: what,
		query: url.Values{"requestId": {requestID(l.Token, zone, strconv.Itoa(p.records.countFailures(body.Name, zone)))}}}
	var o operation
	if err := p.client.send(ctx, r, &o); err != nil {
		if hasMeaning(err, meansExists) {
			return p.adoptMachine(ctx, machine)
		}
		return cloud.Machine{}, p.describeError(err, &asked)
	}
	if name := lastPart(o.TargetLink); name != "" && name != body.Name {
		return cloud.Machine{}, &dstack.Error{Kind: dstack.Conflict, Message: "the token of the launch was used for the machine " + name}
	}
	p.records.expect(machine, o, asked)
	isRepeated := o.isDone() // a new operation takes longer than its answer
	o, err = p.waitForOperation(ctx, o, at, what)
	switch {
	case err != nil && o.failure(what) == nil:
		return machine, nil // it was requested, and its operation could not be read
	case err != nil:
		p.records.forget(machine.Ref)
		p.records.addFailure(machine.Ref, zone)
		// A later request may have succeeded, before a restart forgot that this one failed.
		if m, adoptErr := p.adoptMachine(ctx, machine); adoptErr == nil {
			return m, nil
		}
		return cloud.Machine{}, p.describeError(err, &asked)
	case isRepeated:
		return p.confirmMachine(ctx, machine)
	}
	return machine, nil
}

// confirmMachine returns a machine whose request is repeated. The API answers with the operation of the first one, whose
// machine may have ended since.
func (p *Provider) confirmMachine(ctx context.Context, m cloud.Machine) (cloud.Machine, error) {
	found, err := read[instance](ctx, p, p.settings.ProjectID, "zones/"+m.Zone+"/instances/"+m.Ref, instanceFields, "find the machine "+m.Ref)
	if hasMeaning(err, meansNotFound) {
		p.records.forget(m.Ref)
		return cloud.Machine{}, &dstack.Error{Kind: dstack.Conflict, Message: "the machine " + m.Ref + " has ended", Cause: err}
	}
	if err != nil {
		return m, nil // it exists, and will be listed
	}
	return p.newMachine(found), nil
}

// adoptMachine returns the machine that has the name of a launch already: it is the launch's own if it is marked so.
func (p *Provider) adoptMachine(ctx context.Context, m cloud.Machine) (cloud.Machine, error) {
	found, err := read[instance](ctx, p, p.settings.ProjectID, "zones/"+m.Zone+"/instances/"+m.Ref, instanceFields, "find the machine "+m.Ref)
	if err != nil && !hasMeaning(err, meansNotFound) {
		return cloud.Machine{}, p.describeError(err, nil)
	}
	if err != nil || !p.isOwn(found.Labels) || found.Labels[labelInstance] != encodeLabel(string(m.Instance)) ||
		lastPart(found.MachineType) != m.Type || isSpot(found) != m.Spot {
		return cloud.Machine{}, &dstack.Error{Kind: dstack.Conflict, Message: "another machine has the name " + m.Ref, Cause: err}
	}
	adopted := p.newMachine(found)
	adopted.Instance = m.Instance
	return adopted, nil
}

// findMachine looks for a machine in all zones.
func (p *Provider) findMachine(ctx context.Context, name string) (m cloud.Machine, ok bool, err error) {
	found, err := listEverywhere[instance](ctx, p, p.settings.ProjectID, "instances", "name = "+quoteFilter(name), instanceFields, "find the machine "+name)
	if err != nil {
		return m, false, p.describeError(err, nil)
	}
	for _, i := range found {
		if i.Name == name && p.isOwn(i.Labels) {
			return p.newMachine(i), true, nil
		}
	}
	return m, false, nil
}

// describeInstance returns the body of the request for a machine.
func (p *Provider) describeInstance(ctx context.Context, l cloud.Launch, zone string) (instance, error) {
	o, s := l.Offer, p.settings
	subnet, err := p.findSubnet(ctx, o.Region)
	if err != nil {
		return instance{}, err
	}
	accelerators, err := acceleratorsFor(o, zone)
	if err != nil {
		return instance{}, err
	}
	labels := p.labelsOf(l.Labels, labelInstance, string(l.Instance))
	boot := &diskParams{SourceImage: s.imageFor(o), DiskType: "zones/" + zone + "/diskTypes/" + bootDiskType(o.Type),
		Labels: p.labelsOf(nil, labelRole, roleBoot)}
	if o.Hardware.DiskMiB > 0 {
		boot.DiskSizeGB = formatGiB(o.Hardware.DiskMiB)
	}
	i := instance{
		Name: p.machineName(l), Description: "rented by dstack", MachineType: "zones/" + zone + "/machineTypes/" + o.Type,
		Labels: labels, Tags: &networkTags{[]string{p.machineTag()}}, Accelerators: accelerators, Scheduling: describeScheduling(o, l.Group),
		Disks:      []attachedDisk{{Boot: true, AutoDelete: true, Parameters: boot}},
		Interfaces: []networkInterface{{Subnetwork: subnet}},
		Metadata:   &metadata{[]metadataItem{{"user-data", l.UserData}, {"block-project-ssh-keys", "TRUE"}}},
	}
	if s.PublicIPs {
		i.Interfaces[0].AccessConfigs = []accessConfig{{Name: "External NAT", Type: "ONE_TO_ONE_NAT"}}
	}
	if s.VMServiceAccount != "" {
		i.ServiceAccounts = []serviceAccount{{Email: s.VMServiceAccount, Scopes: []string{scope}}}
	}
	if l.Group != "" {
		i.Tags.Items = append(i.Tags.Items, p.groupTag(l.Group))
		i.ResourcePolicies = []string{string(p.regionPlace(o.Region)) + "/resourcePolicies/" + p.groupTag(l.Group)}
	}
	return i, nil
}

// describeScheduling returns what happens to a machine when its host needs maintenance or its capacity is wanted back.
// Spot machines are deleted then: a stopped one would cost money for its disk. Machines with GPUs and those of a group
// cannot move to another host.
func describeScheduling(o dstack.Offer, group string) *scheduling {
	if o.Spot {
		return &scheduling{ProvisioningModel: "SPOT", TerminationAction: "DELETE", OnHostMaintenance: "TERMINATE", AutomaticRestart: new(false)}
	}
	if len(o.Hardware.GPUs) > 0 || group != "" {
		return &scheduling{ProvisioningModel: "STANDARD", OnHostMaintenance: "TERMINATE", AutomaticRestart: new(true)}
	}
	return &scheduling{ProvisioningModel: "STANDARD"}
}

// isSpot reports whether the cloud may take a machine back.
func isSpot(i instance) bool { return i.Scheduling != nil && i.Scheduling.ProvisioningModel == "SPOT" }
