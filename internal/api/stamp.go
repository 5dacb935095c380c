package api

import "time"

// Timestamp is a time as the wire of the reference writes it: microseconds, and
// UTC as an offset: 2024-08-21T10:00:00+00:00. It reads any RFC 3339 time.
type Timestamp struct{ time.Time }

// NewTimestamp returns t as a Stamp.
func NewTimestamp(t time.Time) Timestamp { return Timestamp{t.UTC().Truncate(time.Microsecond)} }

// MarshalJSON writes six digits of a second, or none at all.
func (s Timestamp) MarshalJSON() ([]byte, error) {
	layout := `"2006-01-02T15:04:05-07:00"`
	if s.Nanosecond() >= int(time.Microsecond) {
		layout = `"2006-01-02T15:04:05.000000-07:00"`
	}
	return []byte(s.UTC().Format(layout)), nil
}
