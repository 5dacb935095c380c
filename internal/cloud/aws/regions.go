package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
)

const (
	homeRegion  = "us-east-1" // is asked for what all regions know, if the configuration names no region
	regionsTime = time.Hour   // how long the list of enabled regions is kept
	maxRegions  = 16          // asked at once
)

// home returns the region that is asked for what all regions know.
func (p *Provider) home() string {
	if len(p.settings.Regions) > 0 {
		return p.settings.Regions[0]
	}
	return homeRegion
}

// askHome asks what all regions know. The first region may be one that the account has not enabled, which answers as if the
// credentials were wrong: then another one is asked.
func (p *Provider) askHome(do func(region string) error) error {
	region := p.home()
	err := do(region)
	if err == nil || dstack.KindOf(err) != dstack.Unauthorized {
		return err
	}
	for _, other := range append([]string{homeRegion}, p.settings.Regions...) {
		if other != region && partitionOf(other) == partitionOf(region) {
			if do(other) == nil {
				return nil
			}
			break
		}
	}
	return err
}

// partitionOf returns which of the separate AWS a region belongs to: credentials of one are not known to the others.
func partitionOf(region string) string {
	for _, prefix := range []string{"us-gov-", "cn-"} {
		if strings.HasPrefix(region, prefix) {
			return prefix
		}
	}
	return ""
}

// listEnabled returns the regions that are enabled for the account.
func (p *Provider) listEnabled(ctx context.Context) ([]string, error) {
	return p.regions.get(ctx, "", regionsTime, func(ctx context.Context) ([]string, error) {
		var names []string
		err := p.askHome(func(home string) error {
			return p.read(ctx, home, "DescribeRegions", func(ctx context.Context, client *ec2.Client) error {
				out, err := client.DescribeRegions(ctx, &ec2.DescribeRegionsInput{})
				if err != nil {
					return err
				}
				names = nil
				for _, region := range out.Regions {
					names = append(names, sdk.ToString(region.RegionName))
				}
				return nil
			})
		})
		slices.Sort(names)
		return names, err
	})
}

// ListRegions returns the regions that machines are rented in.
func (p *Provider) ListRegions(ctx context.Context) ([]string, error) {
	if len(p.settings.Regions) > 0 {
		return p.settings.Regions, nil
	}
	return p.listEnabled(ctx)
}

// checkRegion refuses a region that the account has not enabled: calls there fail as if the credentials were wrong.
func (p *Provider) checkRegion(ctx context.Context, region string) error {
	enabled, err := p.listEnabled(ctx)
	if dstack.KindOf(err) == dstack.Forbidden && err != nil { // the right is not needed otherwise
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.Contains(enabled, region) {
		return placeError(region, "the region is not enabled for the account",
			"enable it in the AWS console (Account, AWS Regions), or remove it from regions of the aws backend")
	}
	return nil
}

// placeError says that no machine at all can be rented in a region.
func placeError(region, problem, hint string) error {
	return newFailure(dstack.NoCapacity, nil, dstack.MachineFailure{
		Cause: dstack.FailureBroken, Scope: dstack.ScopePlace, Message: "aws " + region + ": " + problem}, hint)
}

// inRegions calls a function for regions, several at once, and returns their answers and errors in the same order.
func inRegions[T any](ctx context.Context, regions []string, do func(context.Context, string) (T, error)) ([]T, []error) {
	answers, failures := make([]T, len(regions)), make([]error, len(regions))
	var group errgroup.Group
	group.SetLimit(maxRegions)
	for i, region := range regions {
		group.Go(func() error {
			answers[i], failures[i] = do(ctx, region)
			return nil
		})
	}
	_ = group.Wait() // the functions return no error
	return answers, failures
}

// firstFailure returns the first error, and how many there are.
func firstFailure(failures []error) error {
	var first error
	count := 0
	for _, err := range failures {
		if err != nil {
			count++
			if first == nil {
				first = err
			}
		}
	}
	if known, ok := errors.AsType[*dstack.Error](first); ok && count > 1 {
		return &dstack.Error{Kind: known.Kind, Hint: known.Hint, Cause: known.Cause,
			Message: fmt.Sprintf("%s; %d other regions failed, too", known.Message, count-1)}
	}
	return first
}

// ignoreMissingRight returns nil for an error about a right that dstack can do without.
func ignoreMissingRight(err error) error {
	if dstack.KindOf(err) == dstack.Forbidden {
		return nil
	}
	return err
}

// textFilter is a filter of a listing.
func textFilter(name string, values ...string) filter {
	return filter{Name: sdk.String(name), Values: values}
}
