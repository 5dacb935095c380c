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
	Author      string
	CreatedAt   time.Time
	UsedAt      time.Time // when it was used last, to about a minute; zero: never
}
