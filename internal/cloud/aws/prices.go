package aws

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/dstack"
)

const (
	pricesTime = 6 * time.Hour
	pricesHome = "us-east-1" // has the price lists of all regions
)

// regionPrice is what a type costs on demand in a region, in dollars per hour.
type regionPrice struct {
	instanceType string
	price        float64
}

// zonePrice is what a spot machine costs in a zone, in dollars per hour.
type zonePrice struct {
	instanceType string
	zone         string
	price        float64
}

// listPrices returns the on-demand prices of a region.
func (p *Provider) listPrices(ctx context.Context, region string) ([]regionPrice, error) {
	return p.products.get(ctx, region, pricesTime, func(ctx context.Context) ([]regionPrice, error) {
		type term struct{ Type, Field, Value string }
		in := map[string]any{"ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "MaxResults": itemsPerPage, "Filters": []term{
			{"TERM_MATCH", "regionCode", region}, {"TERM_MATCH", "operatingSystem", "Linux"}, {"TERM_MATCH", "tenancy", "Shared"},
			{"TERM_MATCH", "preInstalledSw", "NA"}, {"TERM_MATCH", "capacitystatus", "Used"},
		}}
		prices := map[string]float64{}
		for range maxPages {
			var page struct {
				PriceList []json.RawMessage
				NextToken string
			}
			if err := p.callJSON(ctx, priceLists, pricesHome, "GetProducts", in, &page); err != nil {
				return nil, err
			}
			for _, item := range page.PriceList {
				if one, ok := readProduct(item); ok {
					prices[one.instanceType] = one.price
				}
			}
			if page.NextToken == "" {
				return sortPrices(prices), nil
			}
			in["NextToken"] = page.NextToken
		}
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "aws: the price list of " + region + " does not end"}
	})
}

func sortPrices(prices map[string]float64) []regionPrice {
	list := make([]regionPrice, 0, len(prices))
	for name, price := range prices {
		list = append(list, regionPrice{name, price})
	}
	slices.SortFunc(list, func(a, b regionPrice) int { return cmp.Compare(a.instanceType, b.instanceType) })
	return list
}

// readProduct reads one product of a price list: JSON, or text that has JSON.
func readProduct(raw json.RawMessage) (regionPrice, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = json.RawMessage(text)
	}
	var product struct {
		Product struct {
			Attributes struct {
				InstanceType string `json:"instanceType"`
				Market       string `json:"marketoption"`
			} `json:"attributes"`
		} `json:"product"`
		Terms struct {
			OnDemand map[string]struct {
				PriceDimensions map[string]struct {
					Unit         string            `json:"unit"`
					PricePerUnit map[string]string `json:"pricePerUnit"`
				} `json:"priceDimensions"`
			} `json:"OnDemand"`
		} `json:"terms"`
	}
	if json.Unmarshal(raw, &product) != nil || product.Product.Attributes.InstanceType == "" {
		return regionPrice{}, false
	}
	if market := product.Product.Attributes.Market; market != "" && market != "OnDemand" {
		return regionPrice{}, false
	}
	for _, term := range product.Terms.OnDemand {
		for _, dimension := range term.PriceDimensions {
			price, ok := readPrice(dimension.PricePerUnit["USD"])
			if ok && price > 0 && dimension.Unit == "Hrs" {
				return regionPrice{product.Product.Attributes.InstanceType, price}, true
			}
		}
	}
	return regionPrice{}, false
}

// readPrice reads dollars.
func readPrice(text string) (float64, bool) {
	price, err := strconv.ParseFloat(text, 64)
	return price, err == nil && price >= 0 && !math.IsInf(price, 0) && !math.IsNaN(price)
}

// listSpotPrices returns the prices of spot machines in the zones of a region.
func (p *Provider) listSpotPrices(ctx context.Context, region string) ([]zonePrice, error) {
	type place struct{ instanceType, zone string }
	type quote struct {
		price float64
		at    time.Time
	}
	latest := map[place]quote{}
	now := time.Now()
	err := p.readPages(ctx, region, "DescribeSpotPriceHistory", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		page, err := client.DescribeSpotPriceHistory(ctx, &ec2.DescribeSpotPriceHistoryInput{
			StartTime: &now, EndTime: &now, ProductDescriptions: []string{"Linux/UNIX"}, MaxResults: sdk.Int32(machinesPerPage), NextToken: token})
		if err != nil {
			return nil, err
		}
		for _, one := range page.SpotPriceHistory {
			where := place{string(one.InstanceType), sdk.ToString(one.AvailabilityZone)}
			price, ok := readPrice(sdk.ToString(one.SpotPrice))
			known, isKnown := latest[where]
			if ok && price > 0 && (!isKnown || sdk.ToTime(one.Timestamp).After(known.at)) {
				latest[where] = quote{price, sdk.ToTime(one.Timestamp)}
			}
		}
		return page.NextToken, nil
	})
	prices := make([]zonePrice, 0, len(latest))
	for where, q := range latest {
		prices = append(prices, zonePrice{where.instanceType, where.zone, q.price})
	}
	slices.SortFunc(prices, func(a, b zonePrice) int {
		return cmp.Or(cmp.Compare(a.instanceType, b.instanceType), cmp.Compare(a.zone, b.zone))
	})
	return prices, err
}

// listTypes returns what the cloud knows of the types of a region.
func (p *Provider) listTypes(ctx context.Context, region string) ([]types.InstanceTypeInfo, error) {
	var found []types.InstanceTypeInfo
	err := p.readPages(ctx, region, "DescribeInstanceTypes", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		page, err := client.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{MaxResults: sdk.Int32(itemsPerPage), NextToken: token})
		if err != nil {
			return nil, err
		}
		found = append(found, page.InstanceTypes...)
		return page.NextToken, nil
	})
	return found, err
}
