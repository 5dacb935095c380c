package loop_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/loop"
)

func TestSleep(t *testing.T) {
	for _, c := range []struct {
		name           string
		timeout, sleep time.Duration
		took           time.Duration
		err            error
	}{
		{"the duration passes", time.Hour, time.Minute, time.Minute, nil},
		{"the context ends", time.Minute, time.Hour, time.Minute, context.DeadlineExceeded},
		{"the context has ended", 0, time.Hour, 0, context.DeadlineExceeded},
		{"the context has ended and there is nothing to wait for", 0, 0, 0, context.DeadlineExceeded},
		{"nothing to wait for", time.Hour, -time.Second, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				began := time.Now()
				if err := loop.Sleep(ctx, c.sleep); !errors.Is(err, c.err) {
					t.Errorf("the error is %v, want %v", err, c.err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
			})
		})
	}
}

func TestSleepUntil(t *testing.T) {
	for _, c := range []struct {
		name          string
		timeout, wake time.Duration
		sleep         time.Duration
		took          time.Duration
		err           error
	}{
		{"a signal arrives", time.Hour, time.Second, time.Minute, time.Second, nil},
		{"a signal is pending", time.Hour, 0, time.Minute, 0, nil},
		{"the duration passes", time.Hour, 2 * time.Minute, time.Minute, time.Minute, nil},
		{"the context ends", time.Minute, time.Hour, 2 * time.Hour, time.Minute, context.DeadlineExceeded},
		{"the context has ended and a signal is pending", 0, 0, time.Hour, 0, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				wake := loop.NewWake()
				if c.wake == 0 {
					wake.Signal()
				} else {
					defer time.AfterFunc(c.wake, wake.Signal).Stop()
				}
				began := time.Now()
				if err := loop.SleepUntil(ctx, c.sleep, wake); !errors.Is(err, c.err) {
					t.Errorf("the error is %v, want %v", err, c.err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
			})
		})
	}
}
