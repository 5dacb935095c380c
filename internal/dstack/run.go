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
	Revision         int                   // the current revision, numbered from 1
	LatestRevision   int                   // the highest number assigned so far; above Revision after a rollback, since numbers are not reused
	TemplateRevision int                   // the first revision with the same containers as the current one; replicas from it on are up to date
	StableRevision   int                   // the last revision before TemplateRevision that has served: the target of an automatic rollback; 0: none
	DesiredReplicas  int                   // within the range of the configuration
	Groups           map[string]GroupCount // the parts of DesiredReplicas, by the name of the group; nil: the service has no groups
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

// GroupCount is how many replicas of a group there should be. Its JSON form is stored
// in the database.
type GroupCount struct {
	Desired  int       `json:"wanted"`
	ScaledAt time.Time `json:"scaled_at"` // when Desired last changed
	// Proven says that its replicas are as in a revision that served, so that they do not tell
	// whether the present one works. It counts until the present template serves.
	Proven bool `json:"proven,omitempty"`
}

// ForGroup returns the run as if a group were all of it: with the specification that its
// replicas run, and its desired number. ok is false if the run has no such group.
func (r Run) ForGroup(name string) (_ Run, ok bool) {
	if len(r.Spec.Configuration.Groups) == 0 {
		return r, name == spec.DefaultGroup
	}
	if r.Spec, ok = r.Spec.ForGroup(name); !ok {
		return r, false
	}
	if count, known := r.Groups[name]; known {
		r.DesiredReplicas, r.ScaledAt = count.Desired, count.ScaledAt
	} else {
		r.DesiredReplicas = r.Spec.Configuration.Replicas.Min
	}
	return r, true
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

// ForGroup returns the specification as the replicas of a group run it. ok is false if there
// is no such group.
func (s RunSpec) ForGroup(name string) (_ RunSpec, ok bool) {
	s.Configuration, ok = s.Configuration.ForGroup(name)
	return s, ok
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
