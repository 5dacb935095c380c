package aws

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"dstack/internal/dstack"
)

// The limits of one call, with its repetitions.
const (
	readLimit   = 20 * time.Second
	changeLimit = 60 * time.Second
)

const (
	maxAttempts   = 3
	maxRetryDelay = 5 * time.Second
)

// newRetryer returns the retries of a call. The SDK's own has a quota of retries that is never refilled by time, and
// repeats a lack of capacity within milliseconds, since EC2 reports it with status 500.
func newRetryer() sdk.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.MaxBackoff = maxRetryDelay
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(isFinal)}, o.Retryables...)
	})
}

// isFinal reports that an error is an answer which the same question does not change.
func isFinal(err error) sdk.Ternary {
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return sdk.FalseTernary
	}
	failure, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return sdk.UnknownTernary
	}
	switch meaningOf(failure.ErrorCode()) {
	case meansCapacity, meansQuota, meansClock, meansRight:
		return sdk.FalseTernary
	case meansThrottled:
		if retryAfter(err) > 0 { // the SDK would come back sooner
			return sdk.FalseTernary
		}
	default:
	}
	return sdk.UnknownTernary
}

// call is one action of the API in one region.
type call struct {
	action string
	region string
	limit  time.Duration
	do     func(ctx context.Context, client *ec2.Client) error
}

// read calls an action that changes nothing.
func (p *Provider) read(ctx context.Context, region, action string, do func(context.Context, *ec2.Client) error) error {
	return p.call(ctx, call{action, region, readLimit, do})
}

const (
	maxPages     = 500 // of one listing
	itemsPerPage = 100
)

// readPages calls an action that lists something, page by page. The paginators of the SDK take the client as an interface:
// see Provider.client.
func (p *Provider) readPages(ctx context.Context, region, action string,
	read func(ctx context.Context, client *ec2.Client, token *string) (next *string, err error),
) error {
	var token *string
	for range maxPages {
		err := p.read(ctx, region, action, func(ctx context.Context, client *ec2.Client) (err error) {
			token, err = read(ctx, client, token)
			return err
		})
		if err != nil || sdk.ToString(token) == "" {
			return err
		}
	}
	return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("aws: the answers to %s in %s do not end", action, region)}
}

// change calls an action that changes something.
func (p *Provider) change(ctx context.Context, region, action string, do func(context.Context, *ec2.Client) error) error {
	return p.call(ctx, call{action, region, changeLimit, do})
}

// call calls an action with a time limit of its own, and returns its error for the user. An action that the account has
// called too often is not called again before its time.
func (p *Provider) call(ctx context.Context, c call) error {
	if err := checkRegionName(c.region); err != nil {
		return err
	}
	key := c.region + " " + c.action
	if left := p.pauses.left(key); left > 0 {
		return throttled(c, left, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	err := c.do(ctx, p.client(c.region))
	if err == nil {
		p.pauses.end(key)
		return nil
	}
	if failure, ok := errors.AsType[smithy.APIError](err); ok && meaningOf(failure.ErrorCode()) == meansThrottled {
		return throttled(c, p.pauses.begin(key, retryAfter(err)), err)
	}
	return explain(c, err)
}

// checkRegionName refuses a name that no region has. Names come from users and from catalogues, and become parts of the names
// of hosts, which get signed requests.
func checkRegionName(region string) error {
	if regionName.MatchString(region) {
		return nil
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("aws: %.60q is not the name of a region", region), Hint: "write a name such as us-east-1"}
}

// pauses are the actions that must not be called for a while. The zero value is ready.
type pauses struct {
	mu      sync.Mutex
	actions map[string]*pause
}

type pause struct {
	times int // how often in succession
	until time.Time
}

const (
	minPause = 2 * time.Second
	maxPause = time.Minute
)

// begin adds a pause: as long as the API asks for, or twice as long as the one before.
func (p *pauses) begin(key string, wanted time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.actions == nil {
		p.actions = map[string]*pause{}
	}
	one := p.actions[key]
	if one == nil {
		one = &pause{}
		p.actions[key] = one
	}
	now := time.Now()
	if left := one.until.Sub(now); left > 0 { // a call that began before the pause
		wanted = max(wanted, left)
	} else {
		if wanted == 0 {
			wanted = min(minPause<<min(one.times, 10), maxPause)
		}
		one.times++
	}
	one.until = now.Add(wanted)
	return wanted
}

// end drops the pauses of an action.
func (p *pauses) end(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.actions[key]; one != nil && !time.Now().Before(one.until) {
		delete(p.actions, key)
	}
}

// left returns how long the pause of an action still lasts.
func (p *pauses) left(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.actions[key]; one != nil {
		return time.Until(one.until)
	}
	return 0
}
