package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading(100, 100)
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
		take := func(name string, who *reader, n int64) {
			all.Go(func() {
				err := r.take(t.Context(), who, n)
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
		var a, b, c, d, e reader
		take("a", &a, 60)
		take("b", &b, 60) // more than is left: it is the one beyond
		want("the first two", "a", "b")
		take("b", &b, 1000)
		want("who is beyond goes on", "b")
		take("c", &c, 50)
		take("d", &d, 10) // there would be room, but c was first
		want("the next wait")
		r.end(&a)
		want("both, in whatever order they are seen", "c", "d")
		take("e", &e, 90)
		take("c", &c, 60)
		want("a bound that is used up")
		r.end(&b)
		want("the first of them may go beyond", "e")
		r.end(&d) // 50 left
		want("too little")
		r.end(&e)
		want("and the next", "c")
		r.end(&c)
		r.end(&c)
		if r.left != 100 || r.beyond || r.queue.Len() != 0 {
			t.Errorf("%d left, beyond %v, queue %d", r.left, r.beyond, r.queue.Len())
		}
	})
}

// What one project reads keeps no other from reading, but for the one body
// that is beyond all bounds.
func TestReading_ShareOfOneProject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading(100, 50)
		take := func(who *reader, n int64) chan error {
			done := make(chan error, 1)
			go func() { done <- r.take(t.Context(), who, n) }()
			synctest.Wait()
			return done
		}
		in, beyond, waits, theirs, small := reader{project: "a"}, reader{project: "a"}, reader{project: "a"}, reader{project: "b"}, reader{project: "a"}
		for _, done := range []chan error{take(&in, 40), take(&beyond, 40)} {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		third, fourth := take(&waits, 40), take(&small, 10)
		if err := <-take(&theirs, 50); err != nil || len(third) != 0 {
			t.Errorf("another project: %v; a third of the first: %d", err, len(third))
		}
		if len(fourth) != 0 {
			t.Error("a fourth went before the third")
		}
		r.end(&in)
		if err := errors.Join(<-third, <-fourth); err != nil || waits.beyond || small.beyond {
			t.Errorf("when there is room: %v, beyond: %v, %v", err, waits.beyond, small.beyond)
		}
		for _, who := range []*reader{&beyond, &waits, &theirs, &small} {
			r.end(who)
		}
		if r.left != 100 || r.beyond || r.queue.Len() != 0 || len(r.taken) != 0 {
			t.Errorf("%d left, beyond %v, queue %d, taken %v", r.left, r.beyond, r.queue.Len(), r.taken)
		}
	})
}

func TestReading_NotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading(10, 10)
		var a, b, c reader
		for _, who := range []*reader{&a, &b} { // one within, one beyond
			if err := r.take(t.Context(), who, 10); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if err := r.take(t.Context(), &c, 10); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != readWait {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		r.end(&c)
		r.end(&b)
		r.end(&a)
		if r.left != 10 || r.beyond || r.queue.Len() != 0 {
			t.Errorf("%d left, beyond %v, queue %d", r.left, r.beyond, r.queue.Len())
		}
	})
}
