package gcp

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// network is what machines need to know of the VPC.
type network struct {
	subnets map[string][]string // names by region, ordered
	nat     map[string]bool     // regions with a NAT gateway; nil: nobody asked
}

// readNetwork reads the subnets of the VPC, and where machines without public addresses reach the internet.
func (p *Provider) readNetwork(ctx context.Context) (network, error) {
	s := p.settings
	project, n := s.networkProject(), network{subnets: map[string][]string{}}
	isOurs := func(link string) bool { return lastPart(link) == s.networkName() && projectOf(link) == project }
	subnets, err := listEverywhere[subnetwork](ctx, p, project, "subnetworks", "", "name,network,region,purpose", "list the subnets of "+project)
	if err != nil {
		return n, err
	}
	for _, sub := range subnets {
		if isOurs(sub.Network) && (sub.Purpose == "" || strings.HasPrefix(sub.Purpose, "PRIVATE") && !strings.Contains(sub.Purpose, "NAT") && !strings.Contains(sub.Purpose, "CONNECT")) {
			region := lastPart(sub.Region)
			n.subnets[region] = append(n.subnets[region], sub.Name)
		}
	}
	for _, names := range n.subnets {
		slices.Sort(names)
	}
	if s.PublicIPs || s.SkipNATCheck {
		return n, nil
	}
	n.nat = map[string]bool{}
	routers, err := listEverywhere[router](ctx, p, project, "routers", "", "network,region,nats", "list the routers of "+project)
	if err != nil {
		return n, err
	}
	for _, r := range routers {
		if isOurs(r.Network) && len(r.NATs) > 0 {
			n.nat[lastPart(r.Region)] = true
		}
	}
	return n, nil
}

// findSubnet returns the path of the subnet for the machines of a region.
func (p *Provider) findSubnet(ctx context.Context, region string) (string, error) {
	s := p.settings
	name := s.Subnetworks[region]
	if name == "" || !s.PublicIPs && !s.SkipNATCheck {
		n, err := p.network.get(ctx, p.readNetwork)
		if err != nil {
			return "", p.describeError(err, nil)
		}
		if problem := p.checkNetwork(n, region); problem != nil {
			p.network.forget()
			return "", problem
		}
		if name == "" {
			name = n.subnets[region][0]
		}
	}
	return "projects/" + s.networkProject() + "/regions/" + region + "/subnetworks/" + name, nil
}

// checkNetwork returns why machines of a region have no network; nil: they have one.
func (p *Provider) checkNetwork(n network, region string) *dstack.Error {
	s := p.settings
	message, hint, scope := "", "", dstack.ScopePlace
	switch {
	case s.Subnetworks[region] == "" && len(n.subnets) == 0:
		message = fmt.Sprintf("the VPC %s of the project %s has no subnets, or does not exist", s.networkName(), s.networkProject())
		hint, scope = "correct `vpc_name` in config.yml, or add subnets to the VPC", dstack.ScopeBackend
	case s.Subnetworks[region] == "" && len(n.subnets[region]) == 0:
		message = fmt.Sprintf("the VPC %s has no subnet in %s", s.networkName(), region)
		hint = fmt.Sprintf("add one: gcloud compute networks subnets create NAME --network %s --region %s --range 10.0.0.0/20, or remove the region from `regions`", s.networkName(), region)
	case n.nat != nil && !n.nat[region]:
		message = fmt.Sprintf("machines of %s would not reach the internet: the VPC %s has no NAT gateway there, and `public_ips` is false", region, s.networkName())
		hint = "add a Cloud NAT gateway, or write nat_check: false if they have another way"
	default:
		return nil
	}
	failure := &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: scope, Message: message}
	return &dstack.Error{Kind: dstack.NoCapacity, Message: message, Hint: hint, Cause: failure}
}

// ruleAge is how long a rule of the firewall is believed to exist.
const ruleAge = 10 * time.Minute

// machineTag is the network tag of all machines of the installation.
func (p *Provider) machineTag() string { return p.objectPrefix() + "machine" }

// groupTag is the network tag of the machines of a group.
func (p *Provider) groupTag(group string) string {
	return p.objectPrefix() + "group-" + digest(group, 12)
}

// sshRule is the rule that lets SSH in.
func (p *Provider) sshRule() firewall {
	s := p.settings
	ranges := []string{"0.0.0.0/0"}
	if len(s.SSHSources) > 0 {
		ranges = nil
		for _, r := range s.SSHSources {
			ranges = append(ranges, r.String())
		}
		slices.Sort(ranges)
	}
	return firewall{
		Name:        p.objectPrefix() + "ssh-" + digest(s.networkName()+" "+strings.Join(ranges, " "), 8),
		Description: "lets dstack reach the SSH servers of its machines", Network: p.networkPath(), Direction: "INGRESS",
		Allowed: []allowedPorts{{Protocol: "tcp", Ports: []string{"22"}}}, SourceRanges: ranges, TargetTags: []string{p.machineTag()},
	}
}

// groupRule is the rule that lets the machines of a group reach each other.
func (p *Provider) groupRule(group string) firewall {
	tag := p.groupTag(group)
	return firewall{
		Name: tag, Description: "lets the machines of a group reach each other", Network: p.networkPath(), Direction: "INGRESS",
		Allowed: []allowedPorts{{Protocol: "all"}}, SourceTags: []string{tag}, TargetTags: []string{tag},
	}
}

func (p *Provider) networkPath() string {
	return "projects/" + p.settings.networkProject() + "/global/networks/" + p.settings.networkName()
}

// ensureRule makes a rule of the firewall, if it does not exist. Repeated, it makes one rule. In a shared VPC whose
// firewall others manage, a missing right is logged, and machines are rented nevertheless.
func (p *Provider) ensureRule(ctx context.Context, rule firewall) error {
	if err := p.rulesTurn.acquire(ctx); err != nil {
		return p.describeError(&connectionError{what: "let SSH reach machines", cause: err}, nil)
	}
	defer p.rulesTurn.release()
	if time.Since(p.rules[rule.Name]) < ruleAge {
		return nil
	}
	project := p.settings.networkProject()
	what := "let SSH reach machines (firewall rule " + rule.Name + ")"
	_, err := read[firewall](ctx, p, project, "global/firewalls/"+rule.Name, "name", what)
	if hasMeaning(err, meansNotFound) {
		at := operationPlace("projects/" + project + "/global")
		_, err = p.change(ctx, call{method: http.MethodPost, url: p.client.compute + string(at) + "/firewalls", body: rule, what: what}, at)
		if hasMeaning(err, meansExists) {
			err = nil
		}
	}
	if hasMeaning(err, meansForbidden) && p.settings.VPCProjectID != "" {
		p.log.Warn("dstack may not change the firewall of the shared VPC: its administrator must let SSH reach the machines",
			"project", project, "tag", p.machineTag(), "error", err)
		err = nil
	}
	if err == nil {
		p.rules[rule.Name] = time.Now()
	}
	return p.describeError(err, nil)
}
