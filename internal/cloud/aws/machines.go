package aws

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	machinesPerPage = 1000
	maxTerminated   = 500 // machines of one request
)

// ListMachines implements cloud.Provider. If a region fails, it returns the machines of the others with the error.
func (p *Provider) ListMachines(ctx context.Context) ([]cloud.Machine, error) {
	return listEverywhere(ctx, p, &p.quiet, p.listInRegion, func(m cloud.Machine) bool { return m.State != cloud.MachineEnded })
}

// listInRegion returns the machines of one region.
func (p *Provider) listInRegion(ctx context.Context, region string) ([]cloud.Machine, error) {
	instances, err := p.describeInstances(ctx, region)
	machines := make([]cloud.Machine, len(instances))
	for i, instance := range instances {
		machines[i] = p.readMachine(region, instance)
	}
	return machines, err
}

func (p *Provider) describeInstances(ctx context.Context, region string) ([]types.Instance, error) {
	var found []types.Instance
	err := p.readPages(ctx, region, "DescribeInstances", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		page, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{
			Filters: []filter{p.ownFilter()}, MaxResults: sdk.Int32(machinesPerPage), NextToken: token})
		if err != nil {
			return nil, err
		}
		for _, reservation := range page.Reservations {
			for _, instance := range reservation.Instances {
				if p.isOwn(instance.Tags) {
					found = append(found, instance)
				}
			}
		}
		return page.NextToken, nil
	})
	return found, err
}

// readMachine returns a machine as EC2 describes it.
func (p *Provider) readMachine(region string, i types.Instance) cloud.Machine {
	m := cloud.Machine{
		Instance:   dstack.InstanceID(tagOf(i.Tags, tagInstance)),
		Ref:        sdk.ToString(i.InstanceId),
		Region:     region,
		Type:       string(i.InstanceType),
		Spot:       i.InstanceLifecycle == types.InstanceLifecycleTypeSpot,
		State:      stateOf(i.State),
		Private:    sdk.ToString(i.PrivateIpAddress),
		LaunchedAt: sdk.ToTime(i.LaunchTime),
	}
	if i.Placement != nil {
		m.Zone = sdk.ToString(i.Placement.AvailabilityZone)
	}
	m.Address = m.Private
	if p.settings.PublicIPs {
		m.Address = sdk.ToString(i.PublicIpAddress)
	}
	if m.State == cloud.MachineEnded || m.State == cloud.MachineEnding {
		m.Failure = endOf(m, i)
	}
	return m
}

func stateOf(s *types.InstanceState) cloud.MachineState {
	if s == nil {
		return cloud.MachinePending
	}
	switch s.Name {
	case types.InstanceStateNamePending:
		return cloud.MachinePending
	case types.InstanceStateNameRunning:
		return cloud.MachineRunning
	case types.InstanceStateNameTerminated:
		return cloud.MachineEnded
	default:
		return cloud.MachineEnding // shutting-down, stopping, stopped: disks and addresses may still be paid
	}
}

// endOf returns why a machine ended, or nil if the account's owner asked for it. A launch that was answered with
// success may end so, too.
func endOf(m cloud.Machine, i types.Instance) *dstack.MachineFailure {
	code, said := "", ""
	if i.StateReason != nil {
		code, said = sdk.ToString(i.StateReason.Code), sdk.ToString(i.StateReason.Message)
	}
	said = trimMessage(strings.TrimPrefix(said, code+": "))
	offer := dstack.Offer{Type: m.Type, Region: m.Region, Zone: m.Zone, Spot: m.Spot}
	switch code {
	case "Client.UserInitiatedShutdown":
		if i.State != nil && (i.State.Name == types.InstanceStateNameStopped || i.State.Name == types.InstanceStateNameStopping) {
			return &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "aws: the machine was stopped"}
		}
		return nil
	case "Server.InsufficientInstanceCapacity":
		return launchFailure(offer, "InsufficientInstanceCapacity", said)
	case "Server.SpotInstanceTermination", "Server.SpotInstanceShutdown":
		return &dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: fmt.Sprintf("aws took the spot machine %s back in %s", m.Type, m.Zone)}
	case "Client.VolumeLimitExceeded":
		return quotaFailure(offer, "VolumeLimitExceeded", said)
	case "Client.InstanceInitiatedShutdown":
		return &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "aws: the machine shut itself down"}
	case "":
		return nil
	}
	return &dstack.MachineFailure{Cause: dstack.FailureBroken,
		Message: fmt.Sprintf("aws ended the machine: %s (%s)", strings.TrimSuffix(said, "."), code)}
}

// Terminate implements cloud.Provider.
func (p *Provider) Terminate(ctx context.Context, machines []cloud.Machine) error {
	byRegion := map[string][]string{}
	var regions []string
	for _, m := range machines {
		if m.Ref == "" || m.State == cloud.MachineEnded {
			continue
		}
		if byRegion[m.Region] == nil {
			regions = append(regions, m.Region)
		}
		byRegion[m.Region] = append(byRegion[m.Region], m.Ref)
	}
	_, failures := inRegions(ctx, regions, func(ctx context.Context, region string) (struct{}, error) {
		for ids := range slices.Chunk(byRegion[region], maxTerminated) {
			if err := p.terminate(ctx, region, ids); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return firstFailure(failures)
}

var instanceID = regexp.MustCompile(`i-[0-9a-f]+`)

// terminate ends machines of one region. If one does not exist, EC2 ends none of them and names it.
func (p *Provider) terminate(ctx context.Context, region string, ids []string) error {
	for len(ids) > 0 {
		err := p.change(ctx, region, "TerminateInstances", func(ctx context.Context, client *ec2.Client) error {
			_, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
			return err
		})
		if !means(err, meansGone) {
			return err
		}
		missing := instanceID.FindAllString(err.Error(), -1)
		left := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(missing, id) })
		if len(left) == len(ids) { // it does not say which: one by one
			return p.terminateEach(ctx, region, ids)
		}
		ids = left
	}
	return nil
}

func (p *Provider) terminateEach(ctx context.Context, region string, ids []string) error {
	if len(ids) == 1 {
		return nil
	}
	for _, id := range ids {
		if err := p.terminate(ctx, region, []string{id}); err != nil {
			return err
		}
	}
	return nil
}
