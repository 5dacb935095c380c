package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// leaveFleet deletes a machine that leaves its cloud fleet, as soon as it has no replicas.
func leaveFleet(seen InstanceFacts, now time.Time) (InstanceStep, bool) {
	m := seen.Member
	if m == nil || !m.IsLeaving || len(seen.Replicas) > 0 {
		return InstanceStep{}, false
	}
	switch seen.Instance.Status {
	case dstack.InstanceCreating, dstack.InstanceUp, dstack.InstanceAway:
		return deleteInstance(m.Reason, now), true
	case dstack.InstanceDeleting, dstack.InstanceDeleted:
	}
	return InstanceStep{}, false
}
