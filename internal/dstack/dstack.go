// Package dstack defines the terms of the product: runs, revisions, replicas,
// attempts, instances, offers, events. Every other package uses these types
// with the meaning documented here.
//
// A user applies a configuration (spec.Service) to a Project. That creates a
// Run, or a new Revision of the Run with the same name. A Run has Replicas,
// each one copy of the service. A Replica is placed on an Instance, where it
// holds a Claim; each time its container is started, that is a new Attempt.
//
// The package contains data only: it reads no clock, file or socket.
package dstack

import "time"

// Identifiers. Those of runs, attempts, projects and users are version 4
// UUIDs, because the published 0.18.10 client rejects anything else (spec §4.3).
type (
	// RunID identifies a run.
	RunID string
	// ReplicaID identifies a replica.
	ReplicaID string
	// AttemptID identifies an attempt to run a replica.
	AttemptID string
	// InstanceID identifies an instance.
	InstanceID string
	// ProjectID identifies a project.
	ProjectID string
	// UserID identifies a user.
	UserID string
	// VolumeID identifies a volume.
	VolumeID string
)

// Reason explains a status to the user in one sentence. Program logic never
// depends on its text.
type Reason string

// Role is a set of permissions that a user has, globally or in one project.
type Role string

// The roles. The wire format uses the same strings.
const (
	RoleAdmin Role = "admin"
	RoleUser  Role = "user"
)

// User is an account with an access token. Only the SHA-256 of the token is
// stored (TokenHash, hexadecimal), never the token itself.
type User struct {
	ID         UserID
	Name       string
	GlobalRole Role
	Email      string
	TokenHash  string
	CreatedAt  time.Time
}

// Project owns runs and repos, and has members.
type Project struct {
	ID        ProjectID
	Name      string // as entered; comparison ignores case
	Owner     UserID
	CreatedAt time.Time
}

// Member is a user's membership in a project.
type Member struct {
	User User
	Role Role
}

// Repo is where the code of runs comes from: a folder that is uploaded, or a git
// repository.
type Repo struct {
	Project ProjectID
	ID      string // "<name>-<8 characters>", chosen by the client (spec §3.4)
	Info    []byte // JSON as the client sent it: {"repo_type": "local", ...}
}

// RepoAccess is how the server reads a git repository for one user. Token and
// PrivateKey are secrets.
type RepoAccess struct {
	Project       ProjectID
	Repo          string
	User          UserID
	IsGlobalAdmin bool // the user has the global role admin now
	URL           string
	Token         string
	PrivateKey    string
}

// LogLine is one line of a replica's output.
type LogLine struct {
	At     time.Time // microseconds; strictly increasing within an attempt
	Stream string    // "stdout" or "stderr"
	Text   []byte    // without the line end; may contain any bytes
}
