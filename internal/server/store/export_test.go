package store

import "time"

// SetPatience is for tests that do not wait long.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }
