package eventloop

import "time"

// Expirer is called when the time of a timer has come. Its method is called in the goroutine of the loop.
type Expirer interface {
	Expire(t *Timer)
}

// Timer calls an Expirer at a time. Moving it to a later time costs nothing: the loop looks at the time when the earlier
// one has come. The zero value with To set is ready.
type Timer struct {
	To Expirer

	deadline int64 // since the loop's base; 0: none
	place    int   // in timers, plus one; 0: it is not there
	key      int64 // by which it is ordered, at most deadline
}

// Set makes the timer expire after a while. It replaces what was set before.
func (l *Loop) Set(t *Timer, after time.Duration) { l.setDeadline(t, l.sinceBase()+int64(after)) }

// SetAt makes the timer expire at a time.
func (l *Loop) SetAt(t *Timer, at time.Time) { l.setDeadline(t, max(1, int64(at.Sub(l.base)))) }

// Clear makes the timer not expire.
func (l *Loop) Clear(t *Timer) { t.deadline = 0 }

// Remove is Clear, and makes the loop forget the timer at once.
func (l *Loop) Remove(t *Timer) {
	t.deadline = 0
	if t.place > 0 {
		l.timers.remove(t)
	}
}

// IsSet reports whether the timer will expire.
func (t *Timer) IsSet() bool { return t.deadline != 0 }

func (l *Loop) sinceBase() int64 { return int64(l.now.Sub(l.base)) }

func (l *Loop) setDeadline(t *Timer, deadline int64) {
	t.deadline = deadline
	switch {
	case t.place == 0:
		t.key = deadline
		l.timers.add(t)
	case deadline < t.key:
		t.key = deadline
		l.timers.moveUp(t.place - 1)
	default:
		return
	}
	if t.place == 1 {
		l.armClock()
	}
}

// fireTimers calls the timers whose time has come.
func (l *Loop) fireTimers() {
	if len(l.timers) == 0 {
		return
	}
	now := l.sinceBase()
	for len(l.timers) > 0 && l.timers[0].key <= now {
		t := l.timers[0]
		switch {
		case t.deadline == 0:
			l.timers.remove(t)
		case t.deadline > now:
			t.key = t.deadline
			l.timers.moveDown(0)
		default:
			l.timers.remove(t)
			t.deadline = 0
			l.expire(t)
		}
	}
	l.armClock()
}

func (l *Loop) expire(t *Timer) {
	defer l.survive(t.To)
	t.To.Expire(t)
}

// timers is a heap, ordered by key.
type timers []*Timer

func (h *timers) add(t *Timer) {
	*h = append(*h, t)
	t.place = len(*h)
	h.moveUp(len(*h) - 1)
}

func (h *timers) remove(t *Timer) {
	i, last := t.place-1, len(*h)-1
	t.place = 0
	moved := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	if i == last {
		return
	}
	(*h)[i] = moved
	moved.place = i + 1
	h.moveDown(i)
	h.moveUp(moved.place - 1)
}

func (h timers) moveUp(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].key <= h[i].key {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h timers) moveDown(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].key < h[least].key {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h timers) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
