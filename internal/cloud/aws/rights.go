package aws

// Right is a permission that dstack needs in an account.
type Right struct {
	Action     string // ec2:RunInstances
	Purpose    string // for the user
	IsOptional bool   // dstack does less without it
}

// Rights are the rights that dstack needs, in the order of its use. The guide of clouds is written from this table.
var Rights = []Right{
	{"sts:GetCallerIdentity", "check the credentials", false},
	{"ec2:DescribeRegions", "find the regions of the account", true},
	{"ec2:DescribeVpcs", "find the network", false},
	{"ec2:DescribeSubnets", "find the network", false},
	{"ec2:DescribeRouteTables", "find the subnets with a way to the internet", false},
	{"ec2:DescribeImages", "find the image that machines boot from", false},
	{"ec2:DescribeInstanceTypes", "list types of machines, if the catalogue cannot be downloaded", true},
	{"ec2:DescribeInstanceTypeOfferings", "know which zone has which type", false},
	{"ec2:DescribeSpotPriceHistory", "list spot prices, if the catalogue cannot be downloaded", true},
	{"pricing:GetProducts", "list prices, if the catalogue cannot be downloaded", true},
	{"servicequotas:ListServiceQuotas", "show in plans what the quotas do not allow", true},
	{"ec2:RunInstances", "rent machines", false},
	{"ec2:CreateTags", "mark machines, disks and groups as those of dstack", false},
	{"ec2:DescribeInstances", "watch machines", false},
	{"ec2:TerminateInstances", "give machines back", false},
	{"ec2:DescribeSecurityGroups", "allow SSH to machines", false},
	{"ec2:CreateSecurityGroup", "allow SSH to machines", false},
	{"ec2:AuthorizeSecurityGroupIngress", "allow SSH to machines", false},
	{"ec2:RevokeSecurityGroupIngress", "allow SSH from nowhere else, if ssh_from changes", false},
	{"ec2:DeleteSecurityGroup", "remove what fleets with placement: cluster leave", true},
	{"ec2:DescribePlacementGroups", "fleets with placement: cluster", true},
	{"ec2:CreatePlacementGroup", "fleets with placement: cluster", true},
	{"ec2:DeletePlacementGroup", "remove what fleets with placement: cluster leave", true},
	{"ec2:DescribeVolumes", "volumes", true},
	{"ec2:CreateVolume", "volumes", true},
	{"ec2:AttachVolume", "volumes", true},
	{"ec2:DetachVolume", "volumes", true},
	{"ec2:DeleteVolume", "volumes", true},
	{"iam:PassRole", "give machines the role of iam_instance_profile", true},
	{"iam:CreateServiceLinkedRole", "rent the first spot machine of an account", true},
}
