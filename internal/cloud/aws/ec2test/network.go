package ec2test

import (
	"slices"
	"strconv"
	"strings"
)

type securityGroup struct {
	id, name, description string
	vpc                   *vpc
	tags                  map[string]string
	rules                 []rule
}

// rule lets traffic in.
type rule struct {
	protocol string
	from, to int
	cidr     string // or
	group    string // traffic of machines of this security group
}

type placementGroup struct {
	id, name, strategy string
	tags               map[string]string
}

// SecurityGroups returns the names of the security groups of a region, without the default ones.
func (s *Server) SecurityGroups(regionName string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, g := range s.regions[regionName].groups {
		if g.name != "default" {
			names = append(names, g.name)
		}
	}
	slices.Sort(names)
	return names
}

// PlacementGroups returns the names of the placement groups of a region.
func (s *Server) PlacementGroups(regionName string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedKeys(s.regions[regionName].placement)
}

func (s *Server) describeRegions(r *request, _ *region) ([]node, error) {
	names, all := r.params.list("RegionName"), r.params.isTrue("AllRegions")
	var items []node
	for _, name := range sortedKeys(s.regions) {
		if len(names) == 0 || slices.Contains(names, name) {
			items = append(items, group("item", text("regionName", name), text("regionEndpoint", "ec2."+name+".amazonaws.com"), text("optInStatus", "opt-in-not-required")))
		}
	}
	if all {
		items = append(items, group("item", text("regionName", "ap-east-1"), text("regionEndpoint", "ec2.ap-east-1.amazonaws.com"), text("optInStatus", "not-opted-in")))
	}
	return []node{set("regionInfo", items)}, nil
}

func (s *Server) describeZones(r *request, reg *region) ([]node, error) {
	f := r.params.readFilters()
	var items []node
	for _, zone := range reg.zones {
		ok, err := f.matches(nil, map[string][]string{"state": {"available"}, "zone-name": {zone}, "zone-type": {"availability-zone"}, "region-name": {reg.name}})
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, group("item", text("zoneName", zone), text("zoneState", "available"), text("regionName", reg.name), text("zoneType", "availability-zone")))
		}
	}
	return []node{set("availabilityZoneInfo", items)}, nil
}

func (s *Server) describeVPCs(r *request, reg *region) ([]node, error) {
	ids, f := r.params.list("VpcId"), r.params.readFilters()
	for _, id := range ids {
		if !slices.ContainsFunc(reg.vpcs, func(v *vpc) bool { return v.ID == id }) {
			return nil, fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
		}
	}
	var items []node
	for _, v := range reg.vpcs {
		tags := v.tags()
		ok, err := f.matches(tags, map[string][]string{
			"is-default": {strconv.FormatBool(v.IsDefault)}, "isDefault": {strconv.FormatBool(v.IsDefault)}, "vpc-id": {v.ID}, "state": {"available"},
		})
		if err != nil {
			return nil, err
		}
		if ok && (len(ids) == 0 || slices.Contains(ids, v.ID)) {
			items = append(items, group("item", text("vpcId", v.ID), text("state", "available"), text("cidrBlock", "172.31.0.0/16"),
				boolean("isDefault", v.IsDefault), tagSet(tags)))
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("vpcSet", items[from:to], next), nil
}

func (v *vpc) tags() map[string]string {
	if v.Name == "" {
		return nil
	}
	return map[string]string{"Name": v.Name}
}

func (s *Server) describeSubnets(r *request, reg *region) ([]node, error) {
	ids, f := r.params.list("SubnetId"), r.params.readFilters()
	var items []node
	for _, v := range reg.vpcs {
		for _, sub := range v.subnets {
			ok, err := f.matches(nil, map[string][]string{
				"vpc-id": {v.ID}, "subnet-id": {sub.ID}, "availability-zone": {sub.Zone}, "state": {"available"}, "default-for-az": {strconv.FormatBool(v.IsDefault)},
			})
			if err != nil {
				return nil, err
			}
			if ok && (len(ids) == 0 || slices.Contains(ids, sub.ID)) {
				items = append(items, group("item", text("subnetId", sub.ID), text("state", "available"), text("vpcId", v.ID), text("availabilityZone", sub.Zone),
					number("availableIpAddressCount", max(sub.Free, 0)), boolean("defaultForAz", v.IsDefault), boolean("mapPublicIpOnLaunch", v.IsDefault && sub.IsPublic)))
			}
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("subnetSet", items[from:to], next), nil
}

// describeRouteTables shows one table for each VPC, which is the main one and public if all its subnets are, and one
// more for each subnet that differs from it.
func (s *Server) describeRouteTables(r *request, reg *region) ([]node, error) {
	f := r.params.readFilters()
	var items []node
	for _, v := range reg.vpcs {
		isPublic := !slices.ContainsFunc(v.subnets, func(sub *subnet) bool { return !sub.IsPublic })
		tables := []node{routeTable(v, "", isPublic, false)}
		for _, sub := range v.subnets {
			if sub.IsPublic != isPublic || sub.HasNAT {
				tables = append(tables, routeTable(v, sub.ID, sub.IsPublic, sub.HasNAT))
			}
		}
		ok, err := f.matches(nil, map[string][]string{"vpc-id": {v.ID}})
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, tables...)
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("routeTableSet", items[from:to], next), nil
}

func routeTable(v *vpc, subnetID string, isPublic, hasNAT bool) node {
	id := "rtb-" + strings.TrimPrefix(v.ID, "vpc-")
	association := group("item", text("routeTableAssociationId", "rtbassoc-"+id[4:]), text("routeTableId", id), boolean("main", true))
	if subnetID != "" {
		id = "rtb-" + strings.TrimPrefix(subnetID, "subnet-")
		association = group("item", text("routeTableAssociationId", "rtbassoc-"+id[4:]), text("routeTableId", id), boolean("main", false), text("subnetId", subnetID))
	}
	routes := []node{group("item", text("destinationCidrBlock", "172.31.0.0/16"), text("gatewayId", "local"), text("state", "active"))}
	switch {
	case isPublic:
		routes = append(routes, group("item", text("destinationCidrBlock", "0.0.0.0/0"), text("gatewayId", "igw-"+id[4:]), text("state", "active")))
	case hasNAT:
		routes = append(routes, group("item", text("destinationCidrBlock", "0.0.0.0/0"), text("natGatewayId", "nat-"+id[4:]), text("state", "active")))
	}
	return group("item", text("routeTableId", id), text("vpcId", v.ID), set("routeSet", routes), set("associationSet", []node{association}))
}

func (r *region) findGroup(v *vpc, name string) *securityGroup {
	for _, g := range r.groups {
		if g.vpc == v && g.name == name {
			return g
		}
	}
	return nil
}

func (s *Server) describeSecurityGroups(r *request, reg *region) ([]node, error) {
	ids, f := r.params.list("GroupId"), r.params.readFilters()
	for _, id := range ids {
		if reg.groups[id] == nil {
			return nil, fail("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
		}
	}
	var items []node
	for _, id := range sortedKeys(reg.groups) {
		g := reg.groups[id]
		ok, err := f.matches(g.tags, map[string][]string{"vpc-id": {g.vpc.ID}, "group-name": {g.name}, "group-id": {id}})
		if err != nil {
			return nil, err
		}
		if !ok || len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		var rules []node
		for _, one := range g.rules {
			rules = append(rules, one.node())
		}
		items = append(items, group("item", text("ownerId", s.options.Account), text("groupId", id), text("groupName", g.name),
			text("groupDescription", g.description), text("vpcId", g.vpc.ID), set("ipPermissions", rules), tagSet(g.tags)))
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("securityGroupInfo", items[from:to], next), nil
}

func (one rule) node() node {
	n := group("item", text("ipProtocol", one.protocol))
	if one.protocol != "-1" {
		n.children = append(n.children, number("fromPort", one.from), number("toPort", one.to))
	}
	var ranges, ranges6, groups []node
	switch {
	case strings.Contains(one.cidr, ":"):
		ranges6 = []node{group("item", text("cidrIpv6", one.cidr))}
	case one.cidr != "":
		ranges = []node{group("item", text("cidrIp", one.cidr))}
	}
	if one.group != "" {
		groups = []node{group("item", text("groupId", one.group))}
	}
	n.children = append(n.children, set("ipRanges", ranges), set("ipv6Ranges", ranges6), set("groups", groups))
	return n
}

func (s *Server) createSecurityGroup(r *request, reg *region) ([]node, error) {
	p := r.params
	name, description, id := p.get("GroupName"), p.get("GroupDescription"), p.get("VpcId")
	tags, err := p.readTags("security-group")
	i := slices.IndexFunc(reg.vpcs, func(v *vpc) bool { return v.ID == id || id == "" && v.IsDefault })
	switch {
	case err != nil:
		return nil, err
	case name == "" || description == "":
		return nil, fail("MissingParameter", "The request must contain the parameters GroupName and GroupDescription")
	case len(name) > 255 || strings.HasPrefix(name, "sg-"):
		return nil, fail("InvalidParameterValue", "Invalid value '%s' for groupName", name)
	case i < 0:
		return nil, fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
	case reg.findGroup(reg.vpcs[i], name) != nil:
		return nil, fail("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, reg.vpcs[i].ID)
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	g := &securityGroup{id: s.newID("sg"), name: name, description: description, vpc: reg.vpcs[i], tags: tags}
	reg.groups[g.id] = g
	return []node{boolean("return", true), text("groupId", g.id), tagSet(tags)}, nil
}

func (s *Server) authorizeIngress(r *request, reg *region) ([]node, error) {
	g, rules, err := s.readRules(r, reg)
	if err != nil {
		return nil, err
	}
	for _, one := range rules {
		if slices.Contains(g.rules, one) {
			return nil, fail("InvalidPermission.Duplicate", "the specified rule \"peer: %s%s, %s, from port: %d, to port: %d, ALLOW\" already exists",
				one.cidr, one.group, one.protocol, one.from, one.to)
		}
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	g.rules = append(g.rules, rules...)
	return []node{boolean("return", true)}, nil
}

func (s *Server) revokeIngress(r *request, reg *region) ([]node, error) {
	g, rules, err := s.readRules(r, reg)
	if err != nil {
		return nil, err
	}
	for _, one := range rules {
		if !slices.Contains(g.rules, one) {
			return nil, fail("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
		}
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	g.rules = slices.DeleteFunc(g.rules, func(one rule) bool { return slices.Contains(rules, one) })
	return []node{boolean("return", true)}, nil
}

// readRules reads the security group and the rules of a request, one for each source.
func (s *Server) readRules(r *request, reg *region) (*securityGroup, []rule, error) {
	p := r.params
	g := reg.groups[p.get("GroupId")]
	if g == nil {
		return nil, nil, fail("InvalidGroup.NotFound", "The security group '%s' does not exist", p.get("GroupId"))
	}
	var rules []rule
	for _, prefix := range p.groups("IpPermissions") {
		base := rule{protocol: p.get(prefix + "IpProtocol"), from: p.getInt(prefix+"FromPort", -1), to: p.getInt(prefix+"ToPort", -1)}
		for list, field := range map[string]string{"IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6", "Groups": "GroupId"} {
			for _, source := range p.groups(prefix + list) {
				one, value := base, p.get(source+field)
				p.get(source + "Description")
				if list != "Groups" {
					one.cidr = value
				} else if one.group = value; reg.groups[value] == nil {
					return nil, nil, fail("InvalidGroup.NotFound", "The security group '%s' does not exist", value)
				}
				rules = append(rules, one)
			}
		}
	}
	if len(rules) == 0 {
		return nil, nil, fail("MissingParameter", "The request must contain the parameter ipPermissions")
	}
	return g, rules, nil
}

func (s *Server) deleteSecurityGroup(r *request, reg *region) ([]node, error) {
	id := r.params.get("GroupId")
	g := reg.groups[id]
	if g == nil {
		return nil, fail("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
	}
	for _, i := range reg.instances {
		if i.State != "terminated" && slices.Contains(i.SecurityGroups, id) {
			return nil, fail("DependencyViolation", "resource %s has a dependent object", id)
		}
	}
	for _, other := range reg.groups {
		if other != g && slices.ContainsFunc(other.rules, func(one rule) bool { return one.group == id }) {
			return nil, fail("DependencyViolation", "resource %s has a dependent object", id)
		}
	}
	if g.name == "default" {
		return nil, fail("CannotDelete", "the specified group: %q name: \"default\" cannot be deleted by a user", id)
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	delete(reg.groups, id)
	return []node{boolean("return", true), text("groupId", id)}, nil
}

func (s *Server) describePlacementGroups(r *request, reg *region) ([]node, error) {
	names, f := r.params.list("GroupName"), r.params.readFilters()
	for _, name := range names {
		if reg.placement[name] == nil {
			return nil, fail("InvalidPlacementGroup.Unknown", "The Placement Group '%s' is unknown.", name)
		}
	}
	var items []node
	for _, name := range sortedKeys(reg.placement) {
		g := reg.placement[name]
		ok, err := f.matches(g.tags, map[string][]string{"group-name": {name}, "state": {"available"}, "strategy": {g.strategy}})
		if err != nil {
			return nil, err
		}
		if ok && (len(names) == 0 || slices.Contains(names, name)) {
			items = append(items, g.node())
		}
	}
	return []node{set("placementGroupSet", items)}, nil
}

func (g *placementGroup) node() node {
	return group("item", text("groupName", g.name), text("groupId", g.id), text("strategy", g.strategy), text("state", "available"), tagSet(g.tags))
}

func (s *Server) createPlacementGroup(r *request, reg *region) ([]node, error) {
	name, strategy := r.params.get("GroupName"), r.params.get("Strategy")
	tags, err := r.params.readTags("placement-group")
	switch {
	case err != nil:
		return nil, err
	case name == "" || !slices.Contains([]string{"cluster", "spread", "partition"}, strategy):
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter strategy, or the name %q, is invalid", strategy, name)
	case reg.placement[name] != nil:
		return nil, fail("InvalidPlacementGroup.Duplicate", "The placement group '%s' already exists.", name)
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	g := &placementGroup{id: s.newID("pg"), name: name, strategy: strategy, tags: tags}
	reg.placement[name] = g
	return []node{boolean("return", true), group("placementGroup", g.node().children...)}, nil
}

func (s *Server) deletePlacementGroup(r *request, reg *region) ([]node, error) {
	name := r.params.get("GroupName")
	if reg.placement[name] == nil {
		return nil, fail("InvalidPlacementGroup.Unknown", "The Placement Group '%s' is unknown.", name)
	}
	for _, i := range reg.instances {
		if i.PlacementGroup == name && i.State != "terminated" {
			return nil, fail("InvalidPlacementGroup.InUse", "The placement group '%s' is in use and may not be deleted.", name)
		}
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	delete(reg.placement, name)
	return []node{boolean("return", true)}, nil
}
