package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// RunEvents is what a step of a run tells those who ask later.
func RunEvents(seen RunFacts, step RunStep, now time.Time) []dstack.Event { return nil }

// ReplicaEvents is what a step of a replica tells those who ask later.
func ReplicaEvents(seen ReplicaFacts, step ReplicaStep, now time.Time) []dstack.Event { return nil }
