package api

import "time"

// Timestamp is a time in the 0.18.10 wire format: in UTC, written as an offset,
// with microseconds (2024-08-21T10:00:00+00:00). Unmarshaling accepts any
// RFC 3339 time.
type Timestamp struct{ time.Time }

// NewTimestamp returns t as a Timestamp, truncated to microseconds.
func NewTimestamp(t time.Time) Timestamp { return Timestamp{t.UTC().Truncate(time.Microsecond)} }

// MarshalJSON writes six decimal places of the second, or none if they are zero.
func (s Timestamp) MarshalJSON() ([]byte, error) {
	layout := `"2006-01-02T15:04:05-07:00"`
	if s.Nanosecond() >= int(time.Microsecond) {
		layout = `"2006-01-02T15:04:05.000000-07:00"`
	}
	return []byte(s.UTC().Format(layout)), nil
}
