package api

import (
	"time"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
)

// Paths about a run's life. All are POST, and ours.
const (
	PathEvents   = ProjectPrefix + "/runs/events"   // EventsRequest → []EventView, oldest first
	PathHistory  = ProjectPrefix + "/runs/history"  // RunName → []RevisionView, newest first
	PathRollback = ProjectPrefix + "/runs/rollback" // RollbackRequest → View
	PathExplain  = ProjectPrefix + "/runs/explain"  // RunName → Explanation
)

// EventsRequest asks for what happened to the runs of a name, those that are
// gone included.
type EventsRequest struct {
	RunName     string `json:"run_name"`
	After       int64  `json:"after,omitempty"`                                 // only those with a greater id
	Limit       int    `json:"limit,omitempty" minimum:"0" maximum:"1000"`      // the latest; 0: 100
	WaitSeconds int    `json:"wait_seconds,omitempty" minimum:"0" maximum:"60"` // for one to come, where there is none
}

// EventView is one decision or change.
type EventView struct {
	ID       int64            `json:"id"`
	At       time.Time        `json:"at"`
	RunID    dstack.RunID     `json:"run_id"`
	RunName  string           `json:"run_name"`
	Kind     dstack.EventKind `json:"kind"`
	Revision int              `json:"revision"` // 0: of none
	Replica  *int             `json:"replica"`
	From     string           `json:"from"`
	To       string           `json:"to"`
	User     string           `json:"user"`
	Message  string           `json:"message"`
}

// RevisionView is one revision of a run.
type RevisionView struct {
	Num     int                   `json:"revision"`
	Present bool                  `json:"present"`
	Status  dstack.RevisionStatus `json:"status"`
	User    string                `json:"user"`
	At      time.Time             `json:"at"`
	Of      int                   `json:"of"`      // the one that it brings back; 0: none
	Reason  string                `json:"reason"`  // why it failed
	Changes []Change              `json:"changes"` // from the one before
}

// RollbackRequest makes an earlier revision the next one. To 0 is the last
// that served before the present one. Revision is the present one as it was
// shown; another one by now is a Conflict.
type RollbackRequest struct {
	RunName  string `json:"run_name"`
	To       int    `json:"to,omitempty"`
	Revision int    `json:"revision"`
}

// Explanation says why a run has the replicas that it has.
type Explanation struct {
	RunName  string             `json:"run_name"`
	Status   RunStatus          `json:"status"`
	Wanted   int                `json:"replicas_wanted"`
	Ready    int                `json:"replicas_ready"`
	Min      int                `json:"replicas_min"`
	Max      int                `json:"replicas_max"`
	Scaling  *ScalingView       `json:"scaling"` // nil: the number is fixed
	Decision autoscale.Decision `json:"decision"`
	ScaledAt time.Time          `json:"scaled_at"` // when the number last changed
	Load     LoadView           `json:"load"`
	Why      []string           `json:"why"` // what keeps it from what is wanted, one thing a line
}

// ScalingView is the rule of a run.
type ScalingView struct {
	Metric    string  `json:"metric"`
	Target    float64 `json:"target"`
	Window    int64   `json:"window"` // all in seconds
	UpDelay   int64   `json:"scale_up_delay"`
	DownDelay int64   `json:"scale_down_delay"`
}

// LoadView is what gateways saw of a run.
type LoadView struct {
	Known    bool    `json:"known"`
	Requests int     `json:"requests"` // within the window
	RPS      float64 `json:"rps"`
	Busy     float64 `json:"busy"` // in flight and waiting, averaged
	InFlight int     `json:"in_flight"`
	Held     int     `json:"held"`
	Watched  float64 `json:"watched"` // seconds of the window in which somebody counted
}

// RollbackView is a revision that failed and was rolled back.
type RollbackView struct {
	From       int       `json:"from"`
	To         int       `json:"to"`
	Reason     string    `json:"reason"`
	Replica    int       `json:"replica"`
	LastOutput []string  `json:"last_output"`
	At         time.Time `json:"at"`
}

// How a change is made.
const (
	HowInPlace  = "in place" // nothing is started or stopped
	HowRolling  = "rolling"  // each new replica is ready before an old one leaves
	HowRecreate = "recreate" // no machine has room for both: an old replica leaves first
)
