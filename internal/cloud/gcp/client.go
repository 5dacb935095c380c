package gcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	requestTimeout = 20 * time.Second // of one request
	maxAttempts    = 4                // of one request that failed for a moment
	maxPause       = 5 * time.Second  // longer waits are the caller's
	maxAnswer      = 64 << 20
	maxConnections = 32
	maxPages       = 1000 // of one list
)

// client sends requests to Google's APIs and repeats those that failed for a moment. All requests may be repeated: they
// have an ID, or do nothing the second time.
type client struct {
	tokens   *tokenSource
	http     *http.Client
	compute  string // base URLs, with a slash at the end
	billing  string
	projects string
	pause    time.Duration // see firstPause
}

func newClient(endpoint string, tokens *tokenSource) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = maxConnections, maxConnections
	c := &client{
		tokens: tokens, pause: firstPause, http: &http.Client{Transport: transport, Timeout: requestTimeout, CheckRedirect: refuseRedirect},
		compute:  "https://compute.googleapis.com/compute/v1/",
		billing:  "https://cloudbilling.googleapis.com/v1/",
		projects: "https://cloudresourcemanager.googleapis.com/v1/projects/",
	}
	if endpoint != "" {
		c.compute, c.billing, c.projects = endpoint+"/compute/v1/", endpoint+"/v1/", endpoint+"/v1/projects/"
	}
	return c
}

// refuseRedirect makes a redirect the answer. The APIs have none, and the token is for them alone.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// call is one request.
type call struct {
	method string
	url    string
	query  url.Values
	body   any    // nil: none
	what   string // what it does, for errors: list the machines of my-project
}

// send sends a request and decodes the answer into out, unless it is nil. Its errors are of the types *apiError and
// *dstack.Error.
func (c *client) send(ctx context.Context, r call, out any) error {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return &dstack.Error{Kind: dstack.Internal, Message: "cannot " + r.what, Cause: err}
		}
	}
	for attempt := 1; ; attempt++ {
		answer, err := c.sendOnce(ctx, r, body)
		if err == nil {
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(answer, out); err != nil {
				return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot " + r.what + ": what answered is not GCP: " + human.DescribeFailure(err), Cause: err}
			}
			return nil
		}
		wait, ok := c.pauseAfter(err, attempt)
		if !ok || pause(ctx, wait) != nil {
			return err
		}
	}
}

// sendOnce sends a request once.
func (c *client) sendOnce(ctx context.Context, r call, body []byte) ([]byte, error) {
	if !isPlainURL(r.url) {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "cannot " + r.what + ": a name in the request is not one of GCP"}
	}
	token, err := c.tokens.get(ctx)
	if err != nil {
		return nil, err
	}
	target := r.url
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Internal, Message: "cannot " + r.what, Cause: err}
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	token.SetAuthHeader(request)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, &connectionError{what: r.what, cause: err}
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, &connectionError{what: r.what, cause: err}
	case len(answer) > maxAnswer:
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "cannot " + r.what + ": the answer of GCP is too large"}
	case response.StatusCode >= http.StatusMultipleChoices:
		return nil, newAPIError(r.what, response.StatusCode, parseRetryAfter(response.Header.Get("Retry-After")), answer)
	}
	return answer, nil
}

// isPlainURL reports whether the path of a URL is what it looks like. A name in it that has a slash, a question mark or dots
// would make it the URL of another object, or of another action.
func isPlainURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.Path == path.Clean(u.Path) && !strings.ContainsAny(u.EscapedPath(), "%#")
}

// connectionError is a request without an answer. It may have been carried out.
type connectionError struct {
	what  string
	cause error
}

// Error implements error.
func (e *connectionError) Error() string {
	return "cannot " + e.what + ": GCP could not be reached: " + human.DescribeFailure(e.cause)
}

// Unwrap returns the cause.
func (e *connectionError) Unwrap() error { return e.cause }

// pauseAfter returns how long to wait before the next attempt, unless another attempt is of no use.
func (c *client) pauseAfter(err error, attempt int) (wait time.Duration, ok bool) {
	if attempt >= maxAttempts {
		return 0, false
	}
	if _, ok := errors.AsType[*connectionError](err); ok {
		return waitAfter(c.pause, attempt), true
	}
	failure, ok := errors.AsType[*apiError](err)
	if !ok {
		return 0, false
	}
	switch failure.meaning() {
	case meansThrottled, meansOutage:
		wait = max(waitAfter(c.pause, attempt), failure.retryAfter)
		return wait, wait <= maxPause
	default:
		return 0, false
	}
}

// firstPause is how long to wait after the first attempt. Later waits are longer.
const firstPause = 300 * time.Millisecond

// waitAfter returns a wait that doubles with each attempt, by chance a little shorter or longer.
func waitAfter(first time.Duration, attempt int) time.Duration {
	base := first << (attempt - 1)
	return base*3/4 + rand.N(base/2)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, wait time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// maxRetryAfter is the longest wait that an answer can ask for: meanwhile, machines cannot be given back.
const maxRetryAfter = time.Hour

// parseRetryAfter reads a header Retry-After: seconds, or a time.
func parseRetryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, time.Until(at)), maxRetryAfter)
	}
	return 0
}

// listPages calls read for each page of a list. read returns the token of the next page; empty: it was the last.
func (c *client) listPages(ctx context.Context, r call, read func(answer []byte) (next string, err error)) error {
	query := url.Values{}
	maps.Copy(query, r.query)
	r.query = query
	for range maxPages {
		var answer json.RawMessage
		if err := c.send(ctx, r, &answer); err != nil {
			return err
		}
		next, err := read(answer)
		if err != nil {
			return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot " + r.what + ": " + err.Error(), Cause: err}
		}
		if next == "" {
			return nil
		}
		r.query.Set("pageToken", next)
	}
	return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot " + r.what + ": the list of GCP does not end"}
}
