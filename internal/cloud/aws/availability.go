package aws

import (
	"context"
	"math"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const offeredTime = time.Hour // how long it is known which zones offer a type

// zonesByType are the zones that offer a type.
type zonesByType map[string][]string

// ListZones implements cloud.Availability.
func (p *Provider) ListZones(ctx context.Context, region string) (map[string][]string, error) {
	n, err := p.findNetwork(ctx, region)
	if err != nil {
		return nil, err
	}
	offered, err := p.listOfferings(ctx, region)
	if err != nil {
		return nil, err
	}
	reached := n.zones()
	zones := make(map[string][]string, len(offered))
	for name, all := range offered {
		var usable []string
		for _, zone := range all {
			if slices.Contains(reached, zone) {
				usable = append(usable, zone)
			}
		}
		if len(usable) > 0 {
			zones[name] = usable
		}
	}
	return zones, nil
}

func (p *Provider) listOfferings(ctx context.Context, region string) (zonesByType, error) {
	return p.offered.get(ctx, region, offeredTime, func(ctx context.Context) (zonesByType, error) {
		offered := zonesByType{}
		err := p.readPages(ctx, region, "DescribeInstanceTypeOfferings", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
			page, err := client.DescribeInstanceTypeOfferings(ctx, &ec2.DescribeInstanceTypeOfferingsInput{
				LocationType: types.LocationTypeAvailabilityZone, MaxResults: sdk.Int32(machinesPerPage), NextToken: token})
			if err != nil {
				return nil, err
			}
			for _, one := range page.InstanceTypeOfferings {
				name := string(one.InstanceType)
				offered[name] = append(offered[name], sdk.ToString(one.Location))
			}
			return page.NextToken, nil
		})
		for _, zones := range offered {
			slices.Sort(zones)
		}
		return offered, err
	})
}

// ListQuotas implements cloud.Availability. An account without the right to read its quotas has none that are known.
func (p *Provider) ListQuotas(ctx context.Context, region string) ([]cloud.Quota, error) {
	in := map[string]any{"ServiceCode": "ec2", "MaxResults": itemsPerPage}
	limits := map[string]float64{}
	for range maxPages {
		var page struct {
			Quotas []struct {
				QuotaCode string
				Value     float64
			}
			NextToken string
		}
		if err := p.callJSON(ctx, serviceQuotas, region, "ListServiceQuotas", in, &page); err != nil {
			return nil, ignoreMissingRight(err)
		}
		for _, q := range page.Quotas {
			limits[q.QuotaCode] = q.Value
		}
		if page.NextToken == "" {
			return readQuotas(limits), nil
		}
		in["NextToken"] = page.NextToken
	}
	return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "aws: the quotas of " + region + " do not end"}
}

// readQuotas returns the quotas of families by their codes.
func readQuotas(limits map[string]float64) []cloud.Quota {
	var quotas []cloud.Quota
	for _, f := range families {
		for _, spot := range []bool{false, true} {
			code, patterns := f.onDemand, f.patterns
			if spot {
				code = f.spot
				if f.inSpot != nil {
					patterns = f.inSpot
				}
			}
			limit, known := limits[code]
			if known && code != "" && limit >= 0 {
				quotas = append(quotas, cloud.Quota{Name: f.quotaName(spot), Types: patterns, Spot: spot, CPUs: int(min(limit, math.MaxInt32))})
			}
		}
	}
	return quotas
}
