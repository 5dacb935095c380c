package api

import (
	"time"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
)

// Paths of calls about revisions, events and scaling. All use POST; dstack
// 0.18.10 does not have them.
const (
	PathEvents   = ProjectPrefix + "/runs/events"   // EventsRequest → []EventView, oldest first
	PathHistory  = ProjectPrefix + "/runs/history"  // RunName → []RevisionView, newest first
	PathRollback = ProjectPrefix + "/runs/rollback" // RollbackRequest → RunView
	PathExplain  = ProjectPrefix + "/runs/explain"  // RunName → Explanation
)

// EventsRequest is the body of runs/events, which answers a list of EventView.
// It covers all runs with the name, deleted ones included; without a name, what
// happened to keys for callers.
type EventsRequest struct {
	RunName     string `json:"run_name"`
	After       int64  `json:"after,omitempty"`                                 // only events with a greater ID
	Limit       int    `json:"limit,omitempty" minimum:"0" maximum:"1000"`      // return at most this many, the latest; 0: 100
	WaitSeconds int    `json:"wait_seconds,omitempty" minimum:"0" maximum:"60"` // how long to wait if there is no event yet
}

// EventView is a dstack.Event in the answer of runs/events.
type EventView struct {
	ID       int64            `json:"id"`
	At       time.Time        `json:"at"`
	RunID    dstack.RunID     `json:"run_id"`
	RunName  string           `json:"run_name"`
	Kind     dstack.EventKind `json:"kind"`
	Revision int              `json:"revision"` // 0: the event concerns no single revision
	Replica  *int             `json:"replica"`
	Group    string           `json:"group,omitempty"` // empty: the event concerns no single group of replicas
	From     string           `json:"from"`
	To       string           `json:"to"`
	User     string           `json:"user"`
	Message  string           `json:"message"`
}

// RevisionView is a dstack.Revision in the answer of runs/history.
type RevisionView struct {
	Num      int                   `json:"revision"`
	Current  bool                  `json:"present"`
	Status   dstack.RevisionStatus `json:"status"`
	User     string                `json:"user"`
	At       time.Time             `json:"at"`
	Restores int                   `json:"of"`      // the earlier revision that it brings back; 0: none
	Reason   string                `json:"reason"`  // why it failed
	Changes  []Change              `json:"changes"` // from the revision before it that did not fail
}

// RollbackRequest is the body of runs/rollback, which submits an earlier
// revision again as the next one and answers a RunView. If To is 0, the last
// revision that served before the current one is chosen. Revision is the
// current revision that the user saw; if another one is current by now, the
// call fails with kind Conflict. If the chosen revision equals the current one,
// the run stays as it is, and so does its revision.
type RollbackRequest struct {
	RunName  string `json:"run_name"`
	To       int    `json:"to,omitempty"`
	Revision int    `json:"revision"`
}

// Explanation answers runs/explain: why a run has its current number of
// replicas.
type Explanation struct {
	RunName         string             `json:"run_name"`
	Status          RunStatus          `json:"status"`
	DesiredReplicas int                `json:"replicas_wanted"`
	Ready           int                `json:"replicas_ready"`
	Min             int                `json:"replicas_min"`
	Max             int                `json:"replicas_max"`
	Scaling         *ScalingView       `json:"scaling"` // nil: the number of replicas is fixed
	Decision        autoscale.Decision `json:"decision"`
	ScaledAt        time.Time          `json:"scaled_at"` // when DesiredReplicas last changed
	Load            LoadView           `json:"load"`
	Obstacles       []string           `json:"why"` // for the user: why Ready is below DesiredReplicas, one reason per item
	// Groups explains each group of a service that has some. Decision then has only the numbers
	// of all groups together, and Scaling is nil.
	Groups []GroupExplanation `json:"groups,omitempty"`
}

// GroupExplanation explains the number of replicas of a group in an Explanation.
type GroupExplanation struct {
	GroupView
	Scaling  *ScalingView       `json:"scaling"`
	Decision autoscale.Decision `json:"decision"`
	ScaledAt time.Time          `json:"scaled_at"`
}

// ScalingView is the scaling rule in an Explanation. Durations are in seconds.
type ScalingView struct {
	Metric    string  `json:"metric"`
	Target    float64 `json:"target"`
	Window    int64   `json:"window"`
	UpDelay   int64   `json:"scale_up_delay"`
	DownDelay int64   `json:"scale_down_delay"`
}

// LoadView is the dstack.Load in an Explanation.
type LoadView struct {
	Known       bool    `json:"known"`
	Requests    int     `json:"requests"` // requests that arrived within the window
	RPS         float64 `json:"rps"`
	Concurrency float64 `json:"busy"` // requests in flight and waiting, averaged over the window
	InFlight    int     `json:"in_flight"`
	Held        int     `json:"held"`
	Watched     float64 `json:"watched"` // seconds of the window that a gateway has observed
}

// RollbackView describes, in a RunView, a revision that failed and was rolled
// back. Replica is the replica that failed first.
type RollbackView struct {
	From       int       `json:"from"`
	To         int       `json:"to"`
	Reason     string    `json:"reason"`
	Replica    int       `json:"replica"`
	LastOutput []string  `json:"last_output"`
	At         time.Time `json:"at"`
}

// The strategies in Change and Preview, from the least to the most disruptive.
const (
	StrategyInPlace  = "in place" // no replica is started or stopped
	StrategyRolling  = "rolling"  // each new replica is ready before an old one is drained
	StrategyRecreate = "recreate" // no machine has capacity for both: an old replica is drained first
)
