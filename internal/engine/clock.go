package engine

import "time"

// MonotonicClock makes times strictly growing microseconds, so that a reader can ask
// for what came after a line. The zero value works.
type MonotonicClock struct{ last time.Time }

// Next returns at in microseconds, or the microsecond after the last one
// returned if that is later.
func (c *MonotonicClock) Next(at time.Time) time.Time {
	at = at.UTC().Truncate(time.Microsecond)
	if next := c.last.Add(time.Microsecond); !at.After(c.last) {
		at = next
	}
	c.last = at
	return at
}
