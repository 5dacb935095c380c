package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestBudget_WaitsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newReadBudget(100, 100)
		var all sync.WaitGroup
		defer all.Wait()
		var order []string
		var mu sync.Mutex
		passed := func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			got := order
			order = nil
			return got
		}
		reserve := func(name string, r *reservation, n int64) {
			all.Go(func() {
				err := b.reserve(t.Context(), r, n)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					name += " not"
				}
				order = append(order, name)
			})
			synctest.Wait()
		}
		want := func(what string, names ...string) {
			t.Helper()
			if got := slices.Sorted(slices.Values(passed())); !slices.Equal(got, names) {
				t.Errorf("%s: %v, want %v", what, got, names)
			}
		}
		var first, second, third, fourth, fifth reservation
		reserve("first", &first, 60)
		reserve("second", &second, 60) // more than is left: it is overdrawn
		want("the first two", "first", "second")
		reserve("second", &second, 1000)
		want("an overdrawn reservation gets all it asks for", "second")
		reserve("third", &third, 50)
		reserve("fourth", &fourth, 10) // it would fit, but is behind the third
		want("two that wait")
		b.releaseAll(&first)
		want("both of them, in any order", "fourth", "third")
		reserve("fifth", &fifth, 90)
		reserve("third", &third, 60)
		want("with all bytes used")
		b.releaseAll(&second)
		want("the first in the queue may exceed the total", "fifth")
		b.releaseAll(&fourth) // 50 left
		want("too few bytes")
		b.releaseAll(&fifth)
		want("the next in the queue", "third")
		b.releaseAll(&third)
		b.releaseAll(&third)
		if b.used != 0 || b.overdrawn || b.waiting.Len() != 0 {
			t.Errorf("%d used, overdrawn %v, %d waiting", b.used, b.overdrawn, b.waiting.Len())
		}
	})
}

// The reservations of one owner delay no other owner, except for the one that is
// overdrawn.
func TestBudget_LimitOfOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newReadBudget(100, 50)
		reserve := func(r *reservation, n int64) chan error {
			done := make(chan error, 1)
			go func() { done <- b.reserve(t.Context(), r, n) }()
			synctest.Wait()
			return done
		}
		within, overdrawn, waiting, small := reservation{owner: "a"}, reservation{owner: "a"}, reservation{owner: "a"}, reservation{owner: "a"}
		other := reservation{owner: "b"}
		for _, done := range []chan error{reserve(&within, 40), reserve(&overdrawn, 40)} {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		third, fourth := reserve(&waiting, 40), reserve(&small, 10)
		if err := <-reserve(&other, 50); err != nil || len(third) != 0 {
			t.Errorf("another owner: %v; a third of the first: %d", err, len(third))
		}
		if len(fourth) != 0 {
			t.Error("a fourth went before the third")
		}
		b.releaseAll(&within)
		if err := errors.Join(<-third, <-fourth); err != nil || waiting.overdrawn || small.overdrawn {
			t.Errorf("when they fit: %v, overdrawn: %v, %v", err, waiting.overdrawn, small.overdrawn)
		}
		for _, r := range []*reservation{&overdrawn, &waiting, &other, &small} {
			b.releaseAll(r)
		}
		if b.used != 0 || b.overdrawn || b.waiting.Len() != 0 || len(b.byOwner) != 0 {
			t.Errorf("%d used, overdrawn %v, %d waiting, by owner %v", b.used, b.overdrawn, b.waiting.Len(), b.byOwner)
		}
	})
}

func TestBudget_ReserveTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newReadBudget(10, 10)
		var first, second, third reservation
		for _, r := range []*reservation{&first, &second} { // one within, one overdrawn
			if err := b.reserve(t.Context(), r, 10); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if err := b.reserve(t.Context(), &third, 10); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != maxReadWait {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		b.releaseAll(&third)
		b.releaseAll(&second)
		b.releaseAll(&first)
		if b.used != 0 || b.overdrawn || b.waiting.Len() != 0 {
			t.Errorf("%d used, overdrawn %v, %d waiting", b.used, b.overdrawn, b.waiting.Len())
		}
	})
}

func TestBudget_KeepsSomeForSmallReservations(t *testing.T) {
	const k = 1 << 10
	b := newBodyBudget(1600*k, 100*k)
	for i, c := range []struct {
		owner  string
		has, n int64
		want   bool
	}{
		{"a", 0, 801 * k, false}, // more than half
		{"a", 0, 800 * k, true},
		{"a", 0, 17 * k, false},
		{"a", 8 * k, 9 * k, false}, // not small together
		{"a", 0, 16 * k, true},
		{"b", 0, 700 * k, false}, // the last hundred are for small ones
		{"b", 0, 684 * k, true},
		{"b", 0, 17 * k, false},
		{"b", 0, 16 * k, true},
		{"c", 0, 16 * k, true},
	} {
		if got := b.tryReserve(&reservation{owner: c.owner, bytes: c.has}, c.n); got != c.want {
			t.Errorf("%d: %+v: %v", i, c, got)
		}
	}
	b.release(&reservation{owner: "a", bytes: 816 * k}, 816*k)
	if !b.tryReserve(&reservation{owner: "c"}, 700*k) {
		t.Error("released bytes are not available")
	}
	b.release(&reservation{owner: "b", bytes: 700 * k}, 700*k)
	b.release(&reservation{owner: "c", bytes: 716 * k}, 716*k)
	if b.used != 0 || len(b.byOwner) != 0 {
		t.Errorf("%d used, %v", b.used, b.byOwner)
	}
}

// A project's share covers what one request may need.
func TestBudget_OneRequestFits(t *testing.T) {
	b := newBodyBudget(300, 100)
	r := &reservation{owner: "a"}
	for _, part := range []string{"a body", "its converted copy"} {
		if !b.tryReserve(r, 100) {
			t.Errorf("%s does not fit", part)
		}
	}
}

func TestBudget_SoleReservationOfAnOwner(t *testing.T) {
	b := newWaitQueue(10, 100).bodies
	large, small := &reservation{owner: "run"}, &reservation{owner: "run"}
	if !b.tryReserve(large, 1000) {
		t.Error("a large body may not wait alone")
	}
	if b.tryReserve(small, 1) {
		t.Error("another body waits beside it")
	}
	if !b.tryReserve(small, 0) || !b.tryReserve(&reservation{owner: "other"}, 100) {
		t.Error("requests without a body, or of another run, may not wait")
	}
	b.releaseAll(large)
	if !b.tryReserve(small, 100) {
		t.Error("the bytes are not available again")
	}
}

// Whatever is reserved and released, the sums are right and within the limits.
func TestBudget_StaysWithinItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := budgetLimits{total: 100, perOwner: 60, small: 5, extra: 10, soleMayExceed: rapid.Bool().Draw(t, "sole may exceed")}
		b := newBudget(limits)
		held := []*reservation{{owner: "a"}, {owner: "a"}, {owner: "b"}, {owner: "b"}, {owner: "c"}}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				b.tryReserve(rapid.SampledFrom(held).Draw(t, "reservation"), rapid.Int64Range(0, 80).Draw(t, "bytes"))
			},
			"release": func(t *rapid.T) {
				r := rapid.SampledFrom(held).Draw(t, "reservation")
				b.release(r, rapid.Int64Range(0, r.bytes).Draw(t, "bytes"))
			},
			"release all": func(t *rapid.T) { b.releaseAll(rapid.SampledFrom(held).Draw(t, "reservation")) },
			"": func(t *rapid.T) {
				var sum int64
				byOwner, holders := map[string]int64{}, map[string]int{}
				for _, r := range held {
					sum += r.bytes
					if byOwner[r.owner] += r.bytes; r.bytes > 0 {
						holders[r.owner]++
					}
				}
				if b.used != sum || sum > limits.total {
					t.Fatalf("%d used, the sum is %d", b.used, sum)
				}
				for owner, n := range byOwner {
					mayExceed := limits.soleMayExceed && holders[owner] == 1
					if b.byOwner[owner] != n || n > limits.perOwner+limits.extra/2 && !mayExceed {
						t.Fatalf("%s has %d, the sum is %d", owner, b.byOwner[owner], n)
					}
				}
			},
		})
	})
}
