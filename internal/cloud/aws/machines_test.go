package aws

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
)

func TestListMachines_FollowsTheirLives(t *testing.T) {
	r := open(t, ec2test.Options{Steps: ec2test.Steps{Lag: 30 * time.Second, Running: time.Minute, Terminated: 2 * time.Minute}}, nil)
	m := r.mustLaunch("i1", offer("m7i.large", "us-east-1a"))
	if m.State != cloud.MachinePending {
		t.Errorf("a new machine is %s", m.State)
	}
	if found := r.list(); len(found) != 0 {
		t.Errorf("the listing shows %+v before its time", found)
	}
	expect := func(when time.Duration, want cloud.MachineState) {
		t.Helper()
		r.ec2.Advance(when)
		if found := r.list(); len(found) != 1 || found[0].State != want || found[0].Failure != nil {
			t.Errorf("the listing is %+v, want %s", found, want)
		}
	}
	expect(31*time.Second, cloud.MachinePending)
	expect(time.Minute, cloud.MachineRunning)
	if err := r.Terminate(t.Context(), []cloud.Machine{m}); err != nil {
		t.Fatal(err)
	}
	expect(time.Minute, cloud.MachineEnding)
	expect(2*time.Minute, cloud.MachineEnded)
	r.ec2.Advance(2 * time.Hour)
	if found := r.list(); len(found) != 0 {
		t.Errorf("the listing is %+v", found)
	}
}

// A region that the account has not enabled, or that is misspelled, does not stop what is rented in the others.
func TestListings_OfRegionsThatAreNotEnabled(t *testing.T) {
	for _, regions := range [][]string{{"us-east-1", "us-esat-1"}, {"us-esat-1", "us-east-1"}} {
		r := open(t, ec2test.Options{}, func(s *Settings) { s.Regions = regions })
		r.mustLaunch("i1", offer("t3.micro", "us-east-1a"))
		if found := r.list(); len(found) != 1 {
			t.Errorf("%v: the listing is %+v", regions, found)
		}
		if _, err := r.ListDisks(t.Context(), nil); err != nil {
			t.Errorf("%v: disks: %v", regions, err)
		}
		if _, err := r.ListLeftovers(t.Context()); err != nil {
			t.Errorf("%v: leftovers: %v", regions, err)
		}
	}
}

func TestListMachines_ReadsManyPages(t *testing.T) {
	r := open(t, ec2test.Options{PageSize: 2}, nil)
	for _, id := range []dstack.InstanceID{"i1", "i2", "i3", "i4", "i5"} {
		r.mustLaunch(id, offer("t3.micro", "us-east-1a"))
	}
	var ids []string
	for _, m := range r.list() {
		ids = append(ids, string(m.Instance))
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"i1", "i2", "i3", "i4", "i5"}) {
		t.Errorf("the listing has %v", ids)
	}
}

func TestListMachines_SeesOnlyItsInstallation(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	mine := r.mustLaunch("i1", offer("m7i.large", "us-east-1a"))
	other := r.openAs("two", nil)
	l := launch("i1", offer("m7i.large", "us-east-1a"))
	l.Token = cloud.NewToken("two", "i1", l.Offer)
	theirs, err := other.Launch(t.Context(), l)
	if err != nil || theirs.Ref == mine.Ref {
		t.Fatalf("the other installation has %s, %v", theirs.Ref, err)
	}
	if found := r.list(); len(found) != 1 || found[0].Ref != mine.Ref {
		t.Errorf("the listing is %+v", found)
	}
	for _, p := range []*Provider{r.Provider, other} {
		left, err := p.ListLeftovers(t.Context())
		if err != nil || len(left) != 0 {
			t.Errorf("the leftovers are %+v, %v", left, err)
		}
	}
	if groups := r.ec2.SecurityGroups("us-east-1"); len(groups) != 2 {
		t.Errorf("the security groups are %v, want one for each installation", groups)
	}
}

func TestListMachines_SaysWhichRegionFails(t *testing.T) {
	r := open(t, ec2test.Options{}, func(s *Settings) { s.Regions = []string{"us-east-1", "us-west-2", "eu-west-1"} })
	r.mustLaunch("i1", offer("m7i.large", "us-east-1a"))
	r.ec2.Inject(ec2test.Fault{Action: "DescribeInstances", Region: "us-west-2", Status: 503, Code: "Unavailable", Message: "down"})
	found, err := r.ListMachines(t.Context())
	expectError(t, err, dstack.Unavailable, "aws: DescribeInstances in us-west-2: down (Unavailable)")
	if len(found) != 1 {
		t.Errorf("the machines of the other regions are %+v", found)
	}
}

// TestListMachines_OfRemovedRegions tests that a region's machines are not forgotten once the configuration does not name
// it, and that the API is not asked about empty regions all the time.
func TestListMachines_OfRemovedRegions(t *testing.T) {
	r := open(t, ec2test.Options{}, func(s *Settings) { s.Regions = []string{"us-east-1", "us-west-2"} })
	m := r.mustLaunch("i1", offer("m7i.large", "us-west-2a"))
	later := r.openAs(thisInstallation, nil)
	for range 3 {
		found, err := later.ListMachines(t.Context())
		if err != nil || len(found) != 1 || found[0].Ref != m.Ref {
			t.Fatalf("the listing is %+v, %v", found, err)
		}
	}
	calls := map[string]int{}
	for _, c := range r.ec2.Calls() {
		if c.Action == "DescribeInstances" {
			calls[c.Region]++
		}
	}
	if calls["us-east-1"] != 3 || calls["us-west-2"] != 3 || calls["eu-west-1"] != 1 {
		t.Errorf("the regions were asked %v", calls)
	}
	if _, err := r.CreateDisk(t.Context(), cloud.Disk{Volume: "v1", Region: "us-west-2", SizeMiB: 1 << 10}); err != nil {
		t.Fatal(err)
	}
	if disks, err := later.ListDisks(t.Context(), nil); err != nil || len(disks) != 1 {
		t.Errorf("the disks are %+v, %v", disks, err)
	}
	r.ec2.Inject(ec2test.Fault{Action: "DescribeInstances", Region: "us-west-2", Status: 503, Code: "Unavailable", Message: "down"})
	if _, err := later.ListMachines(t.Context()); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the error is %v: the listing lacks a machine", err)
	}
}

func TestListMachines_SaysWhyMachinesEnded(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	spot := offer("m7i.large", "us-east-1a")
	spot.Spot = true
	for _, c := range []struct {
		id      dstack.InstanceID
		code    string
		message string
		want    dstack.MachineFailure
	}{
		{"spot", "Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination",
			dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: "aws took the spot machine m7i.large back in us-east-1a"}},
		{"late", "Server.InsufficientInstanceCapacity", "Server.InsufficientInstanceCapacity: Insufficient capacity available",
			dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Message: "aws has no spot m7i.large left in us-east-1a"}},
		{"disk", "Client.VolumeLimitExceeded", "Client.VolumeLimitExceeded: Volume limit exceeded",
			dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopePlace, Message: "aws: a quota of the account is used up in us-east-1: Volume limit exceeded (VolumeLimitExceeded)"}},
		{"own", "Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
			dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "aws: the machine shut itself down"}},
		{"error", "Server.InternalError", "Server.InternalError: Internal error on launch",
			dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "aws ended the machine: Internal error on launch (Server.InternalError)"}},
	} {
		m := r.mustLaunch(c.id, spot)
		r.ec2.Fail(m.Ref, c.code, c.message)
		i := slices.IndexFunc(r.list(), func(m cloud.Machine) bool { return m.Instance == c.id })
		got := r.list()[i]
		if got.State != cloud.MachineEnded || got.Failure == nil || got.Failure.Cause != c.want.Cause || got.Failure.Scope != c.want.Scope || got.Failure.Message != c.want.Message {
			t.Errorf("%s: the machine is %s, %+v", c.id, got.State, got.Failure)
		}
	}
	r.ec2.Inject(ec2test.Fault{Action: "RunInstances", StateReason: "Server.InsufficientInstanceCapacity", Message: "Insufficient capacity", Times: 1})
	r.mustLaunch("silent", spot) // answered with success
	i := slices.IndexFunc(r.list(), func(m cloud.Machine) bool { return m.Instance == "silent" })
	if got := r.list()[i]; got.State != cloud.MachineEnded || got.Failure == nil || got.Failure.Cause != dstack.FailureNoCapacity {
		t.Errorf("the machine is %s, %+v", got.State, got.Failure)
	}
}

func TestTerminate_SkipsWhatDoesNotExist(t *testing.T) {
	r := open(t, ec2test.Options{}, func(s *Settings) { s.Regions = []string{"us-east-1", "us-west-2"} })
	first := r.mustLaunch("i1", offer("m7i.large", "us-east-1a"))
	second := r.mustLaunch("i2", offer("m7i.large", "us-east-1b"))
	third := r.mustLaunch("i3", offer("m7i.large", "us-west-2a"))
	gone := cloud.Machine{Ref: "i-00000000000000000", Region: "us-east-1"}
	if err := r.Terminate(t.Context(), []cloud.Machine{first, gone, second, third, {Ref: "", Region: "us-east-1"}}); err != nil {
		t.Fatal(err)
	}
	if alive := r.ec2.Alive(); len(alive) != 0 {
		t.Errorf("still there: %+v", alive)
	}
	if err := r.Terminate(t.Context(), []cloud.Machine{first, gone}); err != nil {
		t.Errorf("repeated: %v", err)
	}
	r.ec2.Inject(ec2test.Fault{Action: "TerminateInstances", Code: "OperationNotPermitted", Message: "The instance 'i-1' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", Status: 400})
	err := r.Terminate(t.Context(), []cloud.Machine{third})
	expectError(t, err, dstack.Conflict, "disableApiTermination")
}

func TestDisks_Life(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	ctx := t.Context()
	d, err := r.CreateDisk(ctx, cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1b", SizeMiB: 100<<10 - 5})
	if err != nil || d.Zone != "us-east-1b" || d.SizeMiB != 100<<10 || d.Price != 8 || d.Volume != "v1" || d.Device.Serial != strings.ReplaceAll(d.Ref, "-", "") {
		t.Fatalf("the disk is %+v, %v", d, err)
	}
	again, err := r.CreateDisk(ctx, cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1b", SizeMiB: 100 << 10})
	if err != nil || again.Ref != d.Ref {
		t.Errorf("the repeated request made %s, %v", again.Ref, err)
	}
	m := r.mustLaunch("i1", offer("m7i.large", "us-east-1b"))
	elsewhere := r.mustLaunch("i2", offer("m7i.large", "us-east-1a"))
	neighbour := r.mustLaunch("i3", offer("m7i.large", "us-east-1b"))
	expectError(t, r.AttachDisk(ctx, d, elsewhere), dstack.Invalid, "is in us-east-1b, and the machine "+elsewhere.Ref+" in us-east-1a")
	for range 2 {
		if err := r.AttachDisk(ctx, d, m); err != nil {
			t.Fatal(err)
		}
	}
	expectError(t, r.AttachDisk(ctx, d, neighbour), dstack.Conflict, "attached to the machine "+m.Ref)
	expectError(t, r.DeleteDisk(ctx, d), dstack.Conflict, "VolumeInUse")
	other, err := r.CreateDisk(ctx, cloud.Disk{Volume: "v2", Region: "us-east-1", Zone: "us-east-1b", SizeMiB: 10 << 10})
	if err != nil || r.AttachDisk(ctx, other, m) != nil {
		t.Fatal("a second disk of the machine:", err)
	}
	disks := r.listDisks(nil)
	if len(disks) != 2 || disks["v1"].State != cloud.DiskInUse || len(disks["v1"].Attached) != 1 || !disks["v1"].Attached[0].IsReady || disks["v1"].Attached[0].Ref != m.Ref {
		t.Errorf("the disks are %+v", disks) // that of the system is not one of them
	}
	for range 2 {
		if err := r.DetachDisk(ctx, d, m); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := r.DeleteDisk(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	if disks := r.listDisks(nil); len(disks) != 1 {
		t.Errorf("the disks are %+v", disks)
	}
}

func (r *rig) listDisks(external []cloud.Disk) map[dstack.VolumeID]cloud.Disk {
	r.t.Helper()
	list, err := r.ListDisks(r.t.Context(), external)
	if err != nil {
		r.t.Fatal(err)
	}
	byVolume := map[dstack.VolumeID]cloud.Disk{}
	for _, d := range list {
		if d.IsExternal {
			d.Volume = dstack.VolumeID(d.Ref)
		}
		byVolume[d.Volume] = d
	}
	return byVolume
}

func TestDisks_LostAnswerMakesOne(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	wanted := cloud.Disk{Volume: "v1", Region: "us-east-1", SizeMiB: 10 << 10}
	r.ec2.Inject(ec2test.Fault{Action: "CreateVolume", Done: true, Status: 500, Code: "InternalError", Times: 3})
	if _, err := r.CreateDisk(t.Context(), wanted); dstack.KindOf(err) != dstack.Unavailable {
		t.Fatalf("the error is %v", err)
	}
	if _, err := r.CreateDisk(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if volumes := r.ec2.Volumes(); len(volumes) != 1 || volumes[0].Zone != "us-east-1a" {
		t.Errorf("the volumes are %+v", volumes)
	}
}

func TestDisks_External(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	ref := r.ec2.AddVolume("us-west-2", "us-west-2b", 50)
	d, err := r.CreateDisk(t.Context(), cloud.Disk{Ref: ref, IsExternal: true, Region: "us-west-2"})
	if err != nil || d.Zone != "us-west-2b" || d.SizeMiB != 50<<10 || !d.IsExternal || d.State != cloud.DiskReady {
		t.Fatalf("the disk is %+v, %v", d, err)
	}
	if disks := r.listDisks([]cloud.Disk{d, {Ref: "vol-0123456789abcdef0", Region: "us-west-2", IsExternal: true}}); len(disks) != 1 {
		t.Errorf("the disks are %+v", disks)
	}
	if err := r.DeleteDisk(t.Context(), d); err != nil || len(r.ec2.Volumes()) != 1 {
		t.Errorf("an external disk was deleted: %v", err)
	}
	for ref, message := range map[string]string{"vol-0123456789abcdef0": "there is no disk vol-0123456789abcdef0 in us-west-2", "my-disk": "my-disk is not the ID of a disk"} {
		_, err = r.CreateDisk(t.Context(), cloud.Disk{Ref: ref, IsExternal: true, Region: "us-west-2"})
		expectError(t, err, dstack.NotFound, message)
	}
	_, err = r.CreateDisk(t.Context(), cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1z", SizeMiB: 1 << 10})
	expectError(t, err, dstack.NotFound, "there is no zone us-east-1z")
	old := cloud.Machine{Ref: "i-1", Region: "us-west-2", Type: "m4.large"}
	expectError(t, r.AttachDisk(t.Context(), d, old), dstack.Invalid, "volumes cannot be used on m4.large")
}
