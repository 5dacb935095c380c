package api

import (
	"context"
	"time"
)

// PathSecrets is the path below which secrets are listed, set and deleted.
const PathSecrets = ProjectPrefix + "/secrets"

// MaxSecretBytes is the maximum size of a secret's value. A variable of 128 KiB
// cannot be given to a program.
const MaxSecretBytes = 64 << 10

// Secret answers secrets/get; secrets/list answers a list of it. Its value is
// never returned.
type Secret struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Value     *string   `json:"value"` // always null; clients of later versions of dstack expect the key
	ChangedAt time.Time `json:"changed_at"`
	ChangedBy string    `json:"changed_by"`
	UsedBy    []string  `json:"used_by"` // names of unfinished runs
}

// SetSecretResult answers secrets/create_or_update.
type SetSecretResult struct {
	Secret
	Created bool     `json:"created"`
	Changed bool     `json:"changed"` // false: it had this value already
	Rolled  []string `json:"rolled"`  // names of the runs whose replicas are replaced
}

// Requests about secrets.
type (
	// GetSecret is the body of secrets/get.
	GetSecret struct {
		Name string `json:"name"`
	}
	// SetSecret is the body of secrets/create_or_update.
	SetSecret struct {
		Name  string `json:"name" pattern:"^[A-Za-z0-9_-]{1,200}$"`
		Value string `json:"value" minLength:"1"`
	}
	// DeleteSecrets is the body of secrets/delete.
	DeleteSecrets struct {
		SecretsNames []string `json:"secrets_names"`
		Force        bool     `json:"force,omitempty"` // also secrets that unfinished runs use
	}
)

// ListSecrets returns the secrets of a project by name, without their values.
func (c *Client) ListSecrets(ctx context.Context, project string) ([]Secret, error) {
	return readWithRetry[[]Secret](ctx, c, projectPath(PathSecrets+"/list", project), struct{}{}, callTimeout)
}

// SetSecret sets the value of a secret.
func (c *Client) SetSecret(ctx context.Context, project string, secret SetSecret) (SetSecretResult, error) {
	var result SetSecretResult
	err := c.callOnce(ctx, projectPath(PathSecrets+"/create_or_update", project), secret, &result)
	return result, err
}

// DeleteSecrets deletes secrets; see DeleteSecrets.
func (c *Client) DeleteSecrets(ctx context.Context, project string, secrets DeleteSecrets) error {
	return c.callOnce(ctx, projectPath(PathSecrets+"/delete", project), secrets, nil)
}
