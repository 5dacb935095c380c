package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// orphanGrace is given to what runs without anybody wanting it.
const orphanGrace = 10 * time.Second

// EngineCommand is one thing that an engine is told.
type EngineCommand struct {
	Command     Command
	Attempt     dstack.AttemptID
	GracePeriod time.Duration  // with Stop
	Placed      *PlacedReplica // with Start
}

// Command is what an engine can be told.
type Command string

// Every verb there is.
const (
	StartAttempt  Command = "start"
	StopAttempt   Command = "stop"
	RemoveAttempt Command = "remove"
)

// PlanEngineCommands decides what an engine must be told, so that it runs what is placed on
// it and nothing else. heard is all that it has.
//
// Only a starting replica is started: a ready one that the engine lost gets a
// new attempt first, so that an attempt never runs twice. What ended is kept
// until the replica's row has taken note of it.
func PlanEngineCommands(placed []PlacedReplica, heard []dstack.Report) []EngineCommand {
	of := map[dstack.AttemptID]*PlacedReplica{}
	for i := range placed {
		if placed[i].Replica.Attempt != "" {
			of[placed[i].Replica.Attempt] = &placed[i]
		}
	}
	var tell []EngineCommand
	has := map[dstack.AttemptID]bool{}
	for _, rep := range heard {
		has[rep.Attempt] = true
		p := of[rep.Attempt]
		switch {
		case p != nil && isWanted(p.Replica):
		case rep.State.IsOver():
			tell = append(tell, EngineCommand{Command: RemoveAttempt, Attempt: rep.Attempt})
		default:
			tell = append(tell, EngineCommand{Command: StopAttempt, Attempt: rep.Attempt, GracePeriod: graceFor(p)})
		}
	}
	for i := range placed {
		r := placed[i].Replica
		if r.Status == dstack.ReplicaStarting && r.Attempt != "" && !has[r.Attempt] {
			tell = append(tell, EngineCommand{Command: StartAttempt, Attempt: r.Attempt, Placed: &placed[i]})
		}
	}
	return tell
}

// NextSyncTime is when an instance is looked at again, now that its engine was
// heard: soon, for as long as the engine has something that nobody wants. An
// attempt may outlive its replica's interest by its time to end.
func NextSyncTime(step InstanceStep, placed []PlacedReplica, heard []dstack.Report, now time.Time) time.Time {
	on := map[dstack.AttemptID]bool{}
	for _, p := range placed {
		on[p.Replica.Attempt] = isWanted(p.Replica)
	}
	soon := now.Add(syncBrisk)
	for _, rep := range heard {
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
