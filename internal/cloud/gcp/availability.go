package gcp

import (
	"context"
	"slices"
	"strings"

	"dstack/internal/cloud"
)

// readZones returns the zones that are up, by region.
func (p *Provider) readZones(ctx context.Context) (map[string][]string, error) {
	zones, err := list[zone](ctx, p, p.settings.ProjectID, "zones", "", "name,status", "list the zones of "+p.settings.ProjectID)
	if err != nil {
		return nil, err
	}
	byRegion := map[string][]string{}
	for _, z := range zones {
		if z.Status == "" || z.Status == "UP" {
			byRegion[regionOf(z.Name)] = append(byRegion[regionOf(z.Name)], z.Name)
		}
	}
	for _, names := range byRegion {
		slices.Sort(names)
	}
	return byRegion, nil
}

// readTypes returns the types of machines of each zone of a region.
func (p *Provider) readTypes(ctx context.Context, region string) (map[string][]machineType, error) {
	zones, err := p.zones.get(ctx, p.readZones)
	if err != nil {
		return nil, err
	}
	types := map[string][]machineType{}
	for _, z := range zones[region] {
		types[z], err = p.types.get(ctx, z, func(ctx context.Context) ([]machineType, error) {
			return list[machineType](ctx, p, p.settings.ProjectID, "zones/"+z+"/machineTypes", "",
				"name,guestCpus,memoryMb,isSharedCpu,architecture,accelerators,deprecated", "list the types of machines of "+z)
		})
		if err != nil {
			return nil, err
		}
	}
	return types, nil
}

// isUsable reports whether machines of a type are rented: types that share a CPU are too small, TPUs are not supported.
func (t machineType) isUsable() bool {
	return !t.IsShared && t.CPUs > 0 && !strings.HasPrefix(t.Name, "ct") && (t.Deprecated == nil || t.Deprecated.State == "" || t.Deprecated.State == "DEPRECATED")
}

// ListZones implements cloud.Availability. A subnet of GCP reaches all zones of its region.
func (p *Provider) ListZones(ctx context.Context, region string) (map[string][]string, error) {
	types, err := p.readTypes(ctx, region)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	offered := map[string][]string{}
	if len(types) > 0 && p.settings.Subnetworks[region] == "" {
		n, err := p.network.get(ctx, p.readNetwork)
		if err != nil {
			return nil, p.describeError(err, nil)
		}
		if p.checkNetwork(n, region) != nil {
			return offered, nil // CheckAccess and launches say why
		}
	}
	for z, list := range types {
		for _, t := range list {
			if t.isUsable() {
				offered[t.Name] = append(offered[t.Name], z)
			}
		}
	}
	for _, zones := range offered {
		slices.Sort(zones)
	}
	return offered, nil
}

// ListQuotas implements cloud.Availability. Spot machines count against the quotas of preemptible ones where the project
// has such, else against the same as others.
func (p *Provider) ListQuotas(ctx context.Context, region string) ([]cloud.Quota, error) {
	type quotas struct {
		Quotas []quota `json:"quotas"`
	}
	what := "read the quotas of " + region
	regional, err := read[quotas](ctx, p, p.settings.ProjectID, "regions/"+region, "quotas(metric,limit)", what)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	global, err := read[quotas](ctx, p, p.settings.ProjectID, "", "quotas(metric,limit)", what)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	return newQuotas(regional.Quotas, global.Quotas), nil
}
