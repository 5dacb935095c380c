package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/relay"
)

// openingsRig is a limiter, and the places that were granted to attempts that waited.
type openingsRig struct {
	t       *testing.T
	limiter *openingLimiter
	granted chan relay.Opening
}

const someReplica = "192.0.2.1:80"

func testOpenings(t *testing.T, test func(t *testing.T, r *openingsRig)) {
	synctest.Test(t, func(t *testing.T) {
		test(t, &openingsRig{t: t, limiter: newOpeningLimiter(), granted: make(chan relay.Opening, 1000)})
	})
}

// enter makes n attempts, and returns the places of those that need not wait.
func (r *openingsRig) enter(n int) (places []relay.Opening) {
	for range n {
		if place := r.limiter.Enter(someReplica, func(o relay.Opening) { r.granted <- o }); place != nil {
			places = append(places, place)
		}
	}
	return places
}

// expectGranted takes the places that were granted, and expects n.
func (r *openingsRig) expectGranted(n int) (places []relay.Opening) {
	r.t.Helper()
	synctest.Wait()
	for len(r.granted) > 0 {
		places = append(places, <-r.granted)
	}
	if len(places) != n {
		r.t.Fatalf("%d attempts got a place, not %d", len(places), n)
	}
	return places
}

func leaveAll(places []relay.Opening, result relay.OpeningResult) {
	for _, o := range places {
		if result == relay.Opened {
			o.Connected()
		}
		o.Leave(result)
	}
}

func TestOpeningLimiter_FirstFourThenMore(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		places := r.enter(100)
		if len(places) != firstOpenings {
			t.Fatal(len(places))
		}
		leaveAll(places, relay.Opened)
		for n := range 3 { // one more each time
			places = r.expectGranted(firstOpenings + n)
			leaveAll(places, relay.Opened)
		}
	})
}

// A replica that takes long to respond has the connections accepted meanwhile.
func TestOpeningLimiter_PlaceIsFreeAfterAcceptTime(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		for _, o := range r.enter(10) {
			o.Connected()
		}
		time.Sleep(minAcceptTime - 1)
		r.expectGranted(0)
		time.Sleep(time.Nanosecond)
		r.expectGranted(4)
	})
}

func TestOpeningLimiter_HangHalvesOnce(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		places := r.enter(100)
		places[0].Connected()
		places[0].Leave(relay.Opened)
		places = append(places[1:], r.expectGranted(1)...)
		time.Sleep(minSuspicion) // all four seem to hang, and have no place in the listen queue
		r.expectGranted(2)
		leaveAll(places, relay.Hung) // which is known already
		r.expectGranted(0)
	})
}

// While a replica is away, each attempt finds that out by itself, and the replica's return finds the limit of the beginning.
func TestOpeningLimiter_ReplicaIsAway(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		places := r.enter(1000)
		time.Sleep(maxFruitlessWait + minSuspicion)
		synctest.Wait()
		if len(r.granted) != 1000-len(places) {
			t.Fatalf("%d attempts still wait", 1000-len(places)-len(r.granted))
		}
		for len(r.granted) > 0 {
			places = append(places, <-r.granted)
		}
		leaveAll(places, relay.Hung)
		if n := len(r.enter(1000)); n != firstOpenings {
			t.Errorf("%d places after the return", n)
		}
	})
}

func TestOpeningLimiter_RefusedAndUnusedGiveBack(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		for _, result := range []relay.OpeningResult{relay.Refused, relay.Unused} {
			places := r.enter(8)
			leaveAll(places, result)
			leaveAll(r.expectGranted(4), result)
		}
	})
}

func TestOpeningLimiter_WaitEndsWithContext(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		places := r.enter(4)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.limiter.wait(ctx, someReplica); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		leaveAll(places, relay.Refused)
		if len(r.enter(4)) != 4 {
			t.Error("a place is missing")
		}
	})
}

func TestOpeningLimiter_ForgetsIdleReplicas(t *testing.T) {
	testOpenings(t, func(t *testing.T, r *openingsRig) {
		leaveAll(r.enter(4), relay.Opened)
		time.Sleep(openingsIdleTime + 1)
		r.limiter.Enter("192.0.2.2:80", nil)
		if len(r.limiter.replicas) != 1 {
			t.Error(len(r.limiter.replicas), "replicas are remembered")
		}
	})
}
