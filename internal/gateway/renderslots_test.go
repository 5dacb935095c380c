package gateway

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"dstack/internal/openai"
)

// A run that uses all of its slots leaves some for others, and its own requests
// fail after the wait.
func TestRenderSlots_LimitOfOneRun(t *testing.T) {
	slots := newRenderSlots(2)
	slots.wait = 50 * time.Millisecond
	release, err := slots.acquire(t.Context(), "slow")
	if err != nil {
		t.Fatal(err)
	}
	_, err = slots.acquire(t.Context(), "slow")
	if p, ok := errors.AsType[*openai.Problem](err); !ok || p.Status != http.StatusTooManyRequests || p.Code != "overloaded" {
		t.Errorf("a second one of the run gets %v", err)
	}
	other, err := slots.acquire(t.Context(), "other")
	if err != nil {
		t.Fatalf("another run: %v", err)
	}
	if _, err := slots.acquire(t.Context(), "third"); err == nil {
		t.Error("three have a slot, of two")
	}
	other()
	release()
	if again, err := slots.acquire(t.Context(), "slow"); err != nil {
		t.Error(err)
	} else {
		again()
	}
	if len(slots.runs) > 0 || len(slots.all) > 0 {
		t.Errorf("left over: %d runs, %d slots", len(slots.runs), len(slots.all))
	}
}

func TestRenderSlots_ContextEnds(t *testing.T) {
	slots := newRenderSlots(2)
	release, err := slots.acquire(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := slots.acquire(ctx, "run"); !errors.Is(err, context.Canceled) {
		t.Errorf("it is %v", err)
	}
}
