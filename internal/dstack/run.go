package dstack

import (
	"encoding/json"
	"time"

	"dstack/internal/spec"
)

// Run is a service as submitted: the desired state of everything below it.
type Run struct {
	ID               RunID
	ProjectID        ProjectID
	Project          string // its project's name
	User             string // who submitted it
	Name             string
	Spec             RunSpec
	Revision         int // the present one; the first is 1
	LatestRevision   int // the highest number that was given, at least Revision: a failed one is not given again
	TemplateRevision int // the first revision with the containers of the present one: replicas from it on are up to date
	StableRevision   int // the last revision before Shape that has served; 0: none. A revision that fails falls back to it
	DesiredReplicas  int // how many replicas there should be, within the range of the configuration
	Status           RunStatus
	Reason           Reason
	Ending           Ending      // why it ends or ended; EndNone while it lives
	Stop             StopRequest // what the user asked for
	SubmittedAt      time.Time
	Since            time.Time // when Status last changed
	ScaledAt         time.Time // when Wanted last changed; at first when it was submitted
	StartedAt        time.Time // when its first replica had a machine; zero: not yet
	ReadyAt          time.Time // when the present shape first served as wanted; zero: not yet
	FinishedAt       time.Time
	Deleted          bool  // no longer listed
	Version          int64 // grows with each save; a save of an older version is refused
}

// RunSpec is what a client submits, in the wire form of spec §4.5. Its
// configuration is parsed; the rest is kept as it came.
type RunSpec struct {
	RunName           *string         `json:"run_name"`
	RepoID            string          `json:"repo_id"`
	RepoData          json.RawMessage `json:"repo_data"`
	RepoCodeHash      *string         `json:"repo_code_hash"`
	WorkingDir        string          `json:"working_dir"`
	ConfigurationPath string          `json:"configuration_path"`
	Configuration     spec.Service    `json:"configuration"`
	Profile           spec.Profile    `json:"profile"`
	SSHKeyPub         string          `json:"ssh_key_pub"`

	// Template is how its model's prompts are made, where its server takes
	// only text. It was found when the run was submitted; clients do not send
	// it. Nil: not needed, or not known yet.
	Template *ChatTemplate `json:"-"`
}

// RunStatus is where a run is in its life.
type RunStatus string

// Every status of a run. What the wire calls them is decided in api.
const (
	RunSubmitted   RunStatus = "submitted"   // no replica was ever asked for
	RunActive      RunStatus = "active"      // replicas come and go
	RunTerminating RunStatus = "terminating" // all replicas are being ended
	RunTerminated  RunStatus = "terminated"  // ended by somebody's wish
	RunFailed      RunStatus = "failed"      // ended because it could not go on
)

// IsFinished says that nothing will ever change again.
func (s RunStatus) IsFinished() bool { return s == RunTerminated || s == RunFailed }

// StopRequest is what the user asked of a run.
type StopRequest string

// The ways to stop a run: gracefully, or at once.
const (
	StopNone  StopRequest = ""
	StopGrace StopRequest = "stop"
	StopAbort StopRequest = "abort"
)

// Ending is why a run ended, for machines.
type Ending string

// Every ending there is.
const (
	EndNone       Ending = ""
	EndStopped    Ending = "stopped"      // by its user
	EndAborted    Ending = "aborted"      // by its user, at once
	EndFailed     Ending = "failed"       // no replica could become ready
	EndNoCapacity Ending = "no_capacity"  // no machine suits
	EndDuration   Ending = "max_duration" // it ran for as long as it may
)
