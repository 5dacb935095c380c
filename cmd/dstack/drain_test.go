package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestInFlight_WaitIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f inFlight
		if left := f.waitIdle(t.Context()); left != 0 {
			t.Errorf("%d requests before the first", left)
		}
		first, second := f.begin(), f.begin()
		first()
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if left := f.waitIdle(brief); left != 1 {
			t.Errorf("%d requests are left, want 1", left)
		}
		began := time.Now()
		time.AfterFunc(time.Minute, second)
		if left := f.waitIdle(t.Context()); left != 0 || time.Since(began) != time.Minute {
			t.Errorf("%d requests are left after %s", left, time.Since(began))
		}
	})
}
