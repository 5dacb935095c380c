package aws

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
)

func TestLaunch_DescribesTheMachine(t *testing.T) {
	r := open(t, ec2test.Options{Profiles: []string{"gpu-nodes"}}, func(s *Settings) {
		s.IAMInstanceProfile, s.Tags = "gpu-nodes", map[string]string{"team": "search"}
	})
	o := offer("g6.xlarge", "us-east-1b")
	o.Spot = true
	m := r.mustLaunch("i1", o)
	if m.Instance != "i1" || m.Zone != "us-east-1b" || m.Type != "g6.xlarge" || !m.Spot || m.Region != "us-east-1" {
		t.Errorf("the machine is %+v", m)
	}
	all := r.ec2.Instances()
	if len(all) != 1 {
		t.Fatalf("%d machines, want 1", len(all))
	}
	i := all[0]
	if string(i.UserData) != "#!/bin/sh\necho ready\n" || i.Profile != "gpu-nodes" || i.DiskGB != 100 || !i.Spot ||
		!strings.HasPrefix(i.ImageName, "Deep Learning Base OSS Nvidia") || i.PublicIP == "" || len(i.SecurityGroups) != 1 {
		t.Errorf("the machine is %+v", i)
	}
	for name, want := range map[string]string{"dstack-installation": "one", "dstack-instance": "i1", "Name": "llama-0", "dstack-run": "llama", "team": "search"} {
		if i.Tags[name] != want {
			t.Errorf("the tag %s is %q, want %q", name, i.Tags[name], want)
		}
	}
	found := r.list()
	if len(found) != 1 || found[0].State != cloud.MachineRunning || found[0].Address != i.PublicIP || found[0].Private != i.PrivateIP {
		t.Errorf("the listing is %+v", found)
	}
}

func TestLaunch_ChoosesTheImage(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	small := offer("m7i.large", "us-east-1a")
	small.Hardware.DiskMiB = 2 << 10 // less than the image has
	arm := offer("c7g.xlarge", "us-east-1a")
	arm.Hardware.Arch = "arm"
	r.mustLaunch("x86", small)
	r.mustLaunch("arm", arm)
	names := map[string]string{}
	for _, i := range r.ec2.Instances() {
		names[i.Tags[tagInstance]] = i.ImageName
		if i.Type == "m7i.large" && i.DiskGB != 8 {
			t.Errorf("the disk has %d GB, want those of the image", i.DiskGB)
		}
	}
	if !strings.HasSuffix(names["x86"], "amd64-server-20261101") || !strings.HasSuffix(names["arm"], "arm64-server-20261101") {
		t.Errorf("the images are %v, want the newest of Canonical", names)
	}
}

func TestLaunch_RepeatedMakesOneMachine(t *testing.T) {
	r := open(t, ec2test.Options{Steps: ec2test.Steps{Lag: time.Minute}}, nil)
	o := offer("m7i.large", "us-east-1a")
	r.ec2.Inject(ec2test.Fault{Action: "RunInstances", Done: true, Status: 500, Code: "InternalError", Times: 3})
	if _, err := r.Launch(t.Context(), launch("i1", o)); dstack.KindOf(err) != dstack.Unavailable {
		t.Fatalf("the error is %v, want one of a lost answer", err)
	}
	first := r.mustLaunch("i1", o)
	again := r.mustLaunch("i1", o)
	if alive := r.ec2.Alive(); len(alive) != 1 || first.Ref != again.Ref || alive[0].ID != first.Ref {
		t.Errorf("%d machines, %s and %s", len(alive), first.Ref, again.Ref)
	}
	// Another server of the installation repeats it as well.
	other := r.openAs(thisInstallation, nil)
	if m, err := other.Launch(t.Context(), launch("i1", o)); err != nil || m.Ref != first.Ref {
		t.Errorf("the other server got %s, %v", m.Ref, err)
	}
}

func TestLaunch_TokenOfAnotherLaunchIsAConflict(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	l := launch("i1", offer("m7i.large", "us-east-1a"))
	m, err := r.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	changed := l
	changed.Offer.Type = "m7i.xlarge"
	_, err = r.Launch(t.Context(), changed)
	expectError(t, err, dstack.Conflict, "IdempotentParameterMismatch")
	if err := r.Terminate(t.Context(), []cloud.Machine{m}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Launch(t.Context(), l)
	expectError(t, err, dstack.Conflict, "IdempotentInstanceTerminated")
}

func TestLaunch_WithoutAZone(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	o := offer("p5.48xlarge", "us-east-1a")
	o.Zone = ""
	if m := r.mustLaunch("i1", o); m.Zone != "us-east-1c" {
		t.Errorf("the zone is %s, want the only one that has the type", m.Zone)
	}
}

func TestLaunch_NeedsARoleForSpot(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	r.ec2.Inject(ec2test.Fault{Action: "RunInstances", Code: "AuthFailure.ServiceLinkedRoleCreationNotPermitted", Status: 403,
		Message: "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances."})
	_, err := r.Launch(t.Context(), launch("i1", offer("m7i.large", "us-east-1a")))
	expectError(t, err, dstack.Forbidden, "aws: the credentials lack the right iam:CreateServiceLinkedRole in us-east-1")
}

func TestLaunch_RefusedOffers(t *testing.T) {
	gpu := func(change func(o *dstack.Offer)) dstack.Offer {
		o := offer("g6.xlarge", "us-east-1a")
		o.Hardware.CPUs = 4
		if change != nil {
			change(&o)
		}
		return o
	}
	for name, c := range map[string]struct {
		offer   dstack.Offer
		prepare func(r *rig)
		message string
		want    dstack.MachineFailure
	}{
		"no machine is left in the zone": {
			offer:   gpu(nil),
			prepare: func(r *rig) { r.ec2.SetCapacity(ec2test.Place{Zone: "us-east-1a", Type: "g6.xlarge"}, 0) },
			message: "aws has no on-demand g6.xlarge left in us-east-1a",
			want:    dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Zones: []string{"us-east-1b"}},
		},
		"no spot machine is left in the zone": {
			offer:   gpu(func(o *dstack.Offer) { o.Spot = true }),
			prepare: func(r *rig) { r.ec2.SetCapacity(ec2test.Place{Zone: "us-east-1a", Type: "g6.xlarge", Spot: true}, 0) },
			message: "aws has no spot g6.xlarge left in us-east-1a",
			want:    dstack.MachineFailure{Cause: dstack.FailureNoCapacity},
		},
		"capacity reported as a fault of the server": {
			offer: gpu(nil),
			prepare: func(r *rig) {
				r.ec2.Inject(ec2test.Fault{Action: "RunInstances", Status: 500, Code: "InsufficientInstanceCapacity", Message: "We do not have sufficient capacity"})
			},
			message: "aws has no on-demand g6.xlarge left",
			want:    dstack.MachineFailure{Cause: dstack.FailureNoCapacity},
		},
		"the quota is 0": {
			offer:   gpu(nil),
			prepare: func(r *rig) { r.ec2.SetQuota("us-east-1", "L-DB2E81BA", 0) },
			message: "quota for Running On-Demand G and VT instances does not allow another g6.xlarge in us-east-1",
			want:    dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"g*", "vt*"}},
		},
		"the type is larger than the whole quota": {
			offer:   gpu(nil),
			prepare: func(r *rig) { r.ec2.SetQuota("us-east-1", "L-DB2E81BA", 2) },
			message: "it has 4 CPUs, and the quota is 2",
			want:    dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeRegion},
		},
		"the zone does not offer the type": {
			offer:   gpu(func(o *dstack.Offer) { o.Zone = "us-east-1c" }),
			message: "aws does not rent on-demand g6.xlarge in us-east-1c",
			want:    dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Zones: []string{"us-east-1a", "us-east-1b"}},
		},
		"the network has no subnet in the zone": {
			offer:   gpu(func(o *dstack.Offer) { o.Zone = "us-east-1f" }),
			message: "no usable subnet in us-east-1f, only in us-east-1a, us-east-1b, us-east-1c",
			want:    dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Zones: []string{"us-east-1a", "us-east-1b", "us-east-1c"}},
		},
		"the type does not exist": {
			offer:   offer("zz9.large", "us-east-1a"),
			message: "zz9.large",
			want:    dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopeRegion},
		},
		"a region that the account has not enabled": {
			offer:   offer("m7i.large", "ap-east-1a"),
			message: "aws ap-east-1: the region is not enabled for the account",
			want:    dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopePlace},
		},
		"the image is not shared with the account": {
			offer: gpu(nil),
			prepare: func(r *rig) {
				r.ec2.Inject(ec2test.Fault{Action: "RunInstances", Status: 401, Code: "AuthFailure", Message: "Not authorized for images: [ami-1]"})
			},
			message: "aws: no machine can be rented in us-east-1: Not authorized for images: [ami-1] (AuthFailure)",
			want:    dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopePlace},
		},
		"the account has too many security groups": {
			offer: gpu(nil),
			prepare: func(r *rig) {
				r.ec2.Inject(ec2test.Fault{Action: "CreateSecurityGroup", Code: "SecurityGroupLimitExceeded", Message: "The maximum number of security groups for VPC 'vpc-1' has been reached."})
			},
			message: "aws: a quota of the account is used up in us-east-1: The maximum number of security groups",
			want:    dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopePlace},
		},
		"the instance profile does not exist": {
			offer:   gpu(nil),
			prepare: func(r *rig) { r.settings.IAMInstanceProfile = "missing" },
			message: "iam_instance_profile of config.yml",
			want:    dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend},
		},
		"the region has no image for the type": {
			offer:   gpu(nil),
			prepare: func(r *rig) { r.settings.Images.NVIDIA = &Image{Name: "mine-*", Owner: "self"} },
			message: `aws us-east-1: there is no image for x86 with NVIDIA GPUs with the name "mine-*" of self`,
			want:    dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopeRegion},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, ec2test.Options{}, nil)
			if c.prepare != nil {
				c.prepare(r)
			}
			_, err := r.Launch(t.Context(), launch("i1", c.offer))
			got := expectError(t, err, dstack.NoCapacity, c.message)
			if got.Cause != c.want.Cause || got.Scope != c.want.Scope || !slices.Equal(got.Zones, c.want.Zones) || !slices.Equal(got.Types, c.want.Types) {
				t.Errorf("the failure is %+v, want %+v", got, c.want)
			}
			if calls := r.ec2.CountCalls("RunInstances"); calls > 1 {
				t.Errorf("RunInstances was called %d times: an answer was taken for a fault", calls)
			}
			if alive := r.ec2.Alive(); len(alive) > 0 {
				t.Errorf("there are machines: %+v", alive)
			}
		})
	}
}

func TestLaunch_WaitsAsTold(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	o := offer("m7i.large", "us-east-1a")
	stop := r.ec2.Throttle("RunInstances", 0, 7*time.Second)
	_, err := r.Launch(t.Context(), launch("i1", o))
	failure := expectError(t, err, dstack.Unavailable, "aws: too many calls of RunInstances in us-east-1: the next one is in 7s")
	if failure.RetryAfter != 7*time.Second {
		t.Errorf("RetryAfter is %s, want 7s", failure.RetryAfter)
	}
	calls := r.ec2.CountCalls("RunInstances")
	_, err = r.Launch(t.Context(), launch("i2", o))
	if failure := expectError(t, err, dstack.Unavailable, "too many calls"); failure.RetryAfter < 5*time.Second {
		t.Errorf("RetryAfter is %s, want what is left of 7s", failure.RetryAfter)
	}
	if got := r.ec2.CountCalls("RunInstances"); got != calls {
		t.Errorf("RunInstances was called again before its time")
	}
	// Other actions are not held up, and after the pause the launch works.
	if err := r.Terminate(t.Context(), []cloud.Machine{{Ref: "i-0123456789abcdef0", Region: "us-east-1"}}); err != nil {
		t.Error(err)
	}
	stop()
	r.pauses.actions["us-east-1 RunInstances"].until = time.Now()
	r.mustLaunch("i1", o)
}

func TestLaunch_UnknownOutcomes(t *testing.T) {
	for message, fault := range map[string]ec2test.Fault{
		"does not answer": {Cut: true},
		"has an answer that is not one of AWS (HTTP status 502)": {IsHTML: true, Status: 502},
		": The service is unavailable (Unavailable)":             {Status: 503, Code: "Unavailable", Message: "The service is unavailable."},
		"did not answer in time":                                 {Hang: true},
	} {
		t.Run(message, func(t *testing.T) {
			r := open(t, ec2test.Options{}, nil)
			o := offer("m7i.large", "us-east-1a")
			r.mustLaunch("warm", o) // so that only the launch itself is slow
			fault.Action = "RunInstances"
			remove := r.ec2.Inject(fault)
			_, err := r.Launch(r.within(700*time.Millisecond), launch("i1", o))
			expectError(t, err, dstack.Unavailable, "aws: RunInstances in us-east-1"+strings.Replace(" "+message, " :", ":", 1))
			remove()
			r.mustLaunch("i1", o)
			if alive := r.ec2.Alive(); len(alive) != 2 {
				t.Errorf("%d machines, want 2", len(alive))
			}
		})
	}
}

func TestLaunch_PrivateNetwork(t *testing.T) {
	regions := map[string]ec2test.Region{"us-east-1": {Zones: []string{"us-east-1a", "us-east-1b"}, VPCs: []ec2test.VPC{
		{Name: "lab", Subnets: []ec2test.Subnet{{Zone: "us-east-1a", IsPublic: true}, {Zone: "us-east-1b", HasNAT: true}}},
		{ID: "vpc-0123456789abcdef0", Name: "empty"},
	}}}
	r := open(t, ec2test.Options{Regions: regions}, func(s *Settings) { s.VPCName, s.PublicIPs = "lab", false })
	m := r.mustLaunch("i1", offer("m7i.large", "us-east-1b"))
	if i := r.ec2.Instances()[0]; i.PublicIP != "" || r.list()[0].Address != i.PrivateIP || m.Zone != "us-east-1b" {
		t.Errorf("the machine is %+v", i)
	}
	for name, c := range map[string]struct {
		change  func(s *Settings)
		zone    string
		message string
	}{
		"the zone has only a public subnet":  {func(s *Settings) { s.VPCName, s.PublicIPs = "lab", false }, "us-east-1a", "no usable subnet in us-east-1a, only in us-east-1b"},
		"the zone has only a private subnet": {func(s *Settings) { s.VPCName = "lab" }, "us-east-1b", "no usable subnet in us-east-1b, only in us-east-1a"},
		"no default network":                 {nil, "us-east-1a", "aws us-east-1: the account has no default VPC there"},
		"no network of the name":             {func(s *Settings) { s.VPCName = "other" }, "us-east-1a", "aws us-east-1: there is no VPC with the name other"},
		"no network of the ID":               {func(s *Settings) { s.VPCIDs = map[string]string{"us-east-1": "vpc-0123456789abcdef9"} }, "us-east-1a", "there is no VPC vpc-0123456789abcdef9"},
		"a network without a subnet":         {func(s *Settings) { s.VPCIDs = map[string]string{"us-east-1": "vpc-0123456789abcdef0"} }, "us-east-1a", "vpc-0123456789abcdef0 has no subnet"},
		"a network that is not configured":   {func(s *Settings) { s.DefaultVPCs = false }, "us-east-1a", "vpc_ids has no VPC for it"},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.openAs(thisInstallation, c.change)
			_, err := p.Launch(t.Context(), launch("i2", offer("m7i.large", c.zone)))
			expectError(t, err, dstack.NoCapacity, c.message)
		})
	}
}

func TestLaunch_DeletedSecurityGroupIsMadeAgain(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	o := offer("m7i.large", "us-east-1a")
	m := r.mustLaunch("i1", o)
	if err := r.Terminate(t.Context(), []cloud.Machine{m}); err != nil {
		t.Fatal(err)
	}
	left, err := r.ListLeftovers(t.Context())
	if err != nil || len(left) != 1 || !left[0].IsShared {
		t.Fatalf("the leftovers are %+v, %v", left, err)
	}
	other := r.openAs(thisInstallation, nil) // as if somebody had deleted it
	if err := other.DeleteLeftover(t.Context(), left[0]); err != nil {
		t.Fatal(err)
	}
	r.mustLaunch("i2", o)
}

func TestLaunch_Cluster(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	l := launch("i1", offer("m7i.large", "us-east-1a"))
	l.Group = "fleet-1"
	m, err := r.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if i := r.ec2.Instances()[0]; len(i.SecurityGroups) != 2 || i.PlacementGroup != r.groupName("fleet-1") {
		t.Errorf("the machine is %+v", i)
	}
	if left, err := r.ListLeftovers(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("the leftovers are %+v, %v, want none while the machine runs", left, err)
	}
	if err := r.Terminate(t.Context(), []cloud.Machine{m}); err != nil {
		t.Fatal(err)
	}
	left, err := r.ListLeftovers(t.Context())
	kinds := map[string]bool{}
	for _, l := range left {
		kinds[l.Kind] = kinds[l.Kind] || !l.IsShared
		if err := r.DeleteLeftover(t.Context(), l); err != nil {
			t.Error(err)
		}
		if err := r.DeleteLeftover(t.Context(), l); err != nil {
			t.Errorf("deleting it twice: %v", err)
		}
	}
	if err != nil || len(left) != 3 || !kinds[kindSecurityGroup] || !kinds[kindPlacementGroup] {
		t.Errorf("the leftovers are %+v, %v", left, err)
	}
	if groups := r.ec2.PlacementGroups("us-east-1"); len(groups) > 0 {
		t.Errorf("there are still %v", groups)
	}
}

// TestLaunch_ManyAtOnce tests that launches share what they look up.
func TestLaunch_ManyAtOnce(t *testing.T) {
	const machines = 200
	r := open(t, ec2test.Options{Latency: 50 * time.Millisecond, Regions: map[string]ec2test.Region{"us-east-1": {
		Zones: []string{"us-east-1a"}, Quotas: map[string]int{"L-1216C47A": 1000}}}}, nil)
	began := time.Now()
	var group sync.WaitGroup
	for i := range machines {
		group.Go(func() {
			id := dstack.InstanceID("i" + string(rune('a'+i/26)) + string(rune('a'+i%26)))
			if _, err := r.Launch(t.Context(), launch(id, offer("m7i.large", "us-east-1a"))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	t.Logf("%d machines were requested in %s", machines, time.Since(began))
	for _, action := range []string{"DescribeVpcs", "DescribeSubnets", "DescribeRouteTables", "DescribeImages", "CreateSecurityGroup"} {
		if calls := r.ec2.CountCalls(action); calls != 1 {
			t.Errorf("%s was called %d times, want once", action, calls)
		}
	}
	if found := r.list(); len(found) != machines || r.ec2.CountCalls("DescribeInstances") != 1 {
		t.Errorf("%d machines, listed with %d calls", len(found), r.ec2.CountCalls("DescribeInstances"))
	}
}
