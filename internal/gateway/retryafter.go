package gateway

import (
	"net/http"
	"strconv"
)

// shouldRetry is a header of OpenAI's and Anthropic's clients: with false, they
// do not try again.
const shouldRetry = "X-Should-Retry"

const (
	// maxRetryAfter is the longest wait that a response asks for, in seconds. Some
	// clients do not try again, or do so at once, when it is longer.
	maxRetryAfter     = 60
	defaultRetryAfter = 2
)

// isRetryable has the statuses whose responses say when to try again. Some
// clients do not try again on a 429 that does not.
var isRetryable = map[int]bool{http.StatusTooManyRequests: true, http.StatusServiceUnavailable: true}

// setRetryAfter asks the client to try again in some seconds.
func setRetryAfter(h http.Header, seconds int) {
	h.Set("Retry-After", strconv.Itoa(min(seconds, maxRetryAfter)))
}

// setReplicaRetryAfter completes a replica's response that does not say when to
// try again.
func setReplicaRetryAfter(res *http.Response) {
	if isRetryable[res.StatusCode] && res.Header.Get("Retry-After") == "" && res.Header.Get(shouldRetry) == "" {
		setRetryAfter(res.Header, defaultRetryAfter)
	}
}
