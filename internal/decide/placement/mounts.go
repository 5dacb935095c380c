package placement

import (
	"fmt"
	"slices"

	"dstack/internal/dstack"
)

// mountConstraints are what a machine must be for the volumes and folders that a replica
// mounts.
func mountConstraints() []constraint {
	return []constraint{
		{name: dstack.ConstraintVolumes,
			applies: func(m *matcher) bool { return m.need.Pin != nil },
			fails: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
				return o.OwnedInstance == "" || !slices.Contains(m.need.Pin.Machines, o.OwnedInstance)
			},
			explain: func(m *matcher, _ *dstack.Offer, _ *dstack.Allocation) explanation {
				return explanation{reason: m.need.Pin.Reason}
			}},
		{name: dstack.ConstraintHostPath,
			applies: func(m *matcher) bool { return m.need.HostPath != "" && !m.need.IsGlobalAdmin },
			fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
				return o.OwnedInstance != "" && (!o.IsRemote || o.IsManaged)
			},
			explain: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
				if o.IsManaged {
					return explanation{wanted: m.need.HostPath, reason: fmt.Sprintf(
						"only global admins may mount folders of a cluster's nodes, such as %s", m.need.HostPath)}
				}
				return explanation{wanted: m.need.HostPath, reason: fmt.Sprintf(
					"it is the server's own machine, of which only global admins may mount folders such as %s", m.need.HostPath)}
			}},
	}
}

// adviseMounts returns what a user can do if no machine suits because of the volumes.
func adviseMounts(need dstack.Requirements, offers []dstack.Offer) (lines []string) {
	if need.Pin != nil && len(selectPinned(need, offers)) == 0 && need.Pin.Advice != "" {
		lines = append(lines, need.Pin.Advice)
	}
	if need.HostPath != "" && !need.IsGlobalAdmin && !slices.ContainsFunc(offers, func(o dstack.Offer) bool { return o.IsRemote && !o.IsManaged }) {
		lines = append(lines, "ask a global admin to apply the service, or use a volume in place of "+need.HostPath)
	}
	return lines
}

// selectPinned returns the machines that have the volumes; all, if a replica mounts none.
func selectPinned(need dstack.Requirements, offers []dstack.Offer) (pinned []dstack.Offer) {
	if need.Pin == nil {
		return offers
	}
	for _, o := range offers {
		if o.OwnedInstance != "" && slices.Contains(need.Pin.Machines, o.OwnedInstance) {
			pinned = append(pinned, o)
		}
	}
	return pinned
}
