package placement

import (
	"slices"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

// A replica with volumes is placed only on the machines that have them, and a folder of the server's own machine is
// mounted only for a global admin.
func TestRankOffers_Mounts(t *testing.T) {
	engine := dstack.EngineCapabilities{Name: "docker", Containers: true, Mounts: true}
	offers := []dstack.Offer{
		{Type: "here", OwnedInstance: "here", Engine: engine},
		{Type: "gpu-1", OwnedInstance: "one", IsRemote: true, Engine: engine},
		{Type: "gpu-2", OwnedInstance: "two", IsRemote: true, Engine: engine},
		{Type: "rented", Engine: engine},
	}
	pin := &dstack.Pin{Machines: []dstack.InstanceID{"two"}, Reason: "the volume data is on gpu-2", Advice: "free gpu-2"}
	for name, c := range map[string]struct {
		need   dstack.Requirements
		suits  string
		reason string
	}{
		"pinned":              {dstack.Requirements{Pin: pin}, "gpu-2", "the volume data is on gpu-2"},
		"no machine":          {dstack.Requirements{Pin: &dstack.Pin{Reason: "the volume data is lost"}}, "", "the volume data is lost"},
		"folder":              {dstack.Requirements{HostPath: "/srv"}, "gpu-1 gpu-2 rented", "only global admins may mount folders such as /srv"},
		"folder of an admin":  {dstack.Requirements{HostPath: "/srv", IsGlobalAdmin: true}, "here gpu-1 gpu-2 rented", ""},
		"pinned, with filter": {dstack.Requirements{Pin: pin, InstanceTypes: []string{"gpu-1"}}, "", "`instance_types` allows only gpu-1"},
	} {
		t.Run(name, func(t *testing.T) {
			need := c.need
			need.Resources.GPU = nil
			placements, rejections := RankOffers(need, offers, nil)
			var suits []string
			for _, p := range placements {
				suits = append(suits, p.Offer.Type)
			}
			if got := strings.Join(suits, " "); got != c.suits {
				t.Errorf("placed on %q, not %q", got, c.suits)
			}
			var reasons strings.Builder
			for _, r := range rejections {
				reasons.WriteString(r.Reason + "\n")
			}
			if !strings.Contains(reasons.String(), c.reason) {
				t.Errorf("the reasons are %s", reasons.String())
			}
		})
	}
	away := Advise(dstack.Requirements{Pin: pin}, offers[:2], nil)
	if away != "free gpu-2" {
		t.Errorf("where the machine is away, the advice is %q", away)
	}
	there := Advise(dstack.Requirements{Pin: pin, IsGlobalAdmin: true, Port: 80}, offers,
		map[dstack.InstanceID]dstack.Allocation{"two": {Ports: map[int]string{80: "web"}}})
	if there == "free gpu-2" || there == "" {
		t.Errorf("where the machine is there, the advice is %q", there)
	}
}

// A claim that nodes mount one at a time keeps replicas on the node that has it, and one that replicas mount one at a time keeps
// them waiting.
func TestRankOffers_SharedClaims(t *testing.T) {
	offers := []dstack.Offer{
		{Type: "k1", Key: "kubernetes", OwnedInstance: "k1", IsRemote: true, IsManaged: true},
		{Type: "k2", Key: "kubernetes", OwnedInstance: "k2", IsRemote: true, IsManaged: true},
		{Type: "elsewhere", Key: "ssh", OwnedInstance: "one", IsRemote: true},
	}
	used := map[dstack.InstanceID]dstack.Allocation{
		"k1":  {Runs: []dstack.RunShare{{Run: "1", Template: 1, Replicas: 1, Holder: "other"}}},
		"k2":  {Runs: []dstack.RunShare{{Run: "2", Template: 1, Replicas: 1, Holder: "web"}}},
		"one": {Runs: []dstack.RunShare{{Run: "3", Replicas: 0, Holder: "web"}}},
	}
	pinned := func(sharing dstack.VolumeSharing, away ...dstack.InstanceID) dstack.Requirements {
		return dstack.Requirements{Run: "2", Template: 2, IsGlobalAdmin: true, Pin: &dstack.Pin{Clusters: []string{"kubernetes"}, Sharing: sharing,
			Users: []string{"web"}, Away: away, Reason: "the volume data is in the cluster kubernetes"}}
	}
	for name, c := range map[string]struct {
		need  dstack.Requirements
		suits string
	}{
		"shared by all":                 {pinned(dstack.SharedByAll), "k1 k2"},
		"by the replicas of one node":   {pinned(dstack.SharedByMachine), "k2"},
		"by nobody":                     {pinned(dstack.SharedByNobody), ""},
		"by replicas of a lost machine": {pinned(dstack.SharedByMachine, "k2"), "k1 k2"},
	} {
		placements, rejections := RankOffers(c.need, offers, used)
		var suits []string
		for _, p := range placements {
			suits = append(suits, p.Offer.Type)
		}
		slices.Sort(suits)
		if got := strings.Join(suits, " "); got != c.suits {
			t.Errorf("%s: placed on %q", name, got)
		}
		for _, r := range rejections {
			if r.Constraint == dstack.ConstraintFreeVolumes && (!slices.Equal(r.WaitsFor, []string{"web"}) || !strings.Contains(r.Reason, "web mounts it")) {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	outdated := []dstack.Replica{{Run: "2", TemplateRevision: 1, Instance: "k2", Status: dstack.ReplicaReady}}
	if found := FindPlacements(pinned(dstack.SharedByNobody), offers, used, outdated); !found.IsBlocked {
		t.Errorf("an update does not stop the replica that has the claim: %+v", found)
	}
}

// The machine named to a user whose volume is in another zone is one of the volume's backend, if any suits.
func TestAdviseOtherZone(t *testing.T) {
	engine := dstack.EngineCapabilities{Name: "docker", Containers: true, Mounts: true}
	offers := []dstack.Offer{
		{Backend: "gcp", Key: "gcp", Region: "us-central1", Zone: "us-central1-a", Type: "g2", Price: 1, IsRemote: true, Engine: engine},
		{Backend: "aws", Key: "aws", Region: "us-east-1", Zone: "us-east-1a", Type: "g6", Price: 2, IsRemote: true, Engine: engine},
	}
	need := dstack.Requirements{Pin: &dstack.Pin{Reason: "the volume data is in us-east-1c of aws", Zones: []dstack.Zone{{Backend: "aws", Region: "us-east-1", Name: "us-east-1c"}}}}
	for want, some := range map[string][]dstack.Offer{
		"g6 suits and is in us-east-1a of aws, but the volume data is in us-east-1c of aws: use a volume there (availability_zone: us-east-1a), or resources that a machine in us-east-1c has":                                          offers,
		"g2 suits and is in us-central1-a of gcp, but the volume data is in us-east-1c of aws: use a volume there (backend: gcp, region: us-central1, availability_zone: us-central1-a), or resources that a machine in us-east-1c has": offers[:1],
	} {
		if got := Advise(need, some, nil); got != want {
			t.Errorf("the advice is %q, want %q", got, want)
		}
	}
}

// Where the cloud has not told its zones yet, the advice names no zone that does not exist.
func TestAdvise_VolumeElsewhere(t *testing.T) {
	pin := &dstack.Pin{Zones: []dstack.Zone{{Backend: "aws", Region: "east", Name: "east-a"}}, Reason: "the volume data is in east-a of aws"}
	for zone, want := range map[string]string{"east-b": "(region: west, availability_zone: east-b)", "": "(region: west)"} {
		offer := dstack.Offer{Backend: "aws", Key: "aws", Region: "west", Zone: zone, Type: "large", IsRemote: true,
			Engine: dstack.EngineCapabilities{Containers: true, Mounts: true}}
		if got := Advise(dstack.Requirements{Pin: pin}, []dstack.Offer{offer}, nil); !strings.Contains(got, want) {
			t.Errorf("zone %q: the advice is %q", zone, got)
		}
	}
}
