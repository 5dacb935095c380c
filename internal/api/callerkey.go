package api

import (
	"context"
	"time"
)

// PathKeys is the path below which keys for callers are listed, created and revoked.
const PathKeys = ProjectPrefix + "/keys"

// Bounds of what a key for callers may be for.
const (
	MaxKeyScope = 100 // services and models of one key, together
	MaxKeyRPS   = 1_000_000
)

// CallerKey describes a key for callers; keys/list answers a list of it. The key
// itself is in CreatedKey alone.
type CallerKey struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Services  []string   `json:"services"` // names of runs; empty with empty models: all services and models of the project
	Models    []string   `json:"models"`
	RPS       *float64   `json:"rps"`        // requests a second over all gateways; null: no limit
	ExpiresAt *time.Time `json:"expires_at"` // null: never
	RevokedAt *time.Time `json:"revoked_at"` // null: it is not
	RevokedBy string     `json:"revoked_by,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	UsedAt    *time.Time `json:"used_at"`  // when it was used last; null: never
	Requests  uint64     `json:"requests"` // since it was created, over all gateways
	Refused   uint64     `json:"refused"`  // too many a second, or not for what they named
	Status    KeyStatus  `json:"status"`
}

// KeyStatus says whether a key for callers works.
type KeyStatus string

// The statuses of a key.
const (
	KeyActive  KeyStatus = "active"
	KeyExpired KeyStatus = "expired"
	KeyRevoked KeyStatus = "revoked"
)

// CreatedKey answers keys/create. No other answer has the key.
type CreatedKey struct {
	CallerKey
	Key string `json:"key"`
	// Missing are the services and models of the key that the project does not have now.
	Missing []string `json:"missing"`
}

// Requests about keys for callers.
type (
	// CreateKey is the body of keys/create.
	CreateKey struct {
		Name      string     `json:"name" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"`
		Services  []string   `json:"services,omitempty"`
		Models    []string   `json:"models,omitempty"`
		RPS       float64    `json:"rps,omitempty" minimum:"0" maximum:"1000000"` // 0: no limit
		ExpiresAt *time.Time `json:"expires_at,omitempty"`
	}
	// ListKeys is the body of keys/list.
	ListKeys struct {
		IncludeRevoked bool `json:"include_revoked,omitempty"`
	}
	// RevokeKeys is the body of keys/revoke.
	RevokeKeys struct {
		Names []string `json:"names"`
	}
)

// ListKeys returns the keys for callers of a project by name.
func (c *Client) ListKeys(ctx context.Context, project string, ask ListKeys) ([]CallerKey, error) {
	return readWithRetry[[]CallerKey](ctx, c, projectPath(PathKeys+"/list", project), ask, callTimeout)
}

// CreateKey creates a key for callers.
func (c *Client) CreateKey(ctx context.Context, project string, key CreateKey) (CreatedKey, error) {
	var created CreatedKey
	err := c.callOnce(ctx, projectPath(PathKeys+"/create", project), key, &created)
	return created, err
}

// RevokeKeys revokes keys for callers.
func (c *Client) RevokeKeys(ctx context.Context, project string, keys RevokeKeys) error {
	return c.callOnce(ctx, projectPath(PathKeys+"/revoke", project), keys, nil)
}
