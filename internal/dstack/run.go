package dstack

import (
	"encoding/json"
	"time"

	"dstack/internal/spec"
)

// Run is a submitted service: its desired state, and the status that the
// control plane derived from its replicas.
type Run struct {
	ID               RunID
	ProjectID        ProjectID
	Project          string // name of the project
	User             string // name of the user who submitted it
	IsGlobalAdmin    bool   // the author of the current revision has the global role admin now
	Name             string
	Spec             RunSpec
	Revision         int // the current revision, numbered from 1
	LatestRevision   int // the highest number assigned so far; above Revision after a rollback, since numbers are not reused
	TemplateRevision int // the first revision with the same containers as the current one; replicas from it on are up to date
	StableRevision   int // the last revision before TemplateRevision that has served: the target of an automatic rollback; 0: none
	DesiredReplicas  int // within the range of the configuration
	Status           RunStatus
	Reason           Reason
	Ending           Ending      // why the run ends or ended; EndNone while it is active
	Stop             StopRequest // what the user asked for
	SubmittedAt      time.Time
	Since            time.Time // when Status last changed
	ScaledAt         time.Time // when DesiredReplicas last changed; initially SubmittedAt
	StartedAt        time.Time // when its first replica was placed on an instance; zero: not yet
	ReadyAt          time.Time // when TemplateRevision first had all desired replicas ready; zero: not yet
	FinishedAt       time.Time
	Deleted          bool  // hidden from lists
	Version          int64 // increases with each save; saving an older version fails
}

// RunSpec is what a client submits, in the wire form of spec §4.5. The
// configuration and the profile are parsed; the other fields are kept as
// received.
type RunSpec struct {
	RunName           *string         `json:"run_name"`
	RepoID            string          `json:"repo_id"`
	RepoData          json.RawMessage `json:"repo_data"`
	RepoCodeHash      *string         `json:"repo_code_hash"`
	FileArchives      []FileArchive   `json:"file_archives,omitempty"` // of the files of the configuration, in their order
	WorkingDir        string          `json:"working_dir"`
	ConfigurationPath string          `json:"configuration_path"`
	Configuration     spec.Service    `json:"configuration"`
	Profile           spec.Profile    `json:"profile"`
	SSHKeyPub         string          `json:"ssh_key_pub"`

	// Template renders the prompts of the service's model if its server
	// accepts only text. The server looks it up when the run is submitted;
	// clients do not send it. Nil: not needed, or not known yet.
	Template *ChatTemplate `json:"-"`

	// Secrets are the versions of the secrets that the configuration refers to,
	// by name. The store sets them when the revision is submitted, so that a
	// replica of an earlier revision keeps the value that it was proven with. A
	// secret that is missing here has its present value.
	Secrets map[string]SecretVersion `json:"-"`

	// RepoUser is the user whose access reads the git repository of RepoData. The
	// server sets it when the revision is submitted. Empty: the code is not from a
	// git repository.
	RepoUser UserID `json:"-"`
}

// RunStatus is the phase of a run's life. RunStatus in package api is what
// users see.
type RunStatus string

// The statuses of a run.
const (
	RunSubmitted   RunStatus = "submitted"   // no replica has been created yet
	RunActive      RunStatus = "active"      // replicas are kept at the desired number
	RunTerminating RunStatus = "terminating" // all replicas are being terminated
	RunTerminated  RunStatus = "terminated"  // ended at a user's request or after max_duration
	RunFailed      RunStatus = "failed"      // ended because it could not continue
)

// IsFinished reports whether the status is final.
func (s RunStatus) IsFinished() bool { return s == RunTerminated || s == RunFailed }

// StopRequest is a user's request to stop a run.
type StopRequest string

// The ways to stop a run.
const (
	StopNone     StopRequest = ""
	StopGraceful StopRequest = "stop"  // drain the replicas, then terminate them
	StopAbort    StopRequest = "abort" // kill the replicas at once
)

// Ending is the machine-readable reason why a run ended.
type Ending string

// The endings of a run.
const (
	EndNone       Ending = ""             // has not ended
	EndStopped    Ending = "stopped"      // a user stopped it
	EndAborted    Ending = "aborted"      // a user aborted it
	EndFailed     Ending = "failed"       // no replica became ready
	EndNoCapacity Ending = "no_capacity"  // no machine meets the requirements
	EndDuration   Ending = "max_duration" // it ran for its max_duration
)
