package gcp

import (
	"context"
	"net/http"
	"strings"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// The kinds of leftovers.
const (
	kindDisk   = "disk"
	kindRule   = "firewall rule"
	kindPolicy = "placement policy"
)

// ListLeftovers implements cloud.Leftovers: disks that machines booted from, rules of the firewall and placement policies.
func (p *Provider) ListLeftovers(ctx context.Context) ([]cloud.Leftover, error) {
	project := p.settings.ProjectID
	machines, err := listEverywhere[instance](ctx, p, project, "instances", p.ownFilter(), instanceFields+",tags", "list the machines of "+project)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	used := map[string]bool{}
	for _, i := range machines {
		for _, policy := range i.ResourcePolicies {
			used[lastPart(policy)] = true
		}
		if i.Tags != nil {
			for _, tag := range i.Tags.Items {
				used[tag] = true
			}
		}
	}
	var left []cloud.Leftover
	for _, find := range []func(context.Context, map[string]bool) ([]cloud.Leftover, error){p.listUnusedDisks, p.listUnusedRules, p.listUnusedPolicies} {
		found, err := find(ctx, used)
		if err != nil {
			return nil, p.describeError(err, nil)
		}
		left = append(left, found...)
	}
	return left, nil
}

// listUnusedDisks returns disks of machines that do not exist: GCP deletes them with their machines, except when a
// machine could not be made.
func (p *Provider) listUnusedDisks(ctx context.Context, _ map[string]bool) ([]cloud.Leftover, error) {
	project := p.settings.ProjectID
	found, err := listEverywhere[disk](ctx, p, project, "disks", p.ownFilter(), diskFields, "list the disks of "+project)
	var left []cloud.Leftover
	for _, d := range found {
		if p.isOwn(d.Labels) && d.Labels[labelRole] == roleBoot && len(d.Users) == 0 && d.Status != "DELETING" {
			zone := lastPart(d.Zone)
			left = append(left, cloud.Leftover{Kind: kindDisk, Ref: d.Name, Region: regionOf(zone), Zone: zone, CreatedAt: parseTime(d.CreationTimestamp)})
		}
	}
	return left, err
}

// listUnusedRules returns the rules of the firewall that concern no machine.
func (p *Provider) listUnusedRules(ctx context.Context, used map[string]bool) ([]cloud.Leftover, error) {
	project := p.settings.networkProject()
	found, err := list[firewall](ctx, p, project, "global/firewalls", "name eq "+p.objectPrefix()+".*", "name,targetTags,creationTimestamp", "list the firewall rules of "+project)
	if hasMeaning(err, meansForbidden) && p.settings.VPCProjectID != "" {
		return nil, nil // others manage the firewall
	}
	var left []cloud.Leftover
	for _, rule := range found {
		if !strings.HasPrefix(rule.Name, p.objectPrefix()) || len(rule.TargetTags) > 0 && used[rule.TargetTags[0]] {
			continue
		}
		left = append(left, cloud.Leftover{Kind: kindRule, Ref: rule.Name, CreatedAt: parseTime(rule.CreatedAt), IsShared: rule.Name == p.sshRule().Name})
	}
	return left, err
}

// listUnusedPolicies returns the placement policies that no machine has.
func (p *Provider) listUnusedPolicies(ctx context.Context, used map[string]bool) ([]cloud.Leftover, error) {
	project := p.settings.ProjectID
	found, err := listEverywhere[resourcePolicy](ctx, p, project, "resourcePolicies", "name eq "+p.objectPrefix()+".*", "name,region,creationTimestamp", "list the placement policies of "+project)
	var left []cloud.Leftover
	for _, policy := range found {
		if strings.HasPrefix(policy.Name, p.objectPrefix()) && !used[policy.Name] {
			left = append(left, cloud.Leftover{Kind: kindPolicy, Ref: policy.Name, Region: lastPart(policy.Region), CreatedAt: parseTime(policy.CreatedAt)})
		}
	}
	return left, err
}

// DeleteLeftover implements cloud.Leftovers.
func (p *Provider) DeleteLeftover(ctx context.Context, l cloud.Leftover) error {
	var at operationPlace
	kind := ""
	switch l.Kind {
	case kindDisk:
		return p.deleteDisk(ctx, l.Zone, l.Ref)
	case "machine":
		return p.Terminate(ctx, []cloud.Machine{{Ref: l.Ref, Region: l.Region, Zone: l.Zone}})
	case kindRule:
		at, kind = operationPlace("projects/"+p.settings.networkProject()+"/global"), "firewalls"
	case kindPolicy:
		at, kind = p.regionPlace(l.Region), "resourcePolicies"
	default:
		return &dstack.Error{Kind: dstack.Invalid, Message: "GCP has no " + l.Kind}
	}
	if !strings.HasPrefix(l.Ref, p.objectPrefix()) {
		return &dstack.Error{Kind: dstack.Forbidden, Message: "the " + l.Kind + " " + l.Ref + " does not belong to this installation"}
	}
	if err := p.rulesTurn.acquire(ctx); err != nil {
		return p.describeError(&connectionError{what: "delete the " + l.Kind + " " + l.Ref, cause: err}, nil)
	}
	delete(p.rules, l.Ref) // the next launch looks for it
	p.rulesTurn.release()
	what := "delete the " + l.Kind + " " + l.Ref
	_, err := p.change(ctx, call{method: http.MethodDelete, url: p.client.compute + string(at) + "/" + kind + "/" + l.Ref, what: what}, at)
	if hasMeaning(err, meansNotFound) {
		return nil
	}
	return p.describeError(err, nil)
}
