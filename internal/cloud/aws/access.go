package aws

import (
	"context"
	"errors"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// CheckAccess implements cloud.Provider. It says what is wrong with the credentials first, then which rights are missing,
// then which regions cannot be used.
func (p *Provider) CheckAccess(ctx context.Context) error {
	if err := p.checkCredentials(ctx); err != nil {
		return err
	}
	regions, err := p.ListRegions(ctx)
	if err != nil {
		return err
	}
	networks, failures := inRegions(ctx, regions, p.checkPlace)
	if i := slices.IndexFunc(failures, isOfBackend); i >= 0 {
		return failures[i]
	}
	if i := slices.Index(failures, nil); i >= 0 {
		if err := p.checkRights(ctx, regions[i], networks[i]); err != nil {
			return err
		}
	}
	return joinPlaces(regions, failures)
}

// checkCredentials asks whose credentials they are, which needs no right.
func (p *Provider) checkCredentials(ctx context.Context) error {
	return p.askHome(func(region string) error { return p.checkCredentialsIn(ctx, region) })
}

func (p *Provider) checkCredentialsIn(ctx context.Context, region string) error {
	client := sts.New(sts.Options{
		Region: region, Credentials: p.credentials, HTTPClient: p.http, BaseEndpoint: p.endpoint(), Retryer: newRetryer(),
	})
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	if _, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err != nil {
		return explain(call{action: "sts:GetCallerIdentity", region: region}, err)
	}
	return nil
}

// isOfBackend reports whether an error concerns every region.
func isOfBackend(err error) bool {
	kind := dstack.KindOf(err)
	return err != nil && (kind == dstack.Unauthorized || kind == dstack.Forbidden)
}

// checkPlace reports what a region lacks.
func (p *Provider) checkPlace(ctx context.Context, region string) (network, error) {
	n, err := p.findNetwork(ctx, region)
	if err != nil {
		return n, err
	}
	kinds := []imageKind{{}}
	if p.settings.Images.NVIDIA != nil {
		kinds = append(kinds, imageKind{isNVIDIA: true})
	}
	for _, kind := range kinds {
		if _, err := p.findImage(ctx, region, kind); err != nil {
			return n, err
		}
	}
	return n, nil
}

// joinPlaces returns one error for all regions that cannot be used.
func joinPlaces(regions []string, failures []error) error {
	var messages []string
	var first *dstack.Error
	byRegion := cloud.RegionErrors{}
	for i, err := range failures {
		if known, ok := errors.AsType[*dstack.Error](err); ok {
			messages = append(messages, known.Message)
			if first == nil {
				first = known
			}
			if known.Kind == dstack.NoCapacity { // others may be usable: they did not answer
				byRegion[regions[i]] = known
			}
		} else if err != nil {
			return err
		}
	}
	if first == nil {
		return nil
	}
	joined := &dstack.Error{Kind: first.Kind, Message: strings.Join(messages, "; "), Hint: first.Hint, Cause: first.Cause}
	if len(byRegion) > 0 && len(byRegion) < len(regions) {
		joined.Cause = errors.Join(first.Cause, byRegion)
	}
	return joined
}

// checkRights asks for what renting needs without doing it, in one region.
func (p *Provider) checkRights(ctx context.Context, region string, n network) error {
	image, err := p.findImage(ctx, region, imageKind{})
	if err != nil {
		return err
	}
	checks := p.rightChecks(image, n)
	if ending := p.terminateCheck(ctx, region); ending != nil {
		checks = append(checks, *ending)
	}
	var missing []string
	var first *dstack.Error
	for _, check := range checks {
		check.region, check.limit = region, readLimit
		err := p.call(ctx, check)
		known, ok := errors.AsType[*dstack.Error](err)
		switch {
		case codeOf(err) == "DryRunOperation" || err == nil:
		case ok && known.Kind == dstack.Forbidden:
			missing = append(missing, strings.TrimSuffix(strings.TrimPrefix(known.Message, lacksRight), " in "+region))
			if first == nil {
				first = known
			}
		case ok && (known.Kind == dstack.Unauthorized || known.Kind == dstack.Unavailable):
			return err
		} // any other answer comes after the rights were checked
	}
	if len(missing) < 2 {
		return errorOrNil(first)
	}
	return &dstack.Error{Kind: first.Kind, Message: "aws: the credentials lack the rights " + strings.Join(missing, ", "),
		Hint: "allow them in the IAM policy of the credentials", Cause: first.Cause}
}

// errorOrNil returns nil without a type for a missing error.
func errorOrNil(e *dstack.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// rightChecks are calls that change nothing and fail only for want of a right.
func (p *Provider) rightChecks(i image, n network) []call {
	dry := sdk.Bool(true)
	return []call{
		{action: "DescribeInstances", do: func(ctx context.Context, client *ec2.Client) error {
			_, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{DryRun: dry})
			return err
		}},
		{action: "RunInstances", do: func(ctx context.Context, client *ec2.Client) error {
			in := &ec2.RunInstancesInput{DryRun: dry, MinCount: sdk.Int32(1), MaxCount: sdk.Int32(1), ImageId: sdk.String(i.id),
				InstanceType: types.InstanceTypeT3Micro, SubnetId: sdk.String(n.subnets[n.zones()[0]][0].id),
				TagSpecifications: p.tagsFor(nil, types.ResourceTypeInstance)}
			if profile := p.settings.IAMInstanceProfile; profile != "" {
				in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: sdk.String(profile)}
			}
			_, err := client.RunInstances(ctx, in)
			return err
		}},
		{action: "DescribeSecurityGroups", do: func(ctx context.Context, client *ec2.Client) error {
			_, err := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{DryRun: dry})
			return err
		}},
		{action: "CreateSecurityGroup", do: func(ctx context.Context, client *ec2.Client) error {
			_, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{DryRun: dry, GroupName: sdk.String(p.groupName("check")),
				Description: sdk.String(groupDescription), VpcId: sdk.String(n.vpc), TagSpecifications: p.tagsFor(nil, types.ResourceTypeSecurityGroup)})
			return err
		}},
	}
}

// terminateCheck returns the check of the right to end machines, or nil without a machine: policies often allow it only
// for machines with certain tags, and a machine that does not exist has none.
func (p *Provider) terminateCheck(ctx context.Context, region string) *call {
	machines, err := p.listInRegion(ctx, region)
	i := slices.IndexFunc(machines, func(m cloud.Machine) bool { return m.State != cloud.MachineEnded })
	if err != nil || i < 0 {
		return nil
	}
	return &call{action: "TerminateInstances", do: func(ctx context.Context, client *ec2.Client) error {
		_, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{DryRun: sdk.Bool(true), InstanceIds: []string{machines[i].Ref}})
		return err
	}}
}
