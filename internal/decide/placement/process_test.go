package placement_test

import (
	"strings"
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

func processBox() dstack.Offer {
	return box(func(o *dstack.Offer) { o.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true} })
}

// Plain processes have the rights of the server's user, so only global admins get them.
// Containers are for everybody.
func TestRankOffers_ProcessesAreForGlobalAdmins(t *testing.T) {
	for _, c := range []struct {
		name   string
		offer  dstack.Offer
		admin  bool
		placed bool
	}{
		{"an admin gets processes", processBox(), true, true},
		{"another user does not", processBox(), false, false},
		{"an admin gets containers", box(nil), true, true},
		{"another user gets containers", box(nil), false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			placements, rejections := placement.RankOffers(dstack.Requirements{IsGlobalAdmin: c.admin}, []dstack.Offer{c.offer}, nil)
			if placed := len(placements) == 1; placed != c.placed || placed != (len(rejections) == 0) {
				t.Fatalf("placements %v, rejections %v", placements, rejections)
			}
			if !c.placed && (!placement.IsForGlobalAdmins(rejections[0]) || !strings.Contains(rejections[0].String(), "only global admins may use; install Docker")) {
				t.Errorf("the reason is %q", rejections[0].Reason)
			}
		})
	}
}

// A replica that listens on a chosen port claims none, and shares the machine with a
// replica that has the port of its configuration.
func TestRankOffers_ChosenPortsAreNotClaimed(t *testing.T) {
	used := map[dstack.InstanceID]dstack.Allocation{"this": {Ports: map[int]string{8000: "web replica 0"}}}
	need := dstack.Requirements{IsGlobalAdmin: true, Port: 8000}
	if placements, rejections := placement.RankOffers(need, []dstack.Offer{processBox()}, used); len(placements) > 0 || placement.IsForGlobalAdmins(rejections[0]) {
		t.Errorf("a taken port: %v, %v", placements, rejections)
	}
	need.AnyPort = true
	placements, rejections := placement.RankOffers(need, []dstack.Offer{processBox()}, used)
	if len(placements) != 1 || len(placements[0].Claim.Ports) > 0 {
		t.Errorf("a chosen port: %v, %v", placements, rejections)
	}
}
