package aws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/dstack"
)

type filter = types.Filter

// network is where machines of a region are: a VPC, and its subnets that have a way to the internet.
type network struct {
	vpc     string
	subnets map[string][]subnet // by zone
}

type subnet struct {
	id   string
	free int // addresses
}

const (
	networkTime = 10 * time.Minute // how long the network of a region is kept
	enoughFree  = 16               // addresses: a subnet with fewer is used last
)

// zones returns the zones that the network reaches.
func (n network) zones() []string {
	zones := make([]string, 0, len(n.subnets))
	for zone := range n.subnets {
		zones = append(zones, zone)
	}
	slices.Sort(zones)
	return zones
}

// choose returns the subnet of a machine in a zone. A repeated launch gets the same one as long as the network is kept.
func (n network) choose(zone string) (string, error) {
	found := n.subnets[zone]
	if len(found) == 0 {
		return "", newFailure(dstack.NoCapacity, nil, dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Zones: n.zones(),
			Message: fmt.Sprintf("aws: %s has no usable subnet in %s, only in %s", n.vpc, zone, strings.Join(n.zones(), ", "))}, "")
	}
	return found[0].id, nil
}

// zoneOf returns the zone of an offer. One without a zone gets the first one of the network that has the type, or simply
// the first one if that cannot be asked.
func (p *Provider) zoneOf(ctx context.Context, n network, o dstack.Offer) string {
	if o.Zone != "" {
		return o.Zone
	}
	if zones, err := p.ListZones(ctx, o.Region); err == nil && len(zones[o.Type]) > 0 {
		return zones[o.Type][0]
	}
	return n.zones()[0]
}

// findNetwork returns the network of a region.
func (p *Provider) findNetwork(ctx context.Context, region string) (network, error) {
	return p.networks.get(ctx, region, networkTime, func(ctx context.Context) (network, error) {
		if err := p.checkRegion(ctx, region); err != nil {
			return network{}, err
		}
		vpc, isDefault, err := p.findVPC(ctx, region)
		if err != nil {
			return network{}, err
		}
		routes, err := p.listRoutes(ctx, region, vpc)
		if err != nil {
			return network{}, err
		}
		subnets, err := p.listSubnets(ctx, region, vpc)
		if err != nil {
			return network{}, err
		}
		n := network{vpc: vpc, subnets: map[string][]subnet{}}
		for _, s := range subnets {
			zone := sdk.ToString(s.AvailabilityZone)
			isUsable := routes.reaches(sdk.ToString(s.SubnetId), p.settings.PublicIPs) ||
				p.settings.PublicIPs && isDefault && sdk.ToBool(s.MapPublicIpOnLaunch)
			if isUsable && isPlainZone(region, zone) {
				n.subnets[zone] = append(n.subnets[zone], subnet{sdk.ToString(s.SubnetId), int(sdk.ToInt32(s.AvailableIpAddressCount))})
			}
		}
		for _, list := range n.subnets {
			slices.SortFunc(list, func(a, b subnet) int {
				return cmp.Or(cmp.Compare(min(b.free, enoughFree), min(a.free, enoughFree)), cmp.Compare(a.id, b.id))
			})
		}
		return n, p.checkSubnets(region, n, len(subnets))
	})
}

// checkSubnets says why a network has no usable subnet.
func (p *Provider) checkSubnets(region string, n network, all int) error {
	switch {
	case len(n.subnets) > 0:
		return nil
	case all == 0:
		return placeError(region, n.vpc+" has no subnet", "add a subnet to the VPC, or remove the region from regions of the aws backend")
	case p.settings.PublicIPs:
		return placeError(region, fmt.Sprintf("none of the %d subnets of %s has a route to an internet gateway", all, n.vpc),
			"add an internet gateway and a route to it, or write public_ips: false if the server reaches the private addresses")
	}
	return placeError(region, fmt.Sprintf("none of the %d subnets of %s has a route to the internet without public addresses", all, n.vpc),
		"add a NAT gateway and a route to it, or remove public_ips: false")
}

// isPlainZone reports whether a zone is not a local zone or one of a telephone network: those have other disks and types.
func isPlainZone(region, zone string) bool {
	letter, found := strings.CutPrefix(zone, region)
	return found && len(letter) == 1
}

// findVPC returns the network that the configuration names.
func (p *Provider) findVPC(ctx context.Context, region string) (id string, isDefault bool, err error) {
	in := &ec2.DescribeVpcsInput{}
	name, hint := "the account has no default VPC there", "create one with: aws ec2 create-default-vpc --region "+region+"; or add vpc_ids"
	switch {
	case p.settings.VPCIDs[region] != "":
		in.VpcIds = []string{p.settings.VPCIDs[region]}
		name, hint = "there is no VPC "+p.settings.VPCIDs[region], "correct vpc_ids of the aws backend"
	case p.settings.VPCName != "":
		in.Filters = []filter{textFilter("tag:Name", p.settings.VPCName)}
		name, hint = "there is no VPC with the name "+p.settings.VPCName, "give it the tag Name, or use vpc_ids of the aws backend"
	case !p.settings.DefaultVPCs:
		return "", false, placeError(region, "vpc_ids has no VPC for it, and default_vpcs is false", "add it to vpc_ids of the aws backend")
	default:
		in.Filters = []filter{textFilter("is-default", "true")}
	}
	var found []types.Vpc
	err = p.read(ctx, region, "DescribeVpcs", func(ctx context.Context, client *ec2.Client) error {
		out, err := client.DescribeVpcs(ctx, in)
		if err == nil {
			found = out.Vpcs
		}
		return err
	})
	switch {
	case err != nil && !means(err, meansPlace) && !means(err, meansGone):
		return "", false, err
	case len(found) == 0:
		return "", false, placeError(region, name, hint)
	case len(found) > 1:
		return "", false, placeError(region, fmt.Sprintf("%d VPCs have the name %s", len(found), p.settings.VPCName), "use vpc_ids of the aws backend")
	}
	return sdk.ToString(found[0].VpcId), sdk.ToBool(found[0].IsDefault), nil
}

func (p *Provider) listSubnets(ctx context.Context, region, vpc string) ([]types.Subnet, error) {
	var found []types.Subnet
	err := p.readPages(ctx, region, "DescribeSubnets", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		page, err := client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []filter{textFilter("vpc-id", vpc)}, NextToken: token})
		if err != nil {
			return nil, err
		}
		for _, s := range page.Subnets {
			if s.State == "" || s.State == types.SubnetStateAvailable {
				found = append(found, s)
			}
		}
		return page.NextToken, nil
	})
	return found, err
}

// routes are the ways out of the subnets of a network.
type routes struct {
	main     wayOut
	bySubnet map[string]wayOut
}

// wayOut is how packets for the internet leave a subnet.
type wayOut string

const (
	noWayOut   wayOut = ""
	publicWay  wayOut = "internet gateway" // for machines with public addresses
	privateWay wayOut = "NAT"              // for machines without
	everywhere        = "0.0.0.0/0"
)

// reaches reports whether machines of a subnet reach the internet.
func (r routes) reaches(subnet string, havePublicIPs bool) bool {
	way, isOwn := r.bySubnet[subnet]
	if !isOwn {
		way = r.main
	}
	if havePublicIPs {
		return way == publicWay
	}
	return way == privateWay
}

func (p *Provider) listRoutes(ctx context.Context, region, vpc string) (routes, error) {
	r := routes{bySubnet: map[string]wayOut{}}
	err := p.readPages(ctx, region, "DescribeRouteTables", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		page, err := client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []filter{textFilter("vpc-id", vpc)}, NextToken: token})
		if err != nil {
			return nil, err
		}
		for _, table := range page.RouteTables {
			r.add(table)
		}
		return page.NextToken, nil
	})
	return r, err
}

func (r *routes) add(table types.RouteTable) {
	way := noWayOut
	for _, route := range table.Routes {
		if sdk.ToString(route.DestinationCidrBlock) != everywhere || route.State == types.RouteStateBlackhole {
			continue
		}
		way = privateWay
		if strings.HasPrefix(sdk.ToString(route.GatewayId), "igw-") {
			way = publicWay
		}
	}
	for _, link := range table.Associations {
		if sdk.ToBool(link.Main) {
			r.main = way
		} else if id := sdk.ToString(link.SubnetId); id != "" {
			r.bySubnet[id] = way
		}
	}
}
