package api

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Paths of calls for our own command line. All use POST; dstack 0.18.10 does
// not have them. They return more in one call than the 0.18.10 API and can wait
// for changes.
const (
	PathPreview = ProjectPrefix + "/runs/preview" // RunSpecRequest → Preview
	PathApply   = ProjectPrefix + "/runs/apply"   // ApplyRequest → RunView
	PathView    = ProjectPrefix + "/runs/view"    // RunViewRequest → RunView; can wait for a change
	PathViews   = "/api/runs/views"               // ListRuns → []RunView
	PathOffers  = ProjectPrefix + "/offers/list"  // OffersRequest → OfferList
	PathFollow  = ProjectPrefix + "/logs/follow"  // FollowLogs → one LogEntry per line, as JSON
)

// Preview answers runs/preview: the plan of a run, and everything that the user
// is shown before confirming it.
type Preview struct {
	Plan       RunPlan     `json:"plan"`
	Placements []Placement `json:"places"`           // offers that meet the requirements, best first
	Rejections []Rejection `json:"misfits"`          // offers that do not, and why
	Notes      []string    `json:"notes"`            // for the user: python: plain processes use this machine's own
	Advice     string      `json:"advice,omitempty"` // what to do if there is no placement, one way on each line
	Totals     Totals      `json:"totals"`           // Placements and Rejections are only the first ones
	// Groups are the plans of the groups of a service that has some. Placements, Rejections and
	// Advice are then those of the first.
	Groups      []GroupPreview `json:"groups,omitempty"`
	Existing    *RunView       `json:"existing"` // the unfinished run with this name; nil: none
	Changes     []Change       `json:"changes"`  // from Existing to this run
	Strategy    string         `json:"how"`      // the most disruptive strategy of all Changes; empty: nothing changes
	URL         string         `json:"url"`
	Publication *Publication   `json:"publication"` // by a gateway of the project; null: none publishes it
	ModelURL    string         `json:"model_url,omitempty"`
}

// OffersRequest is the body of offers/list: what should run, of which only what its
// machines must have counts.
type OffersRequest struct {
	Configuration spec.Service  `json:"configuration"`
	Profile       *spec.Profile `json:"profile,omitempty"`
	GroupBy       []string      `json:"group_by,omitempty"`                         // gpu, backend, region, count: also return the GPUs in groups
	Limit         int           `json:"limit,omitempty" minimum:"0" maximum:"1000"` // how many placements of each group are listed; 0: 100
}

// OfferList answers offers/list: where each group of a configuration can run.
type OfferList struct {
	User   string         `json:"user"`
	Groups []GroupPreview `json:"groups"` // in the order of the configuration; one for a service without groups
	Notes  []string       `json:"notes"`
}

// GroupPreview is the plan of a group of replicas in a Preview.
type GroupPreview struct {
	Group      string      `json:"group"`
	Min        int         `json:"replicas_min"`
	Max        int         `json:"replicas_max"`
	Resources  string      `json:"resources"` // what a replica requires, in words
	Placements []Placement `json:"places"`
	Rejections []Rejection `json:"misfits"`
	Advice     string      `json:"advice,omitempty"`
	Totals     Totals      `json:"totals"`
	GPUs       []GPUGroup  `json:"gpus,omitempty"` // of all placements, if OffersRequest.GroupBy asks for them
}

// Totals counts the offers of a plan.
type Totals struct {
	Placements   int     `json:"places"`
	Rejections   int     `json:"misfits"`
	HighestPrice float64 `json:"highest_price"` // of the offers that suit, in dollars per hour
}

// Placement is an offer in a Preview that meets the requirements.
type Placement struct {
	Offer       Offer  `json:"offer"`
	Free        string `json:"free"`                   // 1 of 2 GPUs free
	PriceSource string `json:"price_source,omitempty"` // where the price is from: catalogue of 2026-11-28
}

// Rejection is an offer in a Preview that does not meet the requirements, with the
// first constraint that it fails and what would help.
type Rejection struct {
	Offer      Offer         `json:"offer"`
	Reason     string        `json:"why"`
	Constraint string        `json:"constraint,omitempty"` // a field of the configuration, or a property of the machine
	Wanted     string        `json:"wanted,omitempty"`     // what the constraint asks for
	Has        string        `json:"has,omitempty"`        // what there is instead
	Edits      []dstack.Edit `json:"edits,omitempty"`      // the smallest changes of the configuration after which it suits
	WaitsFor   []string      `json:"waits_for,omitempty"`  // replicas after whose end it suits
	Help       string        `json:"help,omitempty"`       // both in words
}

// Change is one field that differs between two revisions. From or To is empty
// if the field is not set there; secret values are masked.
type Change struct {
	Path     string `json:"path"` // commands.1
	From     string `json:"from"`
	To       string `json:"to"`
	Strategy string `json:"how"` // StrategyInPlace, StrategyRolling or StrategyRecreate
}

// ApplyRequest is the body of runs/apply, which submits a run, or a new revision
// of the unfinished run with the same name, and answers a RunView. Revision is
// the current revision that the user saw, or 0 if there was no such run; if
// that is no longer true, the call fails with kind Conflict.
type ApplyRequest struct {
	RunSpec  dstack.RunSpec `json:"run_spec"`
	Revision int            `json:"revision"`
}

// RunViewRequest is the body of runs/view, which answers a RunView. If After is
// the Version of an earlier RunView, the server waits up to WaitSeconds for the
// version to change before it answers.
type RunViewRequest struct {
	RunName     string `json:"run_name"`
	RunID       string `json:"run_id,omitempty"` // fail if the name belongs to another run by now
	After       string `json:"after,omitempty"`
	WaitSeconds int    `json:"wait_seconds,omitempty" minimum:"0" maximum:"60"`
}

// RunView is a run as the command line shows it. It answers runs/view,
// runs/apply and runs/rollback; runs/views answers a list of it.
type RunView struct {
	ID              dstack.RunID  `json:"id"`
	Project         string        `json:"project"`
	Name            string        `json:"name"`
	User            string        `json:"user"`
	Revision        int           `json:"revision"`
	Status          RunStatus     `json:"status"`
	Reason          string        `json:"reason"`
	Ending          dstack.Ending `json:"ending"`
	SubmittedAt     time.Time     `json:"submitted_at"`
	Since           time.Time     `json:"since"` // when Status last changed
	ReadyAt         *time.Time    `json:"ready_at"`
	FinishedAt      *time.Time    `json:"finished_at"`
	DesiredReplicas int           `json:"replicas_wanted"`
	Ready           int           `json:"replicas_ready"`
	Serving         int           `json:"replicas_serving"` // ready replicas of any revision
	Min             int           `json:"replicas_min"`
	Max             int           `json:"replicas_max"`
	RolledBack      *RollbackView `json:"rolled_back"` // set if the latest revision failed
	Auth            bool          `json:"auth"`
	URL             string        `json:"url"`         // http://<run>.localhost:3000/; PathURL if the caller can resolve no name
	Publication     *Publication  `json:"publication"` // by a gateway of the project; null: none publishes it
	PathURL         string        `json:"path_url"`    // http://127.0.0.1:3000/proxy/services/<project>/<run>/
	Model           *ModelView    `json:"model"`
	Replicas        []ReplicaView `json:"replicas"`
	Groups          []GroupView   `json:"groups,omitempty"` // of a service that has some, in the order of its configuration
	ReplicaCount    int           `json:"replica_count"`    // how many replica numbers have ever been in use
	Version         string        `json:"version"`          // changes whenever a field above changes
	Metrics         *RunMetrics   `json:"numbers"`          // nil: unknown
}

// Publication is where a gateway publishes a service, or will.
type Publication struct {
	Gateway string `json:"gateway"` // its name
	URL     string `json:"url"`     // https://<run>.<domain>; empty: not known yet
	Missing string `json:"missing"` // why clients cannot use it yet; empty: they can
}

// GroupView is a group of replicas in a RunView.
type GroupView struct {
	Name            string `json:"name"`
	DesiredReplicas int    `json:"replicas_wanted"`
	Ready           int    `json:"replicas_ready"`
	Min             int    `json:"replicas_min"`
	Max             int    `json:"replicas_max"`
}

// RunMetrics are the gateway's counters of a run. They start with the gateway,
// or with the run if that is younger.
type RunMetrics struct {
	Requests   uint64   `json:"requests"` // requests sent to a replica
	InFlight   int      `json:"in_flight"`
	Held       int      `json:"held"` // requests waiting for a replica
	TokensIn   int64    `json:"tokens_in"`
	TokensOut  int64    `json:"tokens_out"`
	FirstToken *float64 `json:"first_token"` // median seconds to the first token of recent streams; nil: no streams
}

// ModelView is the address of a run's model.
type ModelView struct {
	Name    string `json:"name"`
	BaseURL string `json:"base_url"` // for clients of OpenAI's API: http://127.0.0.1:3000/v1
	URL     string `json:"url"`      // BaseURL without /v1
	PathURL string `json:"path_url"` // http://127.0.0.1:3000/proxy/models/<project>
}

// ReplicaView is a replica in a RunView.
type ReplicaView struct {
	Num          int                  `json:"num"`
	Group        string               `json:"group,omitempty"` // empty: the service has no groups
	Revision     int                  `json:"revision"`
	Status       dstack.ReplicaStatus `json:"status"`
	Reason       string               `json:"reason"`   // replica 0 exited with code 1 after 14s
	Progress     string               `json:"progress"` // pulling image 62% of 8.1GB
	LastOutput   []string             `json:"last_output"`
	Since        time.Time            `json:"since"`
	Restarts     int                  `json:"restarts"`
	RetryAt      *time.Time           `json:"retry_at"`
	Backend      string               `json:"backend"`
	Region       string               `json:"region"`
	Instance     string               `json:"instance"`
	Resources    string               `json:"resources"` // its share of the instance, in the form used by plans
	Spot         bool                 `json:"spot"`
	Price        float64              `json:"price"`
	SubmissionID dstack.AttemptID     `json:"submission_id"`
}

// RunStatus is the status of a run that users see. It combines dstack.RunStatus
// with the statuses of the replicas.
type RunStatus string

// The statuses of a RunView.
const (
	StatusWaiting  RunStatus = "waiting"  // waits for a machine
	StatusStarting RunStatus = "starting" // no replica is ready yet
	StatusReady    RunStatus = "ready"    // all desired replicas are ready
	StatusSleeping RunStatus = "sleeping" // scaled to zero until a request arrives
	StatusUpdating RunStatus = "updating" // serves while a new revision is rolled out
	StatusDegraded RunStatus = "degraded" // some of the desired replicas are ready
	StatusFailing  RunStatus = "failing"  // was ready before; no replica is ready now
	StatusStopping RunStatus = "stopping"
	StatusStopped  RunStatus = "stopped"
	StatusFailed   RunStatus = "failed"
)

// IsFinished reports whether the status is final.
func (s RunStatus) IsFinished() bool { return s == StatusStopped || s == StatusFailed }

// FollowLogs is the body of logs/follow, which answers one LogEntry per line.
type FollowLogs struct {
	RunName     string     `json:"run_name"`
	Replica     *int       `json:"replica,omitempty"` // nil: all replicas
	StartTime   *time.Time `json:"start_time,omitempty"`
	Tail        *int       `json:"tail,omitempty" minimum:"0"` // the last lines of each replica only; nil: all
	Follow      bool       `json:"follow,omitempty"`           // keep the response open until the run has finished
	CurrentOnly bool       `json:"present,omitempty"`          // skip attempts that have already ended
	// After is the time of the last line received of each attempt. For these
	// attempts it replaces StartTime. Set it when resuming after a broken
	// connection, so that no line is lost or repeated.
	After map[dstack.AttemptID]time.Time `json:"after,omitempty"`
}

// LogEntry is one line of output in the answer of logs/follow.
type LogEntry struct {
	Timestamp time.Time        `json:"timestamp"`
	Replica   int              `json:"replica"`
	Attempt   dstack.AttemptID `json:"attempt"`
	Stream    string           `json:"stream"`
	Message   []byte           `json:"message"`
	Error     string           `json:"error,omitempty"` // set if output was lost or the stream broke
}

// ErrorBody is the body of every response that reports an error. Detail has the
// format that dstack 0.18.10 uses with the status (spec §4.3); Error is for our
// own client.
type ErrorBody struct {
	Detail any       `json:"detail,omitempty"`
	Error  ErrorView `json:"error"`
}

// ErrorView is a dstack.Error in an ErrorBody.
type ErrorView struct {
	Kind    dstack.Kind `json:"kind"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
}
