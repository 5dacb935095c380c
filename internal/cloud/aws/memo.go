package aws

import (
	"context"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// memo keeps answers of an account for a while, so that many launches ask once. The zero value is ready.
type memo[T any] struct {
	mu      sync.Mutex
	answers map[string]*memoAnswer[T]
}

// memoAnswer is the answer for one key. Whoever holds the lock may look, and others wait for the result.
type memoAnswer[T any] struct {
	lock  chan struct{}
	value T
	err   error
	until time.Time
}

// How long a failed look is not repeated, other than one that was cut short.
const (
	failureTime   = 20 * time.Second
	temporaryTime = time.Second // of a failure that may pass by itself
)

// get returns the kept answer for a key, or calls look and keeps its answer for a time.
func (m *memo[T]) get(ctx context.Context, key string, keep time.Duration, look func(context.Context) (T, error)) (T, error) {
	answer := m.answer(key)
	select {
	case answer.lock <- struct{}{}:
		defer func() { <-answer.lock }()
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	if time.Now().Before(answer.until) {
		return answer.value, answer.err
	}
	answer.value, answer.err = look(ctx)
	switch {
	case answer.err == nil:
		answer.until = time.Now().Add(keep)
	case ctx.Err() != nil:
		answer.until = time.Time{}
	case dstack.KindOf(answer.err) == dstack.Unavailable:
		answer.until = time.Now().Add(temporaryTime)
	default:
		answer.until = time.Now().Add(failureTime)
	}
	return answer.value, answer.err
}

func (m *memo[T]) answer(key string) *memoAnswer[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answers == nil {
		m.answers = map[string]*memoAnswer[T]{}
	}
	answer := m.answers[key]
	if answer == nil {
		answer = &memoAnswer[T]{lock: make(chan struct{}, 1)}
		m.answers[key] = answer
	}
	return answer
}

// forget drops the answer for a key.
func (m *memo[T]) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.answers, key)
}

// forgetAll drops all answers.
func (m *memo[T]) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers = nil
}
