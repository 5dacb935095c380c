package dstack

import "time"

// Event records one decision or status change together with its reason.
// Events are kept after their run is deleted.
type Event struct {
	ID       int64 // increases with every event
	At       time.Time
	Project  ProjectID
	Run      RunID
	RunName  string
	Kind     EventKind
	Revision int    // 0: the event concerns no single revision
	Replica  *int   // number of the replica; nil: the event concerns the whole run, or the whole Group
	Group    string // name of the group; empty: it concerns no single group, or the service has none
	From, To string // the old and the new status or count; empty if nothing was replaced
	User     string // who requested the change; empty: dstack decided by itself
	Message  string // for the user: 2 replicas wanted: 14.2 requests a second, target 10 a replica
}

// EventKind classifies events.
type EventKind string

// The kinds of event.
const (
	EventApplied    EventKind = "applied"     // a revision was submitted
	EventScaled     EventKind = "scaled"      // the desired number of replicas changed
	EventRun        EventKind = "run"         // the status of the run changed
	EventReplica    EventKind = "replica"     // the status of a replica changed
	EventReady      EventKind = "ready"       // a revision has as many ready replicas as desired
	EventRolledBack EventKind = "rolled_back" // a revision failed, and an earlier one became current again
	EventStop       EventKind = "stop"        // a user asked to stop the run
	EventExec       EventKind = "exec"        // a user ran a command in a replica
	EventUpload     EventKind = "upload"      // a part of the uploaded folder is left out
	EventKey        EventKind = "key"         // a key for callers was created or revoked; it concerns no run
)

// Revision is one submitted version of a run's specification. Revisions are
// numbered from 1 within their run and never change once submitted.
type Revision struct {
	Run              RunID
	Num              int
	TemplateRevision int // see Run.TemplateRevision
	Spec             RunSpec
	User             string
	At               time.Time
	Restores         int // the earlier revision that this one brings back; 0: none
	Status           RevisionStatus
	Reason           Reason // why it failed
	// Replica and LastOutput describe the replica that failed first. They are
	// set with RevisionFailed.
	Replica    int
	LastOutput []string
}

// RevisionStatus is the result of a revision's rollout.
type RevisionStatus string

// The statuses of a revision.
const (
	RevisionPending RevisionStatus = "pending" // not ready yet
	RevisionReady   RevisionStatus = "ready"   // became ready, and served requests
	RevisionFailed  RevisionStatus = "failed"  // did not become ready, and was rolled back
)
