// Package dstack holds the nouns: what the system is about, and nothing of
// how it is done. It reads no clock, file or socket.
package dstack

import "time"

// Identifiers. RunID, AttemptID, ProjectID and UserID are version 4 UUIDs,
// because the published client refuses others (spec §4.3).
type (
	RunID      string
	ReplicaID  string
	AttemptID  string
	InstanceID string
	ProjectID  string
	UserID     string
)

// Reason says why something is in its status, in words for the user.
type Reason string

// Role is what a user may do, globally or in one project.
type Role string

// The two roles there are; the wire calls them the same.
const (
	RoleAdmin Role = "admin"
	RoleUser  Role = "user"
)

// User is somebody with a token. The token itself is never kept, only its
// SHA-256 (hexadecimal).
type User struct {
	ID         UserID
	Name       string
	GlobalRole Role
	Email      string
	TokenHash  string
	CreatedAt  time.Time
}

// Project is what runs, repos and members belong to.
type Project struct {
	ID        ProjectID
	Name      string // as given; compared without case
	Owner     UserID
	CreatedAt time.Time
}

// Member is a user's place in a project.
type Member struct {
	User User
	Role Role
}

// Repo is a folder that code is uploaded from.
type Repo struct {
	Project ProjectID
	ID      string // "<name>-<8 characters>", chosen by the client (spec §3.4)
	Info    []byte // JSON as the client sent it: {"repo_type": "local", ...}
}

// LogLine is one piece of a replica's output.
type LogLine struct {
	At     time.Time // microseconds; strictly growing within an attempt
	Stream string    // "stdout" or "stderr"
	Text   []byte    // without its line end; any bytes
}
