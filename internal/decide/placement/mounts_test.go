package placement

import (
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
