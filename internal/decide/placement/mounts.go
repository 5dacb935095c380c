package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// mountConstraints are what a machine must be for the volumes and folders that a replica
// mounts.
func mountConstraints() []constraint {
	return []constraint{
		{name: dstack.ConstraintVolumes,
			applies: func(m *matcher) bool { return m.need.Pin != nil },
			fails:   func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return !hasVolumes(m.need.Pin, o) },
			explain: func(m *matcher, _ *dstack.Offer, _ *dstack.Allocation) explanation {
				return explanation{reason: m.need.Pin.Reason}
			}},
		{name: dstack.ConstraintFreeVolumes,
			applies: func(m *matcher) bool { return m.need.Pin != nil && m.need.Pin.Sharing != dstack.SharedByAll },
			fails: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
				return len(m.volumeUse.holdersFor(o.OwnedInstance)) > 0
			},
			explain: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
				holders := m.volumeUse.holdersFor(o.OwnedInstance)
				return explanation{waitsFor: holders, reason: fmt.Sprintf("%s, and can be mounted by %s at a time: %s mounts it%s",
					m.need.Pin.Reason, m.need.Pin.Sharing, strings.Join(holders, ", "), elsewhere(m.need.Pin))}
			}},
		{name: dstack.ConstraintHostPath,
			applies: func(m *matcher) bool { return m.need.HostPath != "" && !m.need.IsGlobalAdmin },
			fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
				return o.OwnedInstance != "" && (!o.IsRemote || o.IsManaged)
			},
			explain: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
				what := "the server's own machine"
				if o.IsManaged {
					what = "a node of a cluster that all projects share"
				}
				return explanation{wanted: m.need.HostPath, reason: fmt.Sprintf(
					"it is %s, of which only global admins may mount folders such as %s", what, m.need.HostPath)}
			}},
	}
}

// hasVolumes reports whether a machine has the volumes of a pin, or can attach them.
func hasVolumes(pin *dstack.Pin, o *dstack.Offer) bool {
	if o.OwnedInstance != "" && (slices.Contains(pin.Machines, o.OwnedInstance) || slices.Contains(pin.Clusters, o.Key)) {
		return true
	}
	return slices.ContainsFunc(pin.Zones, func(z dstack.Zone) bool {
		return z.Backend == o.Key && z.Region == o.Region && (z.Name == "" || z.Name == o.Zone)
	})
}

// elsewhere says where the other users of a volume are that only one machine can mount.
func elsewhere(pin *dstack.Pin) string {
	if pin.Sharing == dstack.SharedByMachine {
		return " on another one"
	}
	return ""
}

// volumeUse is the machines whose replicas mount a volume of a pin that not all may mount at the same time.
type volumeUse struct {
	sharing dstack.VolumeSharing
	holders map[dstack.InstanceID][]string // the runs on each machine, for the user
}

// findVolumeUse returns the users of the volumes of a pin.
func findVolumeUse(pin *dstack.Pin, used map[dstack.InstanceID]dstack.Allocation) (use volumeUse) {
	if pin == nil || pin.Sharing == dstack.SharedByAll {
		return use
	}
	use = volumeUse{pin.Sharing, map[dstack.InstanceID][]string{}}
	for id, held := range used {
		for _, share := range held.Runs {
			if share.Replicas > 0 && slices.Contains(pin.Users, share.Holder) && !slices.Contains(pin.Away, id) {
				use.holders[id] = appendNew(use.holders[id], []string{share.Holder})
			}
		}
	}
	return use
}

// holdersFor returns the runs that keep a replica off a machine: those on other machines, or all.
func (u volumeUse) holdersFor(machine dstack.InstanceID) (names []string) {
	for id, holders := range u.holders {
		if id != machine || u.sharing == dstack.SharedByNobody {
			names = appendNew(names, holders)
		}
	}
	slices.Sort(names)
	return names
}

// adviseMounts returns what a user can do if no machine suits because of the volumes.
func adviseMounts(need dstack.Requirements, offers []dstack.Offer) (lines []string) {
	if need.Pin != nil && len(selectPinned(need, offers)) == 0 && need.Pin.Advice != "" {
		lines = append(lines, need.Pin.Advice)
	} else if line := adviseOtherZone(need, offers); line != "" {
		lines = append(lines, line)
	}
	if need.HostPath != "" && !need.IsGlobalAdmin && !slices.ContainsFunc(offers, func(o dstack.Offer) bool { return o.IsRemote && !o.IsManaged }) {
		lines = append(lines, "ask a global admin to apply the service, or use a volume in place of "+need.HostPath)
	}
	return lines
}

// adviseOtherZone says that a machine would suit if the volumes of a replica were where it is; empty: none would.
func adviseOtherZone(need dstack.Requirements, offers []dstack.Offer) string {
	if need.Pin == nil || len(need.Pin.Zones) == 0 || Rank(need, offers, nil).Suitable() > 0 {
		return ""
	}
	pin := need.Pin
	need.Pin = nil
	suitable := Rank(need, offers, nil).Placements(maxFoundPlacements)
	if len(suitable) == 0 {
		return ""
	}
	o := suitable[max(0, slices.IndexFunc(suitable, func(p dstack.Placement) bool { return p.Offer.Key == pin.Zones[0].Backend }))].Offer
	return fmt.Sprintf("%s suits and is in %s of %s, but %s: use a volume there (%s), or resources that a machine in %s has",
		o.Type, cmp.Or(o.Zone, o.Region), o.Key, pin.Reason, placeFields(&o, pin.Zones[0]), cmp.Or(pin.Zones[0].Name, pin.Zones[0].Region))
}

// placeFields returns the fields of a volume that is where a machine is, as far as they differ from those of another place.
func placeFields(o *dstack.Offer, from dstack.Zone) string {
	var fields []string
	if o.Key != from.Backend {
		fields = append(fields, "backend: "+o.Backend)
	}
	if o.Region != from.Region {
		fields = append(fields, "region: "+o.Region)
	}
	if o.Zone != "" {
		fields = append(fields, "availability_zone: "+o.Zone)
	}
	return cmp.Or(strings.Join(fields, ", "), "region: "+o.Region) // the cloud has not told the zones of its types yet
}

// selectPinned returns the machines that have the volumes; all, if a replica mounts none.
func selectPinned(need dstack.Requirements, offers []dstack.Offer) (pinned []dstack.Offer) {
	if need.Pin == nil {
		return offers
	}
	for _, o := range offers {
		if hasVolumes(need.Pin, &o) {
			pinned = append(pinned, o)
		}
	}
	return pinned
}
