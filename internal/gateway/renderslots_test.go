package gateway

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"dstack/internal/openai"
)

// A run that uses up its turns leaves some for the others, and its own
// requests are sent away in the end.
func TestTurns_OneRunLeavesSomeForOthers(t *testing.T) {
	turns := newRenderSlots(2)
	turns.wait = 50 * time.Millisecond
	giveBack, err := turns.acquire(t.Context(), "slow")
	if err != nil {
		t.Fatal(err)
	}
	_, err = turns.acquire(t.Context(), "slow")
	if p, ok := errors.AsType[*openai.Problem](err); !ok || p.Status != http.StatusTooManyRequests || p.Code != "overloaded" {
		t.Errorf("a second one of the run gets %v", err)
	}
	other, err := turns.acquire(t.Context(), "other")
	if err != nil {
		t.Fatalf("another run: %v", err)
	}
	if _, err := turns.acquire(t.Context(), "third"); err == nil {
		t.Error("three have a turn, of two")
	}
	other()
	giveBack()
	if again, err := turns.acquire(t.Context(), "slow"); err != nil {
		t.Error(err)
	} else {
		again()
	}
	if len(turns.runs) > 0 || len(turns.all) > 0 {
		t.Errorf("left over: %d runs, %d turns", len(turns.runs), len(turns.all))
	}
}

func TestTurns_WhoLeavesIsNotTold(t *testing.T) {
	turns := newRenderSlots(2)
	giveBack, err := turns.acquire(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	defer giveBack()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.acquire(ctx, "run"); !errors.Is(err, context.Canceled) {
		t.Errorf("it is %v", err)
	}
}
