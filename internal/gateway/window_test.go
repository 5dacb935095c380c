package gateway

import (
	"math"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	const s = time.Second
	type act struct {
		at   time.Duration
		do   string // arrive, more, less, resize
		size time.Duration
	}
	cases := []struct {
		name     string
		acts     []act
		at       time.Duration
		requests int
		busy     float64
		watched  time.Duration
	}{
		{"nothing", nil, 10 * s, 0, 0, 10 * s},
		{"one at the begin", []act{{at: 0, do: "arrive"}}, 59 * s, 1, 0, 59 * s},
		{"one that is a window old", []act{{at: 0, do: "arrive"}}, 61 * s, 0, 0, 60 * s},
		{"at the edge of a second", []act{{at: 2 * s, do: "arrive"}, {at: 2 * s, do: "arrive"}, {at: 3 * s, do: "arrive"}}, 3 * s, 3, 0, 3 * s},
		{"ages apart", []act{{at: 0, do: "arrive"}, {at: 10_000 * s, do: "arrive"}}, 10_000 * s, 1, 0, 60 * s},
		{"half of the time busy", []act{{at: 5 * s, do: "more"}}, 10 * s, 0, 0.5, 10 * s},
		{"two for a part of a second", []act{{at: 1250 * time.Millisecond, do: "more"}, {at: 1250 * time.Millisecond, do: "more"}, {at: 1500 * time.Millisecond, do: "less"}, {at: 1500 * time.Millisecond, do: "less"}}, 2 * s, 0, 0.25, 2 * s},
		{"busy all the time", []act{{at: 0, do: "more"}, {at: 0, do: "more"}}, 500*s + s/2, 0, 2, 60 * s},
		{"busy long ago", []act{{at: 0, do: "more"}, {at: 30 * s, do: "less"}}, 200 * s, 0, 0, 60 * s},
		{"a longer window keeps all", []act{{at: 10 * s, do: "arrive"}, {at: 20 * s, do: "resize", size: 5 * time.Minute}}, 100 * s, 1, 0, 100 * s},
		{"a longer window has not seen what passed", []act{{at: 100 * s, do: "arrive"}, {at: 100 * s, do: "resize", size: time.Hour}}, 110 * s, 1, 0, 70 * s},
		{"a shorter window keeps what fits", []act{{at: 10 * s, do: "arrive"}, {at: 18 * s, do: "arrive"}, {at: 19 * s, do: "resize", size: 5 * s}}, 20 * s, 1, 0, 5 * s},
		{"there and back", []act{{at: 18 * s, do: "arrive"}, {at: 19 * s, do: "resize", size: 5 * s}, {at: 19 * s, do: "resize", size: 60 * s}}, 20 * s, 1, 0, 6 * s},
		{"an hour at the most", []act{{at: 0, do: "arrive"}, {at: 1 * s, do: "resize", size: 5 * time.Hour}}, 2 * time.Hour, 0, 0, time.Hour},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWindow(0)
			for _, a := range c.acts {
				switch a.do {
				case "arrive":
					w.countArrival(a.at)
				case "more":
					w.addBusy(a.at, 1)
				case "less":
					w.addBusy(a.at, -1)
				case "resize":
					w.resize(a.at, a.size)
				}
			}
			requests, busy, watched := w.totals(c.at)
			if requests != c.requests || math.Abs(busy-c.busy) > 0.02*c.busy || watched != c.watched {
				t.Errorf("%d requests, %g busy, %s watched", requests, busy, watched)
			}
		})
	}
}

func TestWindow_EmptyTakesNoMemory(t *testing.T) {
	w := newWindow(0)
	w.resize(0, time.Hour)
	w.totals(time.Minute)
	if w.ring != nil {
		t.Error("memory for nothing")
	}
	w.countArrival(time.Minute)
	if len(w.ring) != 3601 {
		t.Errorf("%d seconds", len(w.ring))
	}
	if w.totals(3 * time.Hour); w.ring != nil {
		t.Error("memory for what passed")
	}
}

func TestWindow_Retract(t *testing.T) {
	w := newWindow(0)
	n := w.countArrival(time.Second)
	w.countArrival(2 * time.Second)
	w.retract(5*time.Second, n)
	w.retract(5*time.Second, n) // no more than there is
	if got, _, _ := w.totals(5 * time.Second); got != 1 {
		t.Errorf("%d requests", got)
	}
	w.retract(500*time.Second, n) // long gone
	w.countArrival(500 * time.Second)
	w.retract(500*time.Second, n)
	if got, _, _ := w.totals(500 * time.Second); got != 1 {
		t.Errorf("%d requests", got)
	}
}
