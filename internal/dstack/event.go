package dstack

import "time"

// Event is one decision or change, with its reason. Events outlive their run.
type Event struct {
	ID       int64 // grows
	At       time.Time
	Project  ProjectID
	Run      RunID
	RunName  string
	Kind     EventKind
	Revision int    // 0: of none
	Replica  *int   // its number; nil: of the run as a whole
	From, To string // statuses or numbers, where one became the other
	User     string // whose wish it was; empty: nobody's
	Message  string // in words: 2 replicas wanted: 14.2 requests a second, target 10 a replica
}

// EventKind sorts events.
type EventKind string

// Every kind there is.
const (
	EventApplied    EventKind = "applied"     // a revision was submitted
	EventScaled     EventKind = "scaled"      // another number of replicas is wanted
	EventRun        EventKind = "run"         // the run's status changed
	EventReplica    EventKind = "replica"     // a replica's status changed
	EventReady      EventKind = "ready"       // a revision serves as wanted
	EventRolledBack EventKind = "rolled_back" // a revision failed; an earlier one is the present one again
	EventStop       EventKind = "stop"        // somebody wants it stopped
)

// Revision is one submitted state of a run.
type Revision struct {
	Run              RunID
	Num              int
	TemplateRevision int // see Run.Shape
	Spec             RunSpec
	User             string
	At               time.Time
	Restores         int // the revision that it brings back; 0: none
	Status           RevisionStatus
	Reason           Reason // why it failed
	// What failed first, with RevisionFailed.
	Replica    int
	LastOutput []string
}

// RevisionStatus is what became of a revision.
type RevisionStatus string

// Every status of a revision.
const (
	RevisionPending RevisionStatus = "pending" // not ready yet
	RevisionReady   RevisionStatus = "ready"   // has served
	RevisionFailed  RevisionStatus = "failed"  // did not become ready, and was rolled back
)
