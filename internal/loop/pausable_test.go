package loop_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/loop"
)

func TestPausable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, begun atomic.Int64
		task := loop.Task{Name: "pass", Run: func(ctx context.Context) error {
			running.Add(1)
			begun.Add(1)
			<-ctx.Done()
			time.Sleep(time.Second) // it finishes what it does
			running.Add(-1)
			return ctx.Err()
		}}
		ctx, stop := context.WithCancel(t.Context())
		p := loop.NewPausable(task, task)
		done := make(chan error, 1)
		go func() { done <- loop.Run(ctx, p.Task("passes")) }()
		expect := func(what string, wantRunning, wantBegun int64) {
			t.Helper()
			synctest.Wait()
			if running.Load() != wantRunning || begun.Load() != wantBegun {
				t.Errorf("%s: %d run and %d were begun, want %d and %d", what, running.Load(), begun.Load(), wantRunning, wantBegun)
			}
		}
		expect("at the start", 2, 2)
		if err := p.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect("after Pause returned", 0, 2)
		if err := p.Pause(t.Context()); err != nil {
			t.Errorf("a second pause: %v", err)
		}
		p.Resume()
		expect("after Resume", 2, 4)
		brief, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := p.Pause(brief); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a pause with too little time: %v", err)
		}
		p.Resume()
		time.Sleep(2 * time.Second)
		expect("after a pause that took too long", 2, 6)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		expect("at the end", 0, 6)
	})
}

func TestPausable_PausedBeforeItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		p := loop.NewPausable(loop.Task{Name: "pass", Run: func(context.Context) error {
			begun.Add(1)
			return errors.New("broken")
		}})
		if err := p.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- loop.Run(t.Context(), p.Task("passes")) }()
		synctest.Wait()
		if begun.Load() != 0 {
			t.Error("it runs during the pause")
		}
		p.Resume()
		if err := <-done; err == nil || err.Error() != "passes stopped: pass stopped: broken" {
			t.Errorf("the error of a task that fails: %v", err)
		}
	})
}
