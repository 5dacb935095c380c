package api

import (
	"time"

	"dstack/internal/dstack"
)

// What follows is ours: the reference has no such calls. The command line
// uses these, so that it can show more and ask less often.

// Paths of our own calls. All are POST.
const (
	PathPreview = ProjectPrefix + "/runs/preview" // RunSpecRequest → Preview
	PathApply   = ProjectPrefix + "/runs/apply"   // ApplyRequest → View
	PathView    = ProjectPrefix + "/runs/view"    // RunViewRequest → View; waits for a change
	PathViews   = "/api/runs/views"               // ListRuns → []View
	PathFollow  = ProjectPrefix + "/logs/follow"  // FollowLogs → one LogEntry a line, JSON
)

// Preview is a plan with what a person wants to know before saying yes.
type Preview struct {
	Plan       RunPlan     `json:"plan"`
	Placements []Placement `json:"places"`   // where it could run, best first
	Rejections []Rejection `json:"misfits"`  // where it could not, and why
	Notes      []string    `json:"notes"`    // python: plain processes use this machine's own
	Existing   *RunView    `json:"existing"` // the unfinished run of this name
	Changes    []Change    `json:"changes"`  // from it to this
	Strategy   string      `json:"how"`      // all of them together, by the most that any needs; empty: nothing changes
	URL        string      `json:"url"`
	ModelURL   string      `json:"model_url,omitempty"`
}

// Placement is a machine that suits.
type Placement struct {
	Offer Offer  `json:"offer"`
	Free  string `json:"free"` // 1 of 2 GPUs free
}

// Rejection is a machine that does not suit, and why.
type Rejection struct {
	Offer  Offer  `json:"offer"`
	Reason string `json:"why"`
}

// Change is one field that differs. From or To is empty where it is absent;
// values of secrets are not shown.
type Change struct {
	Path     string `json:"path"` // commands.1
	From     string `json:"from"`
	To       string `json:"to"`
	Strategy string `json:"how"` // HowInPlace, HowRolling or HowRecreate
}

// ApplyRequest submits a run, or gives a running one of the same name its
// new revision. Revision is that of the run as it was shown, 0 for none;
// another one by now is a Conflict.
type ApplyRequest struct {
	RunSpec  dstack.RunSpec `json:"run_spec"`
	Revision int            `json:"revision"`
}

// RunViewRequest asks for a run; with After set to a View's Version it waits
// until that is no longer the present one, WaitSeconds at most (60).
type RunViewRequest struct {
	RunName     string `json:"run_name"`
	RunID       string `json:"run_id,omitempty"` // refuses another run of the same name
	After       string `json:"after,omitempty"`
	WaitSeconds int    `json:"wait_seconds,omitempty" minimum:"0" maximum:"60"`
}

// RunView is a run as a person sees it.
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
	Since           time.Time     `json:"since"` // in this status
	ReadyAt         *time.Time    `json:"ready_at"`
	FinishedAt      *time.Time    `json:"finished_at"`
	DesiredReplicas int           `json:"replicas_wanted"`
	Ready           int           `json:"replicas_ready"`
	Serving         int           `json:"replicas_serving"` // ready ones of any revision
	Min             int           `json:"replicas_min"`
	Max             int           `json:"replicas_max"`
	RolledBack      *RollbackView `json:"rolled_back"` // what became of the newest revision, if it failed; nil: it did not
	Auth            bool          `json:"auth"`
	URL             string        `json:"url"`      // http://<run>.localhost:3000/
	PathURL         string        `json:"path_url"` // http://127.0.0.1:3000/proxy/services/<project>/<run>/
	Model           *ModelView    `json:"model"`
	Replicas        []ReplicaView `json:"replicas"`
	Version         string        `json:"version"` // changes when anything above does
	Metrics         *RunMetrics   `json:"numbers"` // nil: nothing is known
}

// RunMetrics are what a run does and did, as far as the gateway knows: since it
// began, for a run that is older.
type RunMetrics struct {
	Requests   uint64   `json:"requests"` // given to a replica
	InFlight   int      `json:"in_flight"`
	Held       int      `json:"held"` // waiting for a replica
	TokensIn   int64    `json:"tokens_in"`
	TokensOut  int64    `json:"tokens_out"`
	FirstToken *float64 `json:"first_token"` // seconds, the median of the last streams; nil: none
}

// ModelView is where a run's model answers.
type ModelView struct {
	Name    string `json:"name"`
	URL     string `json:"url"`      // http://gateway.localhost:3000
	PathURL string `json:"path_url"` // http://127.0.0.1:3000/proxy/models/<project>
}

// ReplicaView is a replica as a person sees it.
type ReplicaView struct {
	Num          int                  `json:"num"`
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
	Resources    string               `json:"resources"` // what it has or holds, as in plans
	Spot         bool                 `json:"spot"`
	Price        float64              `json:"price"`
	SubmissionID dstack.AttemptID     `json:"submission_id"`
}

// RunStatus is a run's status in our own words.
type RunStatus string

// Every status of a view.
const (
	StatusWaiting  RunStatus = "waiting"  // for a machine
	StatusStarting RunStatus = "starting" // no replica is ready yet
	StatusReady    RunStatus = "ready"    // all are
	StatusSleeping RunStatus = "sleeping" // it needs none until a request comes
	StatusUpdating RunStatus = "updating" // serves, while a new revision takes over
	StatusDegraded RunStatus = "degraded" // some are
	StatusFailing  RunStatus = "failing"  // was ready, none is, restarting
	StatusStopping RunStatus = "stopping"
	StatusStopped  RunStatus = "stopped"
	StatusFailed   RunStatus = "failed"
)

// IsFinished says that nothing will ever change again.
func (s RunStatus) IsFinished() bool { return s == StatusStopped || s == StatusFailed }

// FollowLogs asks for output.
type FollowLogs struct {
	RunName   string     `json:"run_name"`
	Replica   *int       `json:"replica,omitempty"` // nil: all
	StartTime *time.Time `json:"start_time,omitempty"`
	Follow    bool       `json:"follow,omitempty"`  // go on until the run has finished
	Present   bool       `json:"present,omitempty"` // only of present attempts and later ones, not past ones
	// After is the newest line already seen of each attempt, instead of
	// StartTime for these: who comes back after a cut gives it, and misses nothing.
	After map[dstack.AttemptID]time.Time `json:"after,omitempty"`
}

// LogEntry is one line of output.
type LogEntry struct {
	Timestamp time.Time        `json:"timestamp"`
	Replica   int              `json:"replica"`
	Attempt   dstack.AttemptID `json:"attempt"`
	Stream    string           `json:"stream"`
	Message   []byte           `json:"message"`
	Error     string           `json:"error,omitempty"` // output was lost, or the stream broke
}

// ErrorBody is the answer to any call that failed. Detail is in the shape of
// the reference for its status (spec §4.3); Error is ours.
type ErrorBody struct {
	Detail any       `json:"detail,omitempty"`
	Error  ErrorView `json:"error"`
}

// ErrorView is an error for our own client.
type ErrorView struct {
	Kind    dstack.Kind `json:"kind"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
}
