package engine

import "time"

// MonotonicClock turns the times of log lines into strictly increasing microseconds, so
// that the time of a line identifies it and a reader can resume after it. The zero
// value is ready to use.
type MonotonicClock struct{ last time.Time }

// Next returns at, truncated to microseconds; or, if that is not later than the time
// returned before, the microsecond after that time.
func (c *MonotonicClock) Next(at time.Time) time.Time {
	at = at.UTC().Truncate(time.Microsecond)
	if next := c.last.Add(time.Microsecond); !at.After(c.last) {
		at = next
	}
	c.last = at
	return at
}
