package backend_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"dstack/internal/backend"
	"dstack/internal/dstack"
)

// stubBackend offers one machine, or does not answer, or fails.
type stubBackend struct {
	backend.Backend
	hangs   bool
	failure error
}

func (b stubBackend) Offers(ctx context.Context, _ dstack.Requirements) ([]dstack.Offer, error) {
	if b.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []dstack.Offer{{Type: "box"}}, b.failure
}

func TestSet_AFailingBackendDoesNotHideOtherOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, failure := backend.NewSet(), errors.New("broken")
		set.Add("main", "slow", stubBackend{hangs: true})
		set.Add("main", "good", stubBackend{})
		set.Add("main", "broken", stubBackend{failure: failure})
		set.Add("other", "elsewhere", stubBackend{})
		found := set.Offers(t.Context(), "main", dstack.Requirements{}, 10)
		offers, unanswered := found.Offers, found.Unanswered
		if len(offers) != 1 || offers[0].Key != "good" {
			t.Errorf("offers %+v", offers)
		}
		if len(unanswered) != 2 ||
			unanswered[0].Key != "slow" || !errors.Is(unanswered[0].Err, context.DeadlineExceeded) ||
			unanswered[1].Key != "broken" || !errors.Is(unanswered[1].Err, failure) {
			t.Errorf("unanswered %+v", unanswered)
		}
	})
}

// config.yml may say Main where the database says main.
func TestSet_IgnoresTheCaseOfProjects(t *testing.T) {
	set := backend.NewSet()
	set.Add("Main", "local-process", nil)
	if keys := set.Of("main"); len(keys) != 1 || keys[0] != "local-process" {
		t.Errorf("got %v", keys)
	}
}

func TestSet_UnconfiguredProjectsHaveTheBackendsOfTheFallback(t *testing.T) {
	set := backend.NewSet()
	set.Add("main", "local-process", nil)
	set.Configure("Empty")
	set.Configure("main")
	if keys := set.Of("new"); len(keys) != 0 {
		t.Errorf("without a fallback: %v", keys)
	}
	set.SetFallback("Main")
	if keys := set.Of("new"); len(keys) != 1 || keys[0] != "local-process" {
		t.Errorf("a new project has %v", keys)
	}
	if keys := set.Of("empty"); len(keys) != 0 {
		t.Errorf("a project that is configured without backends has %v", keys)
	}
}

func TestSet_GetRefusesAnUnknownKey(t *testing.T) {
	if _, err := backend.NewSet().Get("aws"); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("got %v", err)
	}
}

// choosyBackend has a machine that cannot be used now.
type choosyBackend struct {
	stubBackend
	failure error
}

func (b choosyBackend) ListUnusable(_ context.Context, project dstack.ProjectID) ([]dstack.Rejection, error) {
	return []dstack.Rejection{{Offer: dstack.Offer{Type: "box"}, Reason: "it does not answer to " + string(project)}}, b.failure
}

func TestSet_ListsUnusableMachines(t *testing.T) {
	set := backend.NewSet()
	set.Add("main", "good", stubBackend{})
	set.Share("ssh", choosyBackend{})
	set.Share("broken", choosyBackend{failure: errors.New("broken")})
	got := set.ListUnusable(t.Context(), dstack.Project{ID: "p", Name: "main"})
	if len(got) != 1 || got[0].Reason != "it does not answer to p" {
		t.Errorf("got %+v", got)
	}
}
