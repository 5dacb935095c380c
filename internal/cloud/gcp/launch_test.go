package gcp_test

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/cloud"
	"dstack/internal/cloud/gcp"
	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/dstack"
)

// newLaunch returns a launch in a zone; an empty zone: the cloud chooses one.
func newLaunch(id dstack.InstanceID, machineType, zone string) cloud.Launch {
	o := dstack.Offer{Region: "us-central1", Zone: zone, Type: machineType, Hardware: dstack.Hardware{DiskMiB: 100 << 10}}
	return cloud.Launch{Instance: id, Offer: o, Token: cloud.NewToken("i", id, o), Name: "dstack-llama31-0", UserData: "#!/bin/sh\n"}
}

func newGPULaunch(id dstack.InstanceID, machineType, zone, gpu string, gpus int) cloud.Launch {
	l := newLaunch(id, machineType, zone)
	for range gpus {
		l.Offer.Hardware.GPUs = append(l.Offer.Hardware.GPUs, dstack.GPU{Maker: "nvidia", Name: gpu})
	}
	return l
}

// failureOf returns the failure in an error; the zero value: it has none.
func failureOf(err error) dstack.MachineFailure {
	if f, ok := errors.AsType[*dstack.MachineFailure](err); ok {
		return *f
	}
	return dstack.MachineFailure{}
}

func findInstance(t *testing.T, s *computetest.Server, ref string) computetest.Instance {
	t.Helper()
	for _, i := range s.Instances() {
		if i.Name == ref {
			return i
		}
	}
	t.Fatalf("there is no machine %s among %+v", ref, s.Instances())
	return computetest.Instance{}
}

func TestLaunch_DescribesTheMachine(t *testing.T) {
	s := startServer(t, computetest.Options{})
	settings := newSettings(s)
	settings.Tags, settings.VMServiceAccount = map[string]string{"team": "search"}, "machines@test-project.iam.gserviceaccount.com"
	settings.SSHSources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	p := openProvider(t, settings, "0190a1b2")
	id := dstack.InstanceID("0194f1aa-7c01-7def-8000-00805f9b34fb")
	spot := newLaunch(id, "e2-standard-2", "us-central1-a")
	spot.Offer.Spot, spot.Labels = true, map[string]string{"dstack-run": "llama31", "dstack-project": "Main Project", "Bad key!": "x"}
	m, err := p.Launch(t.Context(), spot)
	if err != nil {
		t.Fatal(err)
	}
	i := findInstance(t, s, m.Ref)
	labels := map[string]string{
		"team": "search", "dstack-run": "llama31", "dstack-project": "main-project", "dstack-installation": "0190a1b2", "dstack-instance": string(id),
	}
	switch {
	case !i.Spot || i.DiskGB != 100 || string(i.UserData) != spot.UserData || i.Account != settings.VMServiceAccount:
		t.Errorf("machine %+v", i)
	case fmt.Sprint(i.Labels) != fmt.Sprint(labels):
		t.Errorf("labels %v, want %v", i.Labels, labels)
	case !strings.HasSuffix(i.Image, "/ubuntu-2404-lts-amd64"):
		t.Errorf("image %s", i.Image)
	case !strings.HasPrefix(i.Name, "dstack-llama31-0-0194f1aa7c017def800000805f9b34fb-") || !regexp.MustCompile(`^[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?$`).MatchString(i.Name):
		t.Errorf("name %s", i.Name)
	}
	if id, err := uuid.Parse(i.RequestID); err != nil || id.Version() != 5 {
		t.Errorf("the ID of the request is %q, want a UUID of version 5", i.RequestID)
	}
	for _, d := range s.Disks() {
		if d.Labels["dstack-role"] != "boot" || d.Labels["dstack-installation"] != "0190a1b2" || d.Labels["team"] != "search" {
			t.Errorf("disk %+v", d)
		}
	}
	rules := s.Objects("firewalls")
	if len(rules) != 1 || fmt.Sprint(rules[0]["sourceRanges"]) != "[203.0.113.0/24]" || fmt.Sprint(rules[0]["targetTags"]) != fmt.Sprint(i.Tags) ||
		fmt.Sprint(rules[0]["allowed"]) != "[map[IPProtocol:tcp ports:[22]]]" {
		t.Errorf("rules %v, tags %v", rules, i.Tags)
	}
}

func TestLaunch_ImagesAndGPUs(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	arm := newLaunch("arm", "c4a-standard-4", "us-central1-a")
	arm.Offer.Hardware.Arch = "arm"
	for _, c := range []struct {
		launch     cloud.Launch
		image, gpu string
		gpus       int
	}{
		{newLaunch("cpu", "n1-standard-4", "us-central1-a"), "ubuntu-2404-lts-amd64", "", 0},
		{arm, "ubuntu-2404-lts-arm64", "", 0},
		{newGPULaunch("l4", "g2-standard-4", "us-central1-a", "L4", 1), "ubuntu-accelerator-2404-amd64-with-nvidia-580", "", 0},
		{newGPULaunch("t4", "n1-standard-4", "us-central1-a", "T4", 2), "ubuntu-accelerator-2404-amd64-with-nvidia-580", "nvidia-tesla-t4", 2},
	} {
		m, err := p.Launch(t.Context(), c.launch)
		if err != nil {
			t.Errorf("%s: %v", c.launch.Instance, err)
			continue
		}
		if i := findInstance(t, s, m.Ref); !strings.HasSuffix(i.Image, "/"+c.image) || i.GPU != c.gpu || i.GPUs != c.gpus {
			t.Errorf("%s: image %s with %d×%q", c.launch.Instance, i.Image, i.GPUs, i.GPU)
		}
	}
	old := newGPULaunch("v100", "n1-standard-4", "us-central1-a", "V100", 1)
	s.SetQuota("us-central1", "NVIDIA_V100_GPUS", 1)
	if m, err := p.Launch(t.Context(), old); err != nil || !strings.Contains(findInstance(t, s, m.Ref).Image, "deeplearning") {
		t.Errorf("%+v, %v: the open driver does not know a V100", m, err)
	}
	settings := newSettings(s)
	settings.Images = gcp.Images{CPU: computetest.DefaultImages[2], Nvidia: computetest.DefaultImages[0]}
	p = openProvider(t, settings, "own")
	for _, c := range []struct {
		launch cloud.Launch
		image  string
	}{{newLaunch("cpu", "n1-standard-4", "us-central1-a"), settings.Images.CPU}, {newGPULaunch("l4", "g2-standard-4", "us-central1-a", "L4", 1), settings.Images.Nvidia}} {
		c.launch.Token = cloud.NewToken("own", c.launch.Instance, c.launch.Offer)
		if m, err := p.Launch(t.Context(), c.launch); err != nil || findInstance(t, s, m.Ref).Image != c.image {
			t.Errorf("%s: %v", c.launch.Instance, err)
		}
	}
}

func TestLaunch_Failures(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	s.SetCapacity(computetest.Place{Zone: "us-central1-a", Type: "n2-standard-8"}, 0)
	s.SetCapacity(computetest.Place{Zone: "us-central1-b", Type: "n2-standard-8"}, 0)
	tpu := newLaunch("tpu", "v5litepod-8", "us-central1-a")
	tpu.Offer.Hardware.GPUs = []dstack.GPU{{Maker: "google", Name: "v5litepod"}}
	elsewhere := newLaunch("elsewhere", "e2-standard-2", "us-east1-b")
	for _, c := range []struct {
		name    string
		launch  cloud.Launch
		want    dstack.MachineFailure // Message: a part of it
		hint    string
		quietly bool // nothing is asked of the cloud
	}{
		{"capacity", newLaunch("a", "n2-standard-8", "us-central1-a"), dstack.MachineFailure{
			Cause: dstack.FailureNoCapacity, Zones: []string{"us-central1-c"}, Message: "us-central1-a has no on-demand machines of type n2-standard-8 left",
		}, "", false},
		{"quota", newGPULaunch("b", "n1-standard-4", "us-central1-a", "V100", 1), dstack.MachineFailure{
			Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"n1-standard-4"}, Message: "the quota NVIDIA_V100_GPUS of us-central1 is used up: its limit is 0",
		}, "ask Google for a higher quota", false},
		{"a type that the zone lacks", newGPULaunch("c", "a2-highgpu-1g", "us-central1-a", "A100", 1), dstack.MachineFailure{
			Cause: dstack.FailureNoCapacity, Message: "us-central1-a does not offer a2-highgpu-1g",
		}, "", false},
		{"a GPU that the zone lacks", newGPULaunch("d", "n1-standard-4", "us-central1-c", "T4", 1), dstack.MachineFailure{
			Cause: dstack.FailureNoCapacity, Message: "us-central1-c does not offer n1-standard-4",
		}, "", false},
		{"a GPU that cannot be added", newGPULaunch("e", "n1-standard-4", "us-central1-a", "H100", 1), dstack.MachineFailure{
			Cause: dstack.FailureNoCapacity, Scope: dstack.ScopeRegion, Message: "GCP cannot add a GPU of type H100",
		}, "", true},
		{"a zone that does not exist", newLaunch("f", "e2-standard-2", "us-central1-z"), dstack.MachineFailure{
			Cause: dstack.FailureNoCapacity, Message: "GCP has no zone us-central1-z",
		}, "", false},
		{"a TPU", tpu, dstack.MachineFailure{
			Cause: dstack.FailureNoCapacity, Scope: dstack.ScopeTypes, Types: []string{"v5litepod-8"}, Message: "dstack cannot rent TPUs of GCP, such as v5litepod-8",
		}, "gpu: nvidia", true},
		{"a zone of another region", elsewhere, dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Message: "us-east1-b is not part of the region us-central1"}, "", true},
	} {
		before := s.CountCalls("instances.insert")
		_, err := p.Launch(t.Context(), c.launch)
		got := failureOf(err)
		message := got.Message
		got.Message = c.want.Message
		if dstack.KindOf(err) != dstack.NoCapacity || !strings.Contains(message, c.want.Message) || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, failure %+v, want %+v", c.name, err, failureOf(err), c.want)
		}
		if e, ok := errors.AsType[*dstack.Error](err); ok && !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%s: the hint is %q", c.name, e.Hint)
		}
		if asked := s.CountCalls("instances.insert") > before; asked == c.quietly {
			t.Errorf("%s: the cloud was asked: %t", c.name, asked)
		}
	}
	if left := s.Instances(); len(left) > 0 {
		t.Errorf("machines %+v", left)
	}
}

func TestLaunch_ChoosesAZone(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	for _, zone := range []string{"us-central1-a", "us-central1-c"} {
		s.SetCapacity(computetest.Place{Zone: zone, Type: "e2-standard-2"}, 0)
	}
	for n := range 3 {
		m, err := p.Launch(t.Context(), newLaunch(dstack.InstanceID(fmt.Sprint("one-", n)), "e2-standard-2", ""))
		if err != nil || m.Zone != "us-central1-b" {
			t.Errorf("%+v, %v, want the zone that has room", m, err)
		}
		again, err := p.Launch(t.Context(), newLaunch(dstack.InstanceID(fmt.Sprint("one-", n)), "e2-standard-2", ""))
		if err != nil || again.Ref != m.Ref || again.Zone != m.Zone {
			t.Errorf("%+v, %v, want %+v", again, err, m)
		}
	}
	if got := len(s.Instances()); got != 3 {
		t.Errorf("%d machines", got)
	}
	s.SetCapacity(computetest.Place{Zone: "us-central1-b", Type: "e2-standard-2"}, 0)
	_, err := p.Launch(t.Context(), newLaunch("two", "e2-standard-2", ""))
	if f := failureOf(err); f.Scope != dstack.ScopeRegion || f.Cause != dstack.FailureNoCapacity {
		t.Errorf("%v, failure %+v", err, f)
	}
	_, err = p.Launch(t.Context(), newLaunch("three", "zz9-plural", ""))
	if f := failureOf(err); f.Scope != dstack.ScopeRegion || !strings.Contains(f.Message, "no zone of us-central1 offers zz9-plural") {
		t.Errorf("%v, failure %+v", err, f)
	}
}

func TestLaunch_Network(t *testing.T) {
	const host = "host-project"
	networks := []computetest.Network{
		{Project: computetest.DefaultProject, Name: "default", Subnets: map[string]string{"us-central1": "default", "us-east1": "default"}, NAT: map[string]bool{"us-east1": true}},
		{Project: host, Name: "shared", Subnets: map[string]string{"us-central1": "team-a"}},
	}
	s := startServer(t, computetest.Options{Networks: networks})
	launch := func(id dstack.InstanceID, region string, change func(*gcp.Settings)) error {
		settings := newSettings(s)
		change(&settings)
		l := newLaunch(id, "e2-standard-2", region+"-b")
		l.Offer.Region = region
		_, err := openProvider(t, settings, dstack.Installation(id)).Launch(t.Context(), l)
		return err
	}
	for _, c := range []struct {
		name, region string
		change       func(*gcp.Settings)
		scope        dstack.FailureScope
		message      string // empty: the machine is rented
	}{
		{"the default VPC", "us-central1", func(*gcp.Settings) {}, "", ""},
		{"a region without a subnet", "europe-west4", func(*gcp.Settings) {}, dstack.ScopePlace, "the VPC default has no subnet in europe-west4"},
		{"a VPC that does not exist", "us-central1", func(s *gcp.Settings) { s.VPCName = "vpc-1" }, dstack.ScopeBackend, "the VPC vpc-1 of the project test-project has no subnets, or does not exist"},
		{"a shared VPC", "us-central1", func(s *gcp.Settings) { s.VPCName, s.VPCProjectID = "shared", host }, "", ""},
		{"a named subnet", "us-central1", func(s *gcp.Settings) {
			s.VPCName, s.VPCProjectID, s.Subnetworks = "shared", host, map[string]string{"us-central1": "team-a"}
		}, "", ""},
		{"a named subnet that does not exist", "us-central1", func(s *gcp.Settings) {
			s.VPCName, s.VPCProjectID, s.Subnetworks = "shared", host, map[string]string{"us-central1": "team-b"}
		}, dstack.ScopePlace, "something that the configuration names does not exist"},
		{"no way to the internet", "us-central1", func(s *gcp.Settings) { s.PublicIPs = false }, dstack.ScopePlace, "machines of us-central1 would not reach the internet"},
		{"a way of its own to the internet", "us-central1", func(s *gcp.Settings) { s.PublicIPs, s.SkipNATCheck = false, true }, "", ""},
		{"a NAT gateway", "us-east1", func(s *gcp.Settings) { s.PublicIPs = false }, "", ""},
		{"a region that is not configured", "us-central1", func(s *gcp.Settings) { s.Regions = []string{"us-east1"} }, dstack.ScopePlace, "is not one of `regions`"},
	} {
		err := launch(dstack.InstanceID(strings.ReplaceAll(c.name, " ", "-")), c.region, c.change)
		if f := failureOf(err); (err == nil) != (c.message == "") || err != nil && (f.Scope != c.scope || !strings.Contains(f.Message, c.message)) {
			t.Errorf("%s: %v, failure %+v", c.name, err, f)
		}
	}
	// Those who share their VPC may keep its firewall to themselves.
	s.SetAccount(computetest.DefaultAccount, computetest.Account{Denied: []string{"compute.firewalls.get", "compute.firewalls.create"}})
	if err := launch("theirs", "us-central1", func(s *gcp.Settings) { s.VPCName, s.VPCProjectID = "shared", host }); err != nil {
		t.Error(err)
	}
	if err := launch("ours", "us-central1", func(*gcp.Settings) {}); dstack.KindOf(err) != dstack.Forbidden || !strings.Contains(err.Error(), "compute.firewalls.get") {
		t.Errorf("%v, want the missing permission", err)
	}
}

func TestLaunch_MachinesWithoutPublicAddresses(t *testing.T) {
	s := startServer(t, computetest.Options{})
	settings := newSettings(s)
	settings.PublicIPs, settings.SkipNATCheck = false, true
	p := openProvider(t, settings, "i")
	if _, err := p.Launch(t.Context(), newLaunch("one", "e2-standard-2", "us-central1-a")); err != nil {
		t.Fatal(err)
	}
	list, err := p.ListMachines(t.Context())
	if err != nil || len(list) != 1 || list[0].Address == "" || list[0].Address != list[0].Private || s.Instances()[0].PublicIP != "" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestLaunch_Groups: a group has one placement policy and one rule for its machines, which are kept while it has any.
func TestLaunch_Groups(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	var machines []cloud.Machine
	for _, id := range []dstack.InstanceID{"one", "two"} {
		l := newLaunch(id, "n2-standard-8", "us-central1-a")
		l.Group = "cluster"
		m, err := p.Launch(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, m)
	}
	if policies, rules := s.Objects("resourcePolicies"), s.Objects("firewalls"); len(policies) != 1 || len(rules) != 2 {
		t.Errorf("policies %v, rules %v", policies, rules)
	}
	s.SetSteps(computetest.Steps{Other: time.Minute})
	slow := newLaunch("three", "n2-standard-8", "us-central1-a")
	slow.Group = "other"
	if _, err := p.Launch(t.Context(), slow); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("%v: a machine cannot refer to a policy that is being made", err)
	}
	s.Advance(time.Minute)
	if _, err := p.Launch(t.Context(), slow); err != nil {
		t.Error(err)
	}
	if err := p.Terminate(t.Context(), machines); err != nil {
		t.Fatal(err)
	}
	left, err := p.ListLeftovers(t.Context())
	kinds := []string{}
	for _, l := range left {
		kinds = append(kinds, l.Kind)
	}
	slices.Sort(kinds)
	if err != nil || fmt.Sprint(kinds) != "[firewall rule placement policy]" {
		t.Errorf("leftovers %+v, %v: those of the group that has ended", left, err)
	}
}

// hintOf returns what an error says to do.
func hintOf(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		return e.Hint
	}
	return ""
}

// TestLaunch_TokenOfAnother: the operation of a token that was used for another machine goes on.
func TestLaunch_TokenOfAnother(t *testing.T) {
	s := startServer(t, computetest.Options{Steps: computetest.Steps{Running: time.Minute}})
	p := openProvider(t, newSettings(s), "i")
	one, two := newLaunch("one", "e2-standard-2", "us-central1-a"), newLaunch("two", "e2-standard-2", "us-central1-a")
	two.Token = one.Token
	mustLaunch(t, p, one)
	if m, err := p.Launch(t.Context(), two); dstack.KindOf(err) != dstack.Conflict || len(s.Instances()) != 1 {
		t.Errorf("%+v, %v, machines %+v", m, err, s.Instances())
	}
}
