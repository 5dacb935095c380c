package relay

import (
	"sync"
	"testing"
)

// recordingOpenings has a number of places, and records how they were used.
type recordingOpenings struct {
	mu      sync.Mutex
	places  int
	waiting []func(Opening)
	results map[OpeningResult]int
	most    int // places taken at once
	taken   int
}

type recordedOpening struct{ o *recordingOpenings }

func (o *recordingOpenings) Enter(_ string, granted func(Opening)) Opening {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taken == o.places {
		o.waiting = append(o.waiting, granted)
		return nil
	}
	o.taken++
	o.most = max(o.most, o.taken)
	return &recordedOpening{o}
}

func (o *recordedOpening) Connected() {}

func (o *recordedOpening) Leave(result OpeningResult) {
	o.o.mu.Lock()
	defer o.o.mu.Unlock()
	o.o.results[result]++
	o.o.taken--
	if len(o.o.waiting) > 0 && o.o.taken < o.o.places {
		next := o.o.waiting[0]
		o.o.waiting = o.o.waiting[1:]
		o.o.taken++
		go next(&recordedOpening{o.o})
	}
}

func (o *recordingOpenings) resultsAfter(t *testing.T, sum int) map[OpeningResult]int {
	t.Helper()
	results := map[OpeningResult]int{}
	eventually(t, "all places are given back", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		total := 0
		for k, v := range o.results {
			results[k] = v
			total += v
		}
		return o.taken == 0 && total >= sum
	})
	return results
}

func newRecordingOpenings(places int) *recordingOpenings {
	return &recordingOpenings{places: places, results: map[OpeningResult]int{}}
}

// TestOpenings_Limit opens two connections at a time for 20 clients of two loops.
func TestOpenings_Limit(t *testing.T) {
	o := newRecordingOpenings(2)
	r := newRig(t, echo(t), Options{Openings: o, Loops: 2})
	var all sync.WaitGroup
	for range 20 {
		c := r.dial()
		all.Go(func() {
			for range 5 {
				c.send(get)
				if line, _ := c.readHead(); line != "HTTP/1.1 200 OK" {
					t.Errorf("received %q", line)
				}
				c.expect("GET / ")
			}
		})
	}
	all.Wait()
	results := o.resultsAfter(t, 1)
	if o.most > 2 || results[Opened] == 0 || results[Hung]+results[Refused] > 0 {
		t.Fatalf("%d places taken at once, results %v", o.most, results)
	}
}

func TestOpenings_Refused(t *testing.T) {
	s := newReplicaServer(t)
	_ = s.Close()
	o := newRecordingOpenings(1)
	r := newRig(t, s.Addr().String(), Options{Openings: o})
	for range 3 {
		c := r.dial()
		c.send(get)
		c.expect("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 5\r\n\r\n05")
	}
	if results := o.resultsAfter(t, 3); results[Refused] != 3 {
		t.Fatal("results", results)
	}
}

// TestOpenings_Unused gives a place back that is granted when the client has left.
func TestOpenings_Unused(t *testing.T) {
	s := newReplicaServer(t)
	o := newRecordingOpenings(0)
	r := newRig(t, s.Addr().String(), Options{Openings: o})
	c := r.dial()
	c.send(get)
	waiting := func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.waiting) == 1
	}
	eventually(t, "the attempt waits", waiting)
	_ = c.Close()
	r.expectEnd(ClientLeft, 0)
	o.mu.Lock()
	o.taken = 1
	o.mu.Unlock()
	o.waiting[0](&recordedOpening{o})
	if results := o.resultsAfter(t, 1); results[Unused] != 1 {
		t.Fatal("results", results)
	}
	s.expectNone()
}
