package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"dstack/internal/api"
)

func TestTimestamp_WritesOffsetAndMicroseconds(t *testing.T) {
	whole := time.Date(2024, 8, 21, 12, 0, 0, 0, time.FixedZone("CEST", 2*60*60))
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{whole, `"2024-08-21T10:00:00+00:00"`},
		{whole.Add(1500 * time.Nanosecond), `"2024-08-21T10:00:00.000001+00:00"`},
		{whole.Add(250 * time.Millisecond), `"2024-08-21T10:00:00.250000+00:00"`},
		{whole.Add(10 * time.Nanosecond), `"2024-08-21T10:00:00+00:00"`},
	} {
		got, err := json.Marshal(api.NewTimestamp(c.at))
		if err != nil || string(got) != c.want {
			t.Errorf("%s is %s (%v), want %s", c.at, got, err, c.want)
		}
		var back api.Timestamp
		if err := json.Unmarshal(got, &back); err != nil || !back.Equal(c.at.Truncate(time.Microsecond)) {
			t.Errorf("%s came back as %s (%v)", got, back, err)
		}
	}
}
