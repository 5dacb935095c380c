package aws

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"

	"dstack/internal/dstack"
)

const (
	credentialsWait        = 5 * time.Second
	credentialsFailureTime = time.Minute // how long a failure is kept: looking for credentials takes seconds
)

// credentials are those of the settings. A failure to find some is kept, since the SDK would look again for seconds at
// each call.
type credentials struct {
	source func(context.Context) (sdk.CredentialsProvider, error)

	mu    sync.Mutex
	found sdk.CredentialsProvider
	err   error
	askAt time.Time // with err: when they are looked for again
}

func newCredentials(c Credentials) *credentials {
	if c.AccessKey != "" {
		static := sdkcredentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")
		return &credentials{source: func(context.Context) (sdk.CredentialsProvider, error) { return static, nil }}
	}
	return &credentials{source: findDefaultCredentials}
}

// findDefaultCredentials returns the default chain of the SDK: the environment, shared files, the metadata service.
func findDefaultCredentials(ctx context.Context) (sdk.CredentialsProvider, error) {
	loaded, err := config.LoadDefaultConfig(ctx, config.WithRegion(homeRegion))
	if err != nil {
		return nil, err
	}
	return loaded.Credentials, nil
}

// Retrieve implements sdk.CredentialsProvider.
func (c *credentials) Retrieve(ctx context.Context) (sdk.Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil && time.Now().Before(c.askAt) {
		return sdk.Credentials{}, c.err
	}
	value, err := c.retrieve(ctx)
	if err == nil {
		c.err = nil
		return value, nil
	}
	if ctx.Err() != nil { // the caller has no time left: that says nothing about the credentials
		return sdk.Credentials{}, ctx.Err()
	}
	c.err = &credentialsError{err}
	c.askAt = time.Now().Add(credentialsFailureTime)
	return sdk.Credentials{}, c.err
}

func (c *credentials) retrieve(ctx context.Context) (sdk.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, credentialsWait)
	defer cancel()
	if c.found == nil {
		found, err := c.source(ctx)
		if err != nil {
			return sdk.Credentials{}, err
		}
		c.found = sdk.NewCredentialsCache(found)
	}
	return c.found.Retrieve(ctx)
}

// credentialsError says that there are no credentials.
type credentialsError struct{ cause error }

func (e *credentialsError) Error() string {
	return fmt.Sprintf("no credentials were found: %v", e.cause)
}

func (e *credentialsError) Unwrap() error { return e.cause }

// explain returns the error for the user.
func (e *credentialsError) explain() *dstack.Error {
	failure := &dstack.MachineFailure{
		Cause:   dstack.FailureMisconfigured,
		Scope:   dstack.ScopeBackend,
		Message: "aws: no credentials were found in the environment, in ~/.aws, or on the machine that the server runs on",
	}
	return &dstack.Error{
		Kind:    dstack.Unauthorized,
		Message: failure.Message,
		Hint:    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the server, or write creds: {type: access_key, …} into config.yml",
		Cause:   errors.Join(failure, e),
	}
}
