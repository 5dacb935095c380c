package host

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// FindSameMachine returns why a host may not be used because another entry is the same
// machine; nil: none is. The entry that was in use first keeps the machine. A Docker
// Engine's ID alone does not tell machines apart, because copies of a disk have it as well.
func FindSameMachine(h dstack.Host, found dstack.HostFacts, all []dstack.Host) *Failure {
	if found.EngineID == "" {
		return nil
	}
	for _, other := range all {
		if other.ID == h.ID || other.Check.Found.EngineID != found.EngineID || other.Check.Found.MachineID != found.MachineID {
			continue
		}
		if !inUse(other) || inUse(h) && isEarlier(h, other) {
			continue
		}
		name := "a host of another project"
		if other.Project == h.Project {
			name = fmt.Sprintf("the host %s of the fleet %s", other.Name, other.FleetName)
		}
		return &Failure{
			Step: dstack.HostStepIdentity, Kind: dstack.Conflict,
			Message: "it is the same machine as " + name,
			Hint:    "remove one of the two from its fleet",
		}
	}
	return nil
}

// FindOwnMachine returns why a host may not be used because it is the machine of a server, whose
// containers that server starts without SSH; nil: it is another one.
func FindOwnMachine(found dstack.HostFacts, machines []dstack.ServerMachine) *Failure {
	isOwn := slices.ContainsFunc(machines, func(m dstack.ServerMachine) bool {
		return m.BootID != "" && slices.Contains(m.Engines, found.EngineID) && strings.HasSuffix(found.MachineID, "/"+m.BootID)
	})
	if found.EngineID == "" || !isOwn {
		return nil
	}
	return &Failure{
		Step: dstack.HostStepIdentity, Kind: dstack.Conflict,
		Message: "it is the server's own machine, which runs containers without SSH already",
		Hint:    "remove it from the fleet; or remove the local backend from the server's config.yml, and restart the server",
	}
}

// inUse reports whether replicas may be on a host. A host that has less than its fleet asks
// for now may have some of before.
func inUse(h dstack.Host) bool {
	return isAccepted(h) || h.Check.Status == dstack.HostFailed && h.Check.Step == dstack.HostStepResources
}

// isAccepted reports whether every step of a check succeeded, and the host was not found unfit
// since.
func isAccepted(h dstack.Host) bool {
	return h.Check.Status == dstack.HostReady || h.Check.Status == dstack.HostUnreachable
}

func isEarlier(a, b dstack.Host) bool {
	if a.CreatedAt.Equal(b.CreatedAt) {
		return a.ID < b.ID
	}
	return a.CreatedAt.Before(b.CreatedAt)
}
