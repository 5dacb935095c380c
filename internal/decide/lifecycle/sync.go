package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"dstack/internal/dstack"
)

// orphanGrace is the grace period of an attempt that no replica wants.
const orphanGrace = 10 * time.Second

// EngineCommand is one command to an engine.
type EngineCommand struct {
	Command     Command
	Attempt     dstack.AttemptID
	GracePeriod time.Duration  // with Stop
	Placed      *PlacedReplica // with Start and Hold
	Reason      string         // with Hold: why it is not started yet, for the user
}

// Command is the verb of an EngineCommand.
type Command string

// All commands.
const (
	StartAttempt  Command = "start"
	StopAttempt   Command = "stop"
	RemoveAttempt Command = "remove"
	HoldAttempt   Command = "hold" // not a command to the engine: the attempt is to be started later
)

// PlanEngineCommands returns the commands after which an engine runs the replicas
// placed on it and nothing else. reports has a report for each attempt that the
// engine has.
//
// Only a starting replica is started: a ready replica whose attempt the engine
// lost gets a new attempt first, so that an attempt never runs twice. It is
// started only when the engine runs none of its earlier attempts: an attempt
// that another user removed may have been started again before its replica's
// row recorded its end. An attempt that ended is kept until its replica's row
// records its end.
//
// Attempts that no replica has are left of replicas that ended while a remote machine
// was away. What they hold of it is not known any more: until they have ended, nothing
// is started there. Stops and removals come before starts.
func PlanEngineCommands(host dstack.Instance, placed []PlacedReplica, reports []dstack.Report) []EngineCommand {
	of := map[dstack.AttemptID]*PlacedReplica{}
	for i := range placed {
		if placed[i].Replica.Attempt != "" {
			of[placed[i].Replica.Attempt] = &placed[i]
		}
	}
	var commands []EngineCommand
	has, runs := map[dstack.AttemptID]bool{}, map[dstack.AttemptID]bool{}
	left := 0
	for _, rep := range reports {
		has[rep.Attempt], runs[rep.Attempt] = true, !rep.State.IsOver()
		p := of[rep.Attempt]
		switch {
		case p != nil && isWanted(p.Replica):
		case rep.State.IsOver():
			commands = append(commands, EngineCommand{Command: RemoveAttempt, Attempt: rep.Attempt})
		default:
			commands = append(commands, EngineCommand{Command: StopAttempt, Attempt: rep.Attempt, GracePeriod: graceFor(p)})
			if p == nil && isRemote(host) && !isManaged(host) { // a cluster knows what its pods hold
				left++
			}
		}
	}
	for i := range placed {
		r := placed[i].Replica
		if r.Status != dstack.ReplicaStarting || r.Attempt == "" || has[r.Attempt] {
			continue
		}
		switch {
		case left > 0:
			commands = append(commands, EngineCommand{Command: HoldAttempt, Attempt: r.Attempt, Placed: &placed[i],
				Reason: fmt.Sprintf("waits until host %s has stopped what earlier replicas left there", host.Offer.Type)})
		case !slices.ContainsFunc(r.PastAttempts, func(past dstack.Attempt) bool { return runs[past.ID] }):
			commands = append(commands, EngineCommand{Command: StartAttempt, Attempt: r.Attempt, Placed: &placed[i]})
		}
	}
	return commands
}

// NextSyncTime returns when an instance is due after its engine has reported:
// soon, while the engine has an attempt that no replica wants. Such an attempt
// may take its grace period to end.
func NextSyncTime(step InstanceStep, placed []PlacedReplica, reports []dstack.Report, now time.Time) time.Time {
	on := map[dstack.AttemptID]bool{}
	for _, p := range placed {
		on[p.Replica.Attempt] = isWanted(p.Replica)
	}
	soon := now.Add(syncBrisk)
	for _, rep := range reports {
		if !on[rep.Attempt] && soon.Before(step.Due) {
			return soon
		}
	}
	return step.Due
}

func isWanted(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaStarting || isServing(r) || r.Status == dstack.ReplicaDraining
}

func graceFor(p *PlacedReplica) time.Duration {
	if p != nil && p.Replica.Status == dstack.ReplicaTerminating && !p.Replica.Graceful {
		return 0
	}
	return orphanGrace
}
