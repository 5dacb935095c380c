package store

import "time"

// SetPatience is for tests that do not wait long.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// SetClock is for tests that say what time it is.
func (s *Store) SetClock(now func() time.Time) { s.clock = now }

// SameReport is for the test that everything in a report counts.
var SameReport = sameReport
