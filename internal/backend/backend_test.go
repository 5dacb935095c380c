package backend_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"dstack/internal/backend"
	"dstack/internal/dstack"
)

// box offers one machine, hangs, or fails.
type box struct {
	backend.Backend
	hangs bool
	err   error
}

func (b box) Offers(ctx context.Context) ([]dstack.Offer, error) {
	if b.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []dstack.Offer{{Type: "box"}}, b.err
}

// One that hangs or fails keeps back none of what the others offer.
func TestSet_OffersOfThoseThatAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, broken := backend.NewSet(), errors.New("broken")
		set.Add("main", "hung", box{hangs: true})
		set.Add("main", "good", box{})
		set.Add("main", "broken", box{err: broken})
		set.Add("other", "elsewhere", box{})
		offers, silent := set.Offers(t.Context(), "main")
		if len(offers) != 1 || offers[0].Key != "good" {
			t.Errorf("offers %+v", offers)
		}
		if len(silent) != 2 || silent[0].Key != "hung" || !errors.Is(silent[0].Err, context.DeadlineExceeded) || silent[1].Key != "broken" || !errors.Is(silent[1].Err, broken) {
			t.Errorf("silent %+v", silent)
		}
	})
}

// The file may say Main where the database says main.
func TestSet_ProjectsAreFoundWithoutCase(t *testing.T) {
	set := backend.NewSet()
	set.Add("Main", "local-process", nil)
	if keys := set.Of("main"); len(keys) != 1 || keys[0] != "local-process" {
		t.Errorf("got %v", keys)
	}
}
