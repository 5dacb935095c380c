package gateway

import "time"

// The length of a window where the configuration does not say, and its limit.
const (
	defaultWindow = time.Minute
	maxWindow     = time.Hour
)

// window counts the requests that arrive for a run, and how busy it is, in each
// second of a sliding window. Times are since the gateway began. A window
// without requests takes no memory.
type window struct {
	length       int64         // seconds
	ring         []second      // by the second's number: the present one and length before it
	newest       int64         // the present second's number
	summedUntil  time.Duration // until when busy time is summed
	watchedSince time.Duration
	busy         int // requests in flight and waiting now
}

// second is what one second of a window has.
type second struct {
	requests int
	busy     time.Duration // of all requests together
}

func newWindow(now time.Duration) window {
	return window{
		length: int64(defaultWindow / time.Second), newest: int64(now / time.Second), summedUntil: now, watchedSince: now,
	}
}

func (w *window) at(n int64) *second { return &w.ring[n%int64(len(w.ring))] }

// advance brings the window up to now.
func (w *window) advance(now time.Duration) {
	newest := int64(now / time.Second)
	if w.ring == nil {
		w.newest, w.summedUntil = newest, now
		return
	}
	if gap := newest - int64(len(w.ring)); gap > w.newest {
		w.newest, w.summedUntil = gap, time.Duration(gap)*time.Second
		*w.at(gap) = second{}
	}
	for w.newest < newest {
		end := time.Duration(w.newest+1) * time.Second
		w.at(w.newest).busy += time.Duration(w.busy) * (end - w.summedUntil)
		w.newest, w.summedUntil = w.newest+1, end
		*w.at(w.newest) = second{}
	}
	w.at(newest).busy += time.Duration(w.busy) * (now - w.summedUntil)
	w.summedUntil = now
}

// current returns the present second.
func (w *window) current(now time.Duration) *second {
	w.advance(now)
	if w.ring == nil {
		w.ring = make([]second, w.length+1)
	}
	return w.at(w.newest)
}

// addBusy changes how many requests are in flight or wait from now on.
func (w *window) addBusy(now time.Duration, by int) {
	w.current(now)
	w.busy += by
}

// countArrival counts a request, and returns the number of its second.
func (w *window) countArrival(now time.Duration) int64 {
	w.current(now).requests++
	return w.newest
}

// retract removes a request that was counted in a second.
func (w *window) retract(now time.Duration, n int64) {
	w.advance(now)
	if w.ring != nil && w.newest-n < int64(len(w.ring)) && w.at(n).requests > 0 {
		w.at(n).requests--
	}
}

// resize changes the length of the window, and keeps the counts that fit. A
// window that becomes longer did not watch the time before the shorter one.
func (w *window) resize(now, to time.Duration) {
	if to <= 0 {
		to = defaultWindow
	}
	length := int64((min(to, maxWindow) + time.Second - 1) / time.Second)
	if length == w.length {
		return
	}
	w.advance(now)
	if length > w.length {
		w.watchedSince = max(w.watchedSince, now-time.Duration(w.length)*time.Second)
	}
	old := *w
	w.length = length
	if old.ring == nil {
		return
	}
	w.ring = make([]second, length+1)
	for n := max(0, old.newest-min(length, old.length)); n <= old.newest; n++ {
		*w.at(n) = *old.at(n)
	}
}

// totals returns how many requests arrived, how many were in flight or waited on
// average, and how much of the window was watched.
func (w *window) totals(now time.Duration) (requests int, busy float64, watched time.Duration) {
	w.advance(now)
	all := time.Duration(w.length) * time.Second
	watched = min(all, now-w.watchedSince)
	var sum time.Duration
	for _, s := range w.ring {
		requests, sum = requests+s.requests, sum+s.busy
	}
	if requests == 0 && sum == 0 && w.busy == 0 {
		w.ring = nil
		return 0, 0, watched
	}
	if covered := min(now-w.watchedSince, all+now%time.Second); covered > 0 {
		busy = float64(sum) / float64(covered)
	}
	return requests, busy, watched
}
