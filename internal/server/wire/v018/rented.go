package v018

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// ListRented returns the rented machines of a fleet that clients see: without the rentals that failed.
func ListRented(a wire.FleetAnswer) []dstack.FleetInstance {
	return slices.DeleteFunc(slices.Clone(a.Fleet.Instances), func(m dstack.FleetInstance) bool {
		return m.Instance.Status == dstack.InstanceDeleting && m.Instance.LastResponseAt.IsZero()
	})
}

// buildRented returns the rented machines of a fleet.
func buildRented(a wire.FleetAnswer) []api.Instance {
	machines := []api.Instance{}
	for _, m := range ListRented(a) {
		status, isUnreachable := rentedStatus(m)
		o := m.Instance.Offer
		machines = append(machines, api.Instance{ID: buildUUID(string(m.Instance.ID)), ProjectName: a.Fleet.ProjectName, Backend: spec.Text(encodeBackend(o.Backend)),
			InstanceType: new(buildInstanceType(o)), Name: nameMachine(a, m.Num), InstanceNum: m.Num, PoolName: api.DefaultPool, Status: status,
			Unreachable: isUnreachable, Created: api.NewTimestamp(m.CreatedAt), Region: spec.Text(o.Region), Price: o.Price})
	}
	return machines
}

// buildMissing returns machines that a fleet does not have yet. Clients wait for those that are pending, and show the
// reason of those that are terminated.
func buildMissing(a wire.FleetAnswer) []api.Instance {
	missing := []api.Instance{}
	taken := map[int]bool{}
	for _, m := range a.Fleet.Instances {
		taken[m.Num] = true
	}
	for num := 0; len(missing) < a.Missing; num++ {
		if taken[num] {
			continue
		}
		status := "pending"
		if a.IsFinal {
			status = "terminated"
		}
		id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "dstack:fleet:%s:%d", a.Fleet.ID, num))
		missing = append(missing, api.Instance{ID: id.String(), ProjectName: a.Fleet.ProjectName, Name: nameMachine(a, num), InstanceNum: num,
			PoolName: api.DefaultPool, Status: status, Created: api.NewTimestamp(a.Fleet.AppliedAt)})
	}
	return missing
}

// nameMachine returns the name of a rented machine.
func nameMachine(a wire.FleetAnswer, num int) string { return fmt.Sprintf("%s-%d", a.Fleet.Name, num) }

// rentedStatus returns the status of a rented machine in the words of clients.
func rentedStatus(m dstack.FleetInstance) (status string, isUnreachable bool) {
	switch m.Instance.Status {
	case dstack.InstanceCreating:
		if !m.IsLeaving {
			return "provisioning", false
		}
		return "terminating", false
	case dstack.InstanceDeleting:
		return "terminating", false
	case dstack.InstanceDeleted:
		return "terminated", false
	case dstack.InstanceUp, dstack.InstanceAway:
	}
	isUnreachable = m.Instance.Status == dstack.InstanceAway
	switch {
	case m.Replicas > 0:
		return "busy", isUnreachable
	case m.IsLeaving:
		return "terminating", isUnreachable
	}
	return "idle", isUnreachable
}
