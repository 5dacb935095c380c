package dstack

import "time"

// CallerKeyID identifies a key for callers.
type CallerKeyID string

// CallerKey is a key that calls services and models of one project, and never
// the API. Only its SHA-256 is stored.
type CallerKey struct {
	ID          CallerKeyID
	Project     ProjectID
	ProjectName string
	Name        string   // unique among the keys of the project that are not revoked
	Hash        string   // SHA-256 of the key, hexadecimal
	Services    []string // names of runs; empty with empty Models: all services and models
	Models      []string // names of models
	RPS         float64  // requests a second over all gateways; 0: no limit
	ExpiresAt   time.Time
	RevokedAt   time.Time
	RevokedBy   string // name of a user
	Author      string
	CreatedAt   time.Time
	UsedAt      time.Time // when it was used last, to about a second; zero: never
	Counts      KeyCounts // of all gateways, since it was created
}

// IsLive reports whether a key works at a time.
func (k CallerKey) IsLive(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}
