package store

import "time"

// SetPatience sets the limit for one query or transaction.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// SetClock replaces the clock.
func (s *Store) SetClock(now func() time.Time) { s.clock = now }

// SameReport is sameReport.
var SameReport = sameReport
