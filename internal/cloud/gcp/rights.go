package gcp

import "slices"

// Right is a permission that the account needs, in words for documents.
type Right struct {
	Name string // compute.instances.create
	For  string // what needs it: rent machines
	Role string // the smallest predefined role that has it
}

// Rights are the permissions that the account needs in the project. CheckAccess asks for all of them.
func Rights() []Right { return slices.Clone(rights) }

const (
	instanceAdmin = "roles/compute.instanceAdmin.v1"
	securityAdmin = "roles/compute.securityAdmin"
)

var rights = []Right{
	{"compute.projects.get", "see the quotas of the project", instanceAdmin},
	{"compute.regions.get", "see the quotas of regions", instanceAdmin},
	{"compute.zones.list", "see the zones", instanceAdmin},
	{"compute.machineTypes.list", "see which zone offers which type", instanceAdmin},
	{"compute.acceleratorTypes.list", "see which zone offers which GPU", instanceAdmin},
	{"compute.instances.create", "rent machines", instanceAdmin},
	{"compute.instances.setMetadata", "rent machines", instanceAdmin},
	{"compute.instances.setLabels", "rent machines", instanceAdmin},
	{"compute.instances.setTags", "rent machines", instanceAdmin},
	{"compute.instances.get", "see machines", instanceAdmin},
	{"compute.instances.list", "see machines", instanceAdmin},
	{"compute.instances.delete", "give machines back", instanceAdmin},
	{"compute.zoneOperations.get", "see how requests end", instanceAdmin},
	{"compute.zoneOperations.list", "see why machines ended", instanceAdmin},
	{"compute.globalOperations.list", "see why machines ended", instanceAdmin},
	{"compute.disks.create", "make volumes and the disks of machines", instanceAdmin},
	{"compute.disks.setLabels", "make volumes and the disks of machines", instanceAdmin},
	{"compute.disks.get", "see volumes", instanceAdmin},
	{"compute.disks.list", "see volumes", instanceAdmin},
	{"compute.disks.delete", "delete volumes", instanceAdmin},
	{"compute.disks.use", "attach volumes", instanceAdmin},
	{"compute.instances.attachDisk", "attach volumes", instanceAdmin},
	{"compute.instances.detachDisk", "detach volumes", instanceAdmin},
	{"compute.resourcePolicies.create", "place the machines of a cluster close to each other", instanceAdmin},
	{"compute.resourcePolicies.get", "place the machines of a cluster close to each other", instanceAdmin},
	{"compute.regionOperations.get", "place the machines of a cluster close to each other", instanceAdmin},
	{"compute.resourcePolicies.use", "place the machines of a cluster close to each other", instanceAdmin},
	{"compute.resourcePolicies.list", "find placement policies that nothing uses", instanceAdmin},
	{"compute.resourcePolicies.delete", "delete placement policies that nothing uses", instanceAdmin},
}

// networkRights are needed in the project of the network, which may be another one.
var networkRights = []Right{
	{"compute.subnetworks.list", "find the subnets of the VPC", instanceAdmin},
	{"compute.subnetworks.use", "rent machines in a subnet", instanceAdmin},
	{"compute.subnetworks.useExternalIp", "give machines public addresses", instanceAdmin},
	{"compute.routers.list", "see where machines without public addresses reach the internet", securityAdmin},
	{"compute.firewalls.list", "find the rules that let SSH in", securityAdmin},
	{"compute.firewalls.get", "find the rules that let SSH in", securityAdmin},
	{"compute.firewalls.create", "let SSH in", securityAdmin},
	{"compute.globalOperations.get", "let SSH in", securityAdmin},
	{"compute.firewalls.delete", "delete rules that nothing uses", securityAdmin},
	{"compute.networks.updatePolicy", "let SSH in", securityAdmin},
}

// isNeeded reports whether settings make use of a permission.
func (r Right) isNeeded(s Settings) bool {
	switch r.Name {
	case "compute.subnetworks.useExternalIp":
		return s.PublicIPs
	case "compute.routers.list":
		return !s.PublicIPs && !s.SkipNATCheck
	}
	return true
}

// NetworkRights are the permissions that the account needs in the project of the network.
func NetworkRights() []Right { return slices.Clone(networkRights) }

const rightsHint = "grant it the roles " + instanceAdmin + " and " + securityAdmin + " in the project"

// hintForRight returns which role has a permission.
func hintForRight(name string) string {
	for _, table := range [][]Right{rights, networkRights} {
		for _, r := range table {
			if r.Name == name {
				return "grant it the role " + r.Role + " in the project, or a role of your own that has the permission"
			}
		}
	}
	return "grant it a role that has the permission"
}
