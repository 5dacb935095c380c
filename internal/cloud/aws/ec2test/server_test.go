package ec2test_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"dstack/internal/cloud/aws/ec2test"
)

// world is a server and the real SDK's client of it.
type world struct {
	*ec2test.Server
	t   *testing.T
	ec2 *ec2.Client
}

func start(t *testing.T, o ec2test.Options) *world {
	t.Helper()
	s, err := ec2test.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &world{Server: s, t: t, ec2: newClient(s, "us-east-1", ec2test.AccessKey, ec2test.SecretKey)}
}

func newClient(s *ec2test.Server, region, key, secret string) *ec2.Client {
	return ec2.New(ec2.Options{
		Region: region, BaseEndpoint: aws.String(s.URL), Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
		RetryMaxAttempts: 1,
	})
}

func (w *world) expectCode(err error, code string) {
	w.t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		w.t.Errorf("the error is %v, want the code %s", err, code)
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// launchInput returns a good request.
func (w *world) launchInput(kind, zone, token string) *ec2.RunInstancesInput {
	w.t.Helper()
	images, err := w.ec2.DescribeImages(w.t.Context(), &ec2.DescribeImagesInput{
		Owners:  []string{"099720109477"},
		Filters: []types.Filter{{Name: aws.String("name"), Values: []string{"ubuntu/*-24.04-amd64-server-*"}}},
	})
	w.check(err)
	if len(images.Images) != 2 {
		w.t.Fatalf("%d images, want 2", len(images.Images))
	}
	subnets, err := w.ec2.DescribeSubnets(w.t.Context(), &ec2.DescribeSubnetsInput{
		Filters: []types.Filter{{Name: aws.String("availability-zone"), Values: []string{zone}}},
	})
	w.check(err)
	return &ec2.RunInstancesInput{
		ImageId: images.Images[0].ImageId, InstanceType: types.InstanceType(kind), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		ClientToken: aws.String(token), UserData: aws.String(base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n"))),
		NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{
			DeviceIndex: aws.Int32(0), SubnetId: subnets.Subnets[0].SubnetId, AssociatePublicIpAddress: aws.Bool(true), DeleteOnTermination: aws.Bool(true),
		}},
		BlockDeviceMappings: []types.BlockDeviceMapping{{
			DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(100), VolumeType: types.VolumeTypeGp3, DeleteOnTermination: aws.Bool(true)},
		}},
		MetadataOptions:                   &types.InstanceMetadataOptionsRequest{HttpTokens: types.HttpTokensStateRequired, HttpPutResponseHopLimit: aws.Int32(1)},
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{{Key: aws.String("dstack-installation"), Value: aws.String("one")}}},
			{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("dstack-installation"), Value: aws.String("one")}}},
		},
	}
}

func (w *world) describe(ids ...string) []types.Instance {
	w.t.Helper()
	var list []types.Instance
	pages := ec2.NewDescribeInstancesPaginator(w.ec2, &ec2.DescribeInstancesInput{InstanceIds: ids})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.t.Context())
		w.check(err)
		for _, r := range page.Reservations {
			list = append(list, r.Instances...)
		}
	}
	return list
}

func TestServer_MachineLivesStepByStep(t *testing.T) {
	now := time.Now()
	w := start(t, ec2test.Options{
		Now:   func() time.Time { return now },
		Steps: ec2test.Steps{Lag: time.Minute, Running: 2 * time.Minute, Terminated: 30 * time.Second},
	})
	made, err := w.ec2.RunInstances(t.Context(), w.launchInput("g6.xlarge", "us-east-1a", "token"))
	w.check(err)
	id := *made.Instances[0].InstanceId
	expect := func(want string) {
		t.Helper()
		got := "absent"
		if list := w.describe(); len(list) > 0 {
			got = string(list[0].State.Name)
			if hasAddress := list[0].PublicIpAddress != nil; hasAddress != (got == "running") {
				t.Errorf("%s with the address %v", got, list[0].PublicIpAddress)
			}
		}
		if got != want {
			t.Errorf("the machine is %s, want %s", got, want)
		}
	}
	if made.Instances[0].State.Name != "pending" {
		t.Errorf("the answer says %s", made.Instances[0].State.Name)
	}
	expect("absent")
	_, err = w.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	w.expectCode(err, "InvalidInstanceID.NotFound")
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{time.Minute, "pending"}, {time.Minute, "running"}} {
		w.Advance(step.after)
		expect(step.want)
	}
	_, err = w.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	w.check(err)
	expect("running") // the description lags
	w.Advance(29 * time.Second)
	if state := w.Instances()[0].State; state != "shutting-down" {
		t.Errorf("the machine is really %s", state)
	}
	w.Advance(31 * time.Second)
	expect("terminated")
	if list := w.describe(); list[0].PrivateIpAddress != nil || *list[0].StateReason.Code != "Client.UserInitiatedShutdown" {
		t.Errorf("it ended with %+v", list[0])
	}
	w.Advance(time.Hour)
	expect("absent")
	if len(w.Volumes()) != 0 {
		t.Errorf("volumes are left: %v", w.Volumes())
	}
	_, err = w.ec2.RunInstances(t.Context(), w.launchInput("g6.xlarge", "us-east-1a", "token"))
	w.expectCode(err, "IdempotentInstanceTerminated") // the token is still known
}

func TestServer_RemembersTokens(t *testing.T) {
	w := start(t, ec2test.Options{})
	input := w.launchInput("m7i.large", "us-east-1b", "token")
	first, err := w.ec2.RunInstances(t.Context(), input)
	w.check(err)
	again, err := w.ec2.RunInstances(t.Context(), input)
	w.check(err)
	if *again.Instances[0].InstanceId != *first.Instances[0].InstanceId || len(w.Alive()) != 1 {
		t.Errorf("a repeated request made another machine: %+v", w.Alive())
	}
	input.InstanceType = "m7i.xlarge"
	_, err = w.ec2.RunInstances(t.Context(), input)
	w.expectCode(err, "IdempotentParameterMismatch")
	other := newClient(w.Server, "us-west-2", ec2test.AccessKey, ec2test.SecretKey)
	w.ec2 = other
	_, err = other.RunInstances(t.Context(), w.launchInput("m7i.xlarge", "us-west-2a", "token"))
	w.check(err) // tokens belong to a region
	if len(w.Alive()) != 2 {
		t.Errorf("machines %+v", w.Alive())
	}
}

func TestServer_RefusesWrongLaunches(t *testing.T) {
	w := start(t, ec2test.Options{Regions: map[string]ec2test.Region{"us-east-1": {
		Zones: []string{"us-east-1a", "us-east-1b", "us-east-1c"},
		VPCs: []ec2test.VPC{
			{IsDefault: true, Subnets: []ec2test.Subnet{
				{Zone: "us-east-1a", IsPublic: true}, {Zone: "us-east-1b", IsPublic: true}, {Zone: "us-east-1c", IsPublic: true, Free: -1},
			}},
			{ID: "vpc-other", Subnets: []ec2test.Subnet{{ID: "subnet-other", Zone: "us-east-1a"}}},
		},
		Quotas: map[string]int{"L-1216C47A": 6, "L-34B43A08": 2},
	}}})
	w.SetCapacity(ec2test.Place{Zone: "us-east-1a", Type: "g6.xlarge"}, 0)
	groups, err := w.ec2.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{
		Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{"vpc-other"}}},
	})
	w.check(err)
	spot := &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: &types.SpotMarketOptions{
		SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
	}}
	for _, c := range []struct {
		name, code, message string
		change              func(i *ec2.RunInstancesInput)
	}{
		{"no such image", "InvalidAMIID.NotFound", "", func(i *ec2.RunInstancesInput) { i.ImageId = aws.String("ami-0123") }},
		{"not an image", "InvalidAMIID.Malformed", "", func(i *ec2.RunInstancesInput) { i.ImageId = aws.String("ubuntu") }},
		{"no such type", "InvalidParameterValue", "InstanceType", func(i *ec2.RunInstancesInput) { i.InstanceType = "zz9.large" }},
		{"the image of another architecture", "InvalidParameterValue", "architecture", func(i *ec2.RunInstancesInput) { i.InstanceType = "c7g.xlarge" }},
		{"not offered in the zone", "Unsupported", "us-east-1c", func(i *ec2.RunInstancesInput) { i.InstanceType = "p5.48xlarge" }},
		{"no such subnet", "InvalidSubnetID.NotFound", "", func(i *ec2.RunInstancesInput) { i.NetworkInterfaces[0].SubnetId = aws.String("subnet-1") }},
		{"a security group of another network", "InvalidParameter", "different networks", func(i *ec2.RunInstancesInput) {
			i.NetworkInterfaces[0].Groups = []string{*groups.SecurityGroups[0].GroupId}
		}},
		{"a zone that is not the subnet's", "InvalidParameterValue", "zone", func(i *ec2.RunInstancesInput) {
			i.Placement = &types.Placement{AvailabilityZone: aws.String("us-east-1b")}
		}},
		{"user data that is not encoded", "InvalidUserData.Malformed", "", func(i *ec2.RunInstancesInput) { i.UserData = aws.String("#!/bin/sh") }},
		{"long user data", "InvalidParameterValue", "16384", func(i *ec2.RunInstancesInput) {
			i.UserData = aws.String(base64.StdEncoding.EncodeToString(make([]byte, 16<<10+1)))
		}},
		{"a long token", "InvalidParameterValue", "token", func(i *ec2.RunInstancesInput) { i.ClientToken = aws.String(strings.Repeat("x", 65)) }},
		{"a reserved tag", "InvalidParameterValue", "aws:", func(i *ec2.RunInstancesInput) {
			i.TagSpecifications[0].Tags[0].Key = aws.String("aws:name")
		}},
		{"a small disk", "InvalidBlockDeviceMapping", "smaller", func(i *ec2.RunInstancesInput) { i.BlockDeviceMappings[0].Ebs.VolumeSize = aws.Int32(4) }},
		{"no such profile", "InvalidParameterValue", "Profile", func(i *ec2.RunInstancesInput) {
			i.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("admin")}
		}},
		{"no such placement group", "InvalidPlacementGroup.Unknown", "", func(i *ec2.RunInstancesInput) { i.Placement = &types.Placement{GroupName: aws.String("near")} }},
		{"a quota", "VcpuLimitExceeded", "limit of 6", func(i *ec2.RunInstancesInput) { i.InstanceType = "m7i.4xlarge" }},
		{"a quota of spot machines", "MaxSpotInstanceCountExceeded", "", func(i *ec2.RunInstancesInput) {
			i.InstanceType, i.InstanceMarketOptions = "m7i.xlarge", spot
		}},
		{"no capacity", "InsufficientInstanceCapacity", "choosing us-east-1b", func(i *ec2.RunInstancesInput) { i.InstanceType = "g6.xlarge" }},
		{"no address is free", "InsufficientFreeAddressesInSubnet", "", func(i *ec2.RunInstancesInput) {
			subnets, err := w.ec2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{
				Filters: []types.Filter{{Name: aws.String("availability-zone"), Values: []string{"us-east-1c"}}},
			})
			w.check(err)
			i.NetworkInterfaces[0].SubnetId = subnets.Subnets[0].SubnetId
		}},
		{"a parameter that this server does not know", "UnknownParameter", "KernelId", func(i *ec2.RunInstancesInput) { i.KernelId = aws.String("aki-1") }},
	} {
		input := w.launchInput("m7i.large", "us-east-1a", c.name)
		c.change(input)
		_, err := w.ec2.RunInstances(t.Context(), input)
		if w.expectCode(err, c.code); err != nil && !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.message)
		}
	}
	input := w.launchInput("m7i.large", "us-east-1a", "dry")
	input.DryRun = aws.Bool(true)
	_, err = w.ec2.RunInstances(t.Context(), input)
	w.expectCode(err, "DryRunOperation")
	if len(w.Alive()) > 0 {
		t.Errorf("machines were made: %+v", w.Alive())
	}
	input = w.launchInput("m7i.large", "us-east-1a", "good")
	input.InstanceMarketOptions = spot
	made, err := w.ec2.RunInstances(t.Context(), input)
	w.check(err)
	if made.Instances[0].InstanceLifecycle != types.InstanceLifecycleTypeSpot {
		t.Errorf("not a spot machine: %+v", made.Instances[0])
	}
}

func TestServer_ChecksCredentials(t *testing.T) {
	w := start(t, ec2test.Options{})
	w.SetKey("AKIDOLD", ec2test.Key{Secret: "x", IsExpired: true})
	w.SetKey("AKIDLESS", ec2test.Key{Secret: "x", Denied: []string{"ec2:Run*"}})
	for _, c := range []struct{ key, secret, code string }{
		{"AKIDNOBODY", "x", "AuthFailure"}, {ec2test.AccessKey, "wrong", "AuthFailure"}, {"AKIDOLD", "x", "RequestExpired"},
	} {
		_, err := newClient(w.Server, "us-east-1", c.key, c.secret).DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
		w.expectCode(err, c.code)
	}
	less := newClient(w.Server, "us-east-1", "AKIDLESS", "x")
	_, err := less.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
	w.check(err)
	input := w.launchInput("m7i.large", "us-east-1a", "token")
	_, err = less.RunInstances(t.Context(), input)
	w.expectCode(err, "UnauthorizedOperation")
	if err == nil || !strings.Contains(err.Error(), "ec2:RunInstances") {
		t.Errorf("the error does not name the action: %v", err)
	}
	_, err = newClient(w.Server, "ap-east-1", ec2test.AccessKey, ec2test.SecretKey).DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	w.expectCode(err, "AuthFailure") // a region that is not enabled
	who, err := sts.New(sts.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(w.URL), Credentials: credentials.NewStaticCredentialsProvider(ec2test.AccessKey, ec2test.SecretKey, ""),
	}).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	w.check(err)
	if *who.Account != "123456789012" {
		t.Errorf("the account is %s", *who.Account)
	}
}

func TestServer_Faults(t *testing.T) {
	w := start(t, ec2test.Options{})
	t.Run("an answer is lost", func(t *testing.T) {
		w.Inject(ec2test.Fault{Action: "RunInstances", Cut: true, Done: true, Times: 1})
		input := w.launchInput("m7i.large", "us-east-1a", "lost")
		if _, err := w.ec2.RunInstances(t.Context(), input); err == nil {
			t.Error("no error")
		}
		made, err := w.ec2.RunInstances(t.Context(), input)
		w.check(err)
		if alive := w.Alive(); len(alive) != 1 || alive[0].ID != *made.Instances[0].InstanceId {
			t.Errorf("machines %+v", alive)
		}
	})
	t.Run("too many requests", func(t *testing.T) {
		w.Throttle("DescribeInstances", 1, 3*time.Second)
		_, err := w.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
		w.expectCode(err, "RequestLimitExceeded")
		w.describe()
	})
	t.Run("no answer", func(t *testing.T) {
		remove := w.Inject(ec2test.Fault{Action: "DescribeInstances", Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := w.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		remove()
		w.describe()
	})
	t.Run("a zone only", func(t *testing.T) {
		w.Inject(ec2test.Fault{Action: "RunInstances", Zone: "us-east-1b", Code: "InternalError", Status: 500, Times: 1})
		_, err := w.ec2.RunInstances(t.Context(), w.launchInput("m7i.large", "us-east-1a", "a"))
		w.check(err)
		_, err = w.ec2.RunInstances(t.Context(), w.launchInput("m7i.large", "us-east-1b", "b"))
		w.expectCode(err, "InternalError")
	})
	t.Run("a launch that ends at once", func(t *testing.T) {
		w.Inject(ec2test.Fault{Action: "RunInstances", StateReason: "Server.InsufficientInstanceCapacity", Message: "Insufficient capacity", Times: 1})
		made, err := w.ec2.RunInstances(t.Context(), w.launchInput("m7i.large", "us-east-1a", "short"))
		w.check(err)
		list := w.describe(*made.Instances[0].InstanceId)
		if made.Instances[0].State.Name != "pending" || list[0].State.Name != "terminated" || *list[0].StateReason.Code != "Server.InsufficientInstanceCapacity" {
			t.Errorf("answer %+v, then %+v", made.Instances[0].State, list[0].StateReason)
		}
	})
}

func TestServer_Disks(t *testing.T) {
	now := time.Now()
	w := start(t, ec2test.Options{Now: func() time.Time { return now }, Steps: ec2test.Steps{Volume: time.Second, Attach: time.Second}})
	made, err := w.ec2.RunInstances(t.Context(), w.launchInput("m7i.large", "us-east-1a", "machine"))
	w.check(err)
	machine := made.Instances[0].InstanceId
	create := func(zone, token string) string {
		v, err := w.ec2.CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: &zone, Size: aws.Int32(5), VolumeType: types.VolumeTypeGp3, ClientToken: &token})
		w.check(err)
		return *v.VolumeId
	}
	attach := func(volume, device string) error {
		_, err := w.ec2.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: machine, Device: &device})
		return err
	}
	near, far := create("us-east-1a", "near"), create("us-east-1b", "far")
	if again := create("us-east-1a", "near"); again != near {
		t.Errorf("a repeated request made another disk: %s and %s", near, again)
	}
	w.expectCode(attach(near, "/dev/sdf"), "IncorrectState") // it is being created
	w.Advance(time.Second)
	w.expectCode(attach(far, "/dev/sdf"), "InvalidVolume.ZoneMismatch")
	w.check(attach(near, "/dev/sdf"))
	w.expectCode(attach(near, "/dev/sdg"), "VolumeInUse")
	second := w.AddVolume("us-east-1", "us-east-1a", 5)
	w.expectCode(attach(second, "/dev/sdf"), "InvalidParameterValue")
	_, err = w.ec2.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &near})
	w.expectCode(err, "VolumeInUse")
	expectAttachment := func(want types.VolumeAttachmentState) {
		t.Helper()
		list, err := w.ec2.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{near}})
		w.check(err)
		if a := list.Volumes[0].Attachments; len(a) != 1 || a[0].State != want {
			t.Errorf("attachments %+v, want %s", a, want)
		}
	}
	expectAttachment("attaching")
	w.Advance(time.Second)
	expectAttachment("attached")
	_, err = w.ec2.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &near, InstanceId: machine})
	w.check(err)
	expectAttachment("detaching")
	w.Advance(time.Second)
	_, err = w.ec2.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &near, InstanceId: machine})
	w.expectCode(err, "IncorrectState")
	w.check(attach(near, "/dev/sdf"))
	_, err = w.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*machine}})
	w.check(err)
	_, err = w.ec2.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &near}) // the end of the machine let it go
	w.check(err)
	if list := w.Volumes(); len(list) != 2 {
		t.Errorf("disks %v", list)
	}
}

func TestServer_Pages(t *testing.T) {
	w := start(t, ec2test.Options{PageSize: 2})
	for n := range 5 {
		_, err := w.ec2.RunInstances(t.Context(), w.launchInput("t3.micro", "us-east-1a", fmt.Sprint(n)))
		w.check(err)
	}
	if list := w.describe(); len(list) != 5 || w.CountCalls("DescribeInstances") != 3 {
		t.Errorf("%d machines on %d pages", len(list), w.CountCalls("DescribeInstances"))
	}
	_, err := w.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{MaxResults: aws.Int32(2)})
	w.expectCode(err, "InvalidParameterValue")
	_, err = w.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("color"), Values: []string{"red"}}}})
	w.expectCode(err, "InvalidParameterValue")
	var names []string
	kinds := ec2.NewDescribeInstanceTypesPaginator(w.ec2, &ec2.DescribeInstanceTypesInput{MaxResults: aws.Int32(100)})
	for kinds.HasMorePages() {
		page, err := kinds.NextPage(t.Context())
		w.check(err)
		for _, kind := range page.InstanceTypes {
			names = append(names, string(kind.InstanceType))
			if kind.InstanceType == "g6f.large" {
				gpu := kind.GpuInfo.Gpus[0]
				if *gpu.Count != 0 || *gpu.LogicalGpuCount != 1 || *gpu.GpuPartitionSize != 0.125 || *gpu.MemoryInfo.SizeInMiB != 2861 {
					t.Errorf("g6f.large has %+v", gpu)
				}
			}
		}
	}
	if len(names) != len(ec2test.DefaultTypes) || !slices.Contains(names, "p5.48xlarge") {
		t.Errorf("types %v", names)
	}
	prices := ec2.NewDescribeSpotPriceHistoryPaginator(w.ec2, &ec2.DescribeSpotPriceHistoryInput{InstanceTypes: []types.InstanceType{"m7i.large"}})
	var zones []string
	for prices.HasMorePages() {
		page, err := prices.NextPage(t.Context())
		w.check(err)
		for _, p := range page.SpotPriceHistory {
			zones = append(zones, *p.AvailabilityZone+" "+*p.SpotPrice)
		}
	}
	if want := []string{"us-east-1a 0.039100", "us-east-1b 0.041055", "us-east-1c 0.043010"}; !slices.Equal(zones, want) {
		t.Errorf("spot prices %q, want %q", zones, want)
	}
}

func TestServer_SecurityAndPlacementGroups(t *testing.T) {
	w := start(t, ec2test.Options{})
	vpcs, err := w.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{Filters: []types.Filter{{Name: aws.String("is-default"), Values: []string{"true"}}}})
	w.check(err)
	create := &ec2.CreateSecurityGroupInput{GroupName: aws.String("dstack"), Description: aws.String("SSH"), VpcId: vpcs.Vpcs[0].VpcId}
	group, err := w.ec2.CreateSecurityGroup(t.Context(), create)
	w.check(err)
	_, err = w.ec2.CreateSecurityGroup(t.Context(), create)
	w.expectCode(err, "InvalidGroup.Duplicate")
	rules := &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: []types.IpPermission{
		{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}},
		{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: group.GroupId}}},
	}}
	_, err = w.ec2.AuthorizeSecurityGroupIngress(t.Context(), rules)
	w.check(err)
	_, err = w.ec2.AuthorizeSecurityGroupIngress(t.Context(), rules)
	w.expectCode(err, "InvalidPermission.Duplicate")
	shown, err := w.ec2.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*group.GroupId}})
	w.check(err)
	if p := shown.SecurityGroups[0].IpPermissions; len(p) != 2 || *p[0].FromPort != 22 || *p[1].UserIdGroupPairs[0].GroupId != *group.GroupId {
		t.Errorf("rules %+v", p)
	}
	_, err = w.ec2.CreatePlacementGroup(t.Context(), &ec2.CreatePlacementGroupInput{GroupName: aws.String("near"), Strategy: types.PlacementStrategyCluster})
	w.check(err)
	input := w.launchInput("m7i.large", "us-east-1a", "one")
	input.NetworkInterfaces[0].Groups, input.Placement = []string{*group.GroupId}, &types.Placement{GroupName: aws.String("near")}
	made, err := w.ec2.RunInstances(t.Context(), input)
	w.check(err)
	_, err = w.ec2.DeleteSecurityGroup(t.Context(), &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId})
	w.expectCode(err, "DependencyViolation")
	_, err = w.ec2.DeletePlacementGroup(t.Context(), &ec2.DeletePlacementGroupInput{GroupName: aws.String("near")})
	w.expectCode(err, "InvalidPlacementGroup.InUse")
	_, err = w.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*made.Instances[0].InstanceId}})
	w.check(err)
	_, err = w.ec2.DeleteSecurityGroup(t.Context(), &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId})
	w.check(err)
	_, err = w.ec2.DeletePlacementGroup(t.Context(), &ec2.DeletePlacementGroupInput{GroupName: aws.String("near")})
	w.check(err)
	tables, err := w.ec2.DescribeRouteTables(t.Context(), &ec2.DescribeRouteTablesInput{})
	w.check(err)
	if r := tables.RouteTables[0].Routes[1]; !strings.HasPrefix(*r.GatewayId, "igw-") || *r.DestinationCidrBlock != "0.0.0.0/0" {
		t.Errorf("routes %+v", r)
	}
}

func TestServer_HooksAndMetadata(t *testing.T) {
	release := make(chan struct{})
	ended := make(chan string, 1)
	w := start(t, ec2test.Options{
		OnRun: func(i ec2test.Instance) (string, error) {
			if string(i.UserData) != "#!/bin/sh\n" {
				return "", fmt.Errorf("user data %q", i.UserData)
			}
			<-release
			return "127.0.0.7", nil
		},
		OnTerminate: func(i ec2test.Instance) { ended <- i.ID },
	})
	input := w.launchInput("m7i.large", "us-east-1a", "one")
	input.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}
	made, err := w.ec2.RunInstances(t.Context(), input)
	w.check(err)
	id := *made.Instances[0].InstanceId
	if state := w.describe(id)[0].State.Name; state != "pending" {
		t.Errorf("%s before it has booted", state)
	}
	close(release)
	w.check(w.Settle(t.Context()))
	if i := w.describe(id)[0]; i.State.Name != "running" || *i.PublicIpAddress != "127.0.0.7" {
		t.Errorf("%s at %v", i.State.Name, i.PublicIpAddress)
	}

	metadata := httptest.NewServer(w.Metadata(id))
	defer metadata.Close()
	ask := func(method, path, header, value string) (int, string) {
		t.Helper()
		hr, err := http.NewRequestWithContext(t.Context(), method, metadata.URL+"/latest/"+path, nil)
		w.check(err)
		hr.Header.Set(header, value)
		answer, err := http.DefaultClient.Do(hr)
		w.check(err)
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		w.check(err)
		return answer.StatusCode, string(body)
	}
	const header = "X-aws-ec2-metadata-token"
	if status, _ := ask("GET", "meta-data/instance-id", header, ""); status != 401 {
		t.Errorf("status %d without a token", status)
	}
	_, token := ask("PUT", "api/token", header+"-ttl-seconds", "60")
	if status, body := ask("GET", "meta-data/instance-id", header, token); status != 200 || body != id {
		t.Errorf("status %d: %s", status, body)
	}
	if status, _ := ask("GET", "meta-data/spot/instance-action", header, token); status != 404 {
		t.Errorf("status %d without a notice", status)
	}
	w.Warn(id, time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC))
	if _, body := ask("GET", "meta-data/spot/instance-action", header, token); body != `{"action":"terminate","time":"2026-11-29T12:00:00Z"}` {
		t.Errorf("the notice is %s", body)
	}
	w.Interrupt(id)
	w.check(w.Settle(t.Context()))
	if i := w.describe(id)[0]; i.State.Name != "terminated" || *i.StateReason.Code != "Server.SpotInstanceTermination" {
		t.Errorf("%s: %+v", i.State.Name, i.StateReason)
	}
	if got := <-ended; got != id {
		t.Errorf("ended %s", got)
	}
}
