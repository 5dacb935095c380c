package volume

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func newDisk(name, zone string, change func(*dstack.Volume)) dstack.Volume {
	v := dstack.Volume{ID: dstack.VolumeID(name), Name: name, Backend: "aws", Machine: "aws", Region: "eu", Zone: zone, Status: dstack.VolumeActive,
		ExternalID: "vol-1", Since: testTime.Add(-time.Hour), Configuration: spec.Volume{Backend: "aws", Region: "eu"}}
	if change != nil {
		change(&v)
	}
	return v
}

func newService(replicas int, names ...string) spec.Service {
	s := spec.Service{Replicas: spec.Replicas{Min: replicas, Max: replicas}}
	for _, name := range names {
		s.Volumes = append(s.Volumes, spec.Mount{Name: name, Path: "/" + name})
	}
	return s
}

func TestChooseCloud(t *testing.T) {
	conf := spec.Volume{Backend: "aws", Region: "eu-west-1"}
	for name, c := range map[string]struct {
		clouds []Cloud
		key    string
		says   string
	}{
		"none":                     {nil, "", "no backend of type aws"},
		"the first":                {[]Cloud{{Key: "aws"}, {Key: "aws-2"}}, "aws", ""},
		"the one with the region":  {[]Cloud{{"aws", []string{"us-east-1"}}, {"aws-2", []string{"eu-west-1"}}}, "aws-2", ""},
		"another region is named":  {[]Cloud{{"aws", []string{"eu-west-2", "us-east-1"}}}, "", "does not use the region eu-west-1"},
		"the nearest region helps": {[]Cloud{{"aws", []string{"eu-west-2", "us-east-1"}}}, "", "eu-west-2"},
	} {
		got, err := ChooseCloud(conf, c.clouds)
		if got.Key != c.key || c.says != "" && (err == nil || !strings.Contains(describe(err), c.says)) {
			t.Errorf("%s: %q, %v", name, got.Key, err)
		}
	}
}

// The disks of a service pin its replicas to one zone of one backend.
func TestFindPin_Zones(t *testing.T) {
	for name, c := range map[string]struct {
		volumes []dstack.Volume
		want    []dstack.Zone
	}{
		"one zone":             {[]dstack.Volume{newDisk("a", "eu-a", nil)}, []dstack.Zone{{Backend: "aws", Region: "eu", Name: "eu-a"}}},
		"two in one zone":      {[]dstack.Volume{newDisk("a", "eu-a", nil), newDisk("b", "eu-a", nil)}, []dstack.Zone{{Backend: "aws", Region: "eu", Name: "eu-a"}}},
		"a zone not known yet": {[]dstack.Volume{newDisk("a", "eu-a", nil), newDisk("b", "", nil)}, []dstack.Zone{{Backend: "aws", Region: "eu", Name: "eu-a"}}},
		"two zones":            {[]dstack.Volume{newDisk("a", "eu-a", nil), newDisk("b", "eu-b", nil)}, nil},
		"two accounts": {[]dstack.Volume{newDisk("a", "eu-a", nil), newDisk("b", "eu-a", func(v *dstack.Volume) { v.Backend = "aws-2" })},
			nil},
		"a disk and a host": {[]dstack.Volume{newDisk("a", "eu-a", nil), {ID: "b", Name: "b", Backend: "ssh", Instance: "h", Machine: "h", Status: dstack.VolumeActive}},
			nil},
	} {
		var names []string
		for _, v := range c.volumes {
			names = append(names, v.Name)
		}
		pin := FindPin(newService(1, names...), c.volumes)
		if !slices.Equal(pin.Zones, c.want) || len(pin.Machines)+len(pin.Clusters) > 0 || len(c.volumes) == 1 && pin.Sharing != dstack.SharedByNobody {
			t.Errorf("%s: %+v", name, pin)
		}
		err := CheckMounts(newService(1, names...), "main", c.volumes)
		if (err == nil) != (c.want != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A disk is on one machine, and a rented machine runs one replica: a second replica could never start.
func TestCheckMounts_OneReplicaForADisk(t *testing.T) {
	volumes := []dstack.Volume{newDisk("data", "eu-a", nil)}
	err := CheckMounts(newService(2, "data"), "main", volumes)
	if err == nil || !strings.Contains(err.Error(), "attached to one machine at a time") {
		t.Errorf("%v", err)
	}
	notes := strings.Join(Notes(newService(1, "data"), volumes), "\n")
	if !strings.Contains(notes, "only machines in eu-a of aws can mount the volume data, one at a time") {
		t.Errorf("the notes are %q", notes)
	}
}

func TestFindDisks(t *testing.T) {
	volumes := []dstack.Volume{newDisk("data", "eu-a", nil), newDisk("other", "eu-a", nil)}
	here := dstack.Instance{ID: "i", Backend: "aws", Offer: dstack.Offer{Region: "eu", Zone: "eu-a"}}
	disks, err := FindDisks(newService(1, "data"), volumes, here)
	if err != nil || len(disks) != 1 || disks[0].Name != "data" {
		t.Errorf("%+v, %v", disks, err)
	}
	mounts, err := BuildMounts(newService(1, "data"), volumes, here)
	want := []dstack.Mount{{Kind: dstack.MountHostPath, Source: "/run/dstack/volumes/data", Target: "/data"}}
	if err != nil || !slices.Equal(mounts, want) {
		t.Errorf("%+v, %v", mounts, err)
	}
	here.Offer.Zone = "eu-b"
	if _, err := FindDisks(newService(1, "data"), volumes, here); dstack.KindOf(err) != dstack.NotFound {
		t.Errorf("a disk of another zone: %v", err)
	}
	unneeded := FindUnneeded(volumes, []spec.Service{newService(1, "data")})
	if len(unneeded) != 1 || unneeded[0].Name != "other" {
		t.Errorf("not needed: %+v", unneeded)
	}
}

// A disk that its cloud does not list is lost, unless it was created lately.
func TestDecide_InCloud(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*dstack.Volume)
		found  Result
		to     dstack.VolumeStatus
		reason string
	}{
		"still there":       {nil, Result{IsListed: true, Created: newDisk("data", "eu-a", nil)}, dstack.VolumeActive, ""},
		"lost":              {nil, Result{}, dstack.VolumeFailed, "its data is lost: aws does not have the disk vol-1 any more"},
		"not listed yet":    {func(v *dstack.Volume) { v.Since = testTime.Add(-time.Minute) }, Result{}, dstack.VolumeActive, "aws does not list it yet"},
		"throttled":         {nil, Result{Err: newError(dstack.Unavailable, "too many requests")}, dstack.VolumeActive, "aws does not answer: too many"},
		"no right":          {func(v *dstack.Volume) { v.Status, v.ExternalID = dstack.VolumeProvisioning, "" }, Result{Err: newError(dstack.Forbidden, "ec2:CreateVolume")}, dstack.VolumeFailed, "ec2:CreateVolume"},
		"deletion goes on":  {func(v *dstack.Volume) { v.Status = dstack.VolumeDeleting }, Result{IsListed: true}, dstack.VolumeDeleting, "aws deletes the disk vol-1"},
		"still attached":    {func(v *dstack.Volume) { v.Status = dstack.VolumeDeleting }, Result{Err: newError(dstack.Conflict, "it is attached")}, dstack.VolumeDeleting, "it is attached"},
		"registered, there": {func(v *dstack.Volume) { v.IsExternal = true }, Result{IsListed: true, Created: newDisk("data", "eu-a", nil)}, dstack.VolumeActive, ""},
	} {
		v := newDisk("data", "eu-a", c.change)
		step, err := Decide(v, testTime)
		if err != nil {
			t.Fatal(err)
		}
		step = step.After(v, c.found, testTime)
		if step.To != c.to || !strings.Contains(string(step.Reason), c.reason) || c.reason == "" && step.Reason != "" {
			t.Errorf("%s: %+v", name, step)
		}
	}
}
