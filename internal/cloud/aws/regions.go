package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// listEnabled returns the regions that are enabled for the account.
func (p *Provider) listEnabled(ctx context.Context) ([]string, error) {
	return p.regions.get(ctx, "", regionsTime, func(ctx context.Context) ([]string, error) {
		var names []string
		err := p.read(ctx, p.home(), "DescribeRegions", func(ctx context.Context, client *ec2.Client) error {
			out, err := client.DescribeRegions(ctx, &ec2.DescribeRegionsInput{})
			if err != nil {
				return err
			}
			for _, region := range out.Regions {
				names = append(names, sdk.ToString(region.RegionName))
			}
			return nil
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
