package kubeclient

import (
	"context"
	"errors"
	"io"
	"net/url"
	"sync"
	"time"

	"dstack/internal/loop"
)

// healthTimes are how often the client asks whether the API server lives, and how long it waits for the answer.
type healthTimes struct {
	interval time.Duration // while something of ours runs
	idle     time.Duration // while nothing does
	down     time.Duration // while the API server does not answer
	timeout  time.Duration
}

var defaultHealthTimes = healthTimes{interval: 5 * time.Second, idle: 30 * time.Second, down: time.Second, timeout: 3 * time.Second}

// maxUnanswered is how many questions without an answer in a row make the client open a new connection: the old one may lead
// to a machine that is gone, which nothing else shows for 45 s.
const maxUnanswered = 2

// health is what the client knows about the API server. A watch that is open proves nothing: it stays open while the API
// server is frozen, and after the account has lost its rights.
type health struct {
	times   healthTimes
	wake    loop.Wake // asks for a question earlier than planned
	changed loop.Broadcast

	mu         sync.Mutex
	asked      time.Time // when the latest question that was answered was asked
	err        error     // of the latest question
	unanswered int
	interests  []func() bool // each reports whether something of ours runs
}

func newHealth() *health { return &health{times: defaultHealthTimes, wake: loop.NewWake()} }

// addInterest adds a question that makes the client ask more often while its answer is yes.
func (h *health) addInterest(isRunning func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.interests = append(h.interests, isRunning)
}

// read returns when the latest question that was answered was asked, and the error of the latest.
func (h *health) read() (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked, h.err
}

func (h *health) interval() time.Duration {
	h.mu.Lock()
	err, interests := h.err, h.interests
	h.mu.Unlock()
	if err != nil {
		return h.times.down
	}
	for _, isRunning := range interests {
		if isRunning() {
			return h.times.interval
		}
	}
	return h.times.idle
}

// note records the answer to a question. It reports whether connections should be opened anew.
func (h *health) note(asked time.Time, err error) (reconnect bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if (err == nil) != (h.err == nil) {
		defer h.changed.Notify()
	}
	h.err = err
	if err == nil {
		h.asked, h.unanswered = asked, 0
		return false
	}
	if MeaningOf(err) != TimedOut {
		h.unanswered = 0
		return false
	}
	h.unanswered++
	return h.unanswered%maxUnanswered == 0
}

// Tasks returns the task that asks the API server whether it lives. It has to run where mirrors do.
func (c *Client) Tasks() []loop.Task {
	return []loop.Task{loop.Repeat("health of "+c.name, c.health.wake, func(ctx context.Context) (time.Duration, error) {
		asked := time.Now()
		err := c.CheckHealth(ctx)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if c.health.note(asked, err) {
			c.closeConnections()
		}
		return c.health.interval(), nil
	})}
}

// CheckHealth asks the API server for an empty list of pods from its cache, which shows that it answers, knows the account
// and lets it list pods.
func (c *Client) CheckHealth(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.health.times.timeout)
	defer cancel()
	query := url.Values{"limit": {"1"}, "resourceVersion": {"0"}, "labelSelector": {"dstack.ai/health=none"}}
	resp, err := c.get(ctx, "/api/v1/namespaces/"+url.PathEscape(c.namespace)+"/pods", query)
	if err != nil {
		return c.newError(err, request{verb: "list", word: Pods.Word})
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return c.newError(errors.Join(err, resp.Body.Close()), request{verb: "list", word: Pods.Word})
}

// Health returns when the API server was last known to answer, and why it does not answer now, if it does not.
func (c *Client) Health() (time.Time, error) { return c.health.read() }

// HealthChanged returns a channel that is closed when the error of Health appears or goes.
func (c *Client) HealthChanged() <-chan struct{} { return c.health.changed.Changed() }
