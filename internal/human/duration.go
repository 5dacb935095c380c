package human

import (
	"fmt"
	"strings"
	"time"
)

const day = 24 * time.Hour

// Duration returns a length of time in its two largest units: 48s, 1m 52s,
// 2h 5m, 3d 4h. The rest is cut off, and a negative duration is 0s.
func Duration(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return twoUnits(d, time.Minute, "m", time.Second, "s")
	case d < day:
		return twoUnits(d, time.Hour, "h", time.Minute, "m")
	}
	return twoUnits(d, day, "d", time.Hour, "h")
}

func twoUnits(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf(" %d%s", rest, smallName)
	}
	return text
}

// Age returns a length of time in its largest unit, cut off: 48s, 2h, 5d.
func Age(d time.Duration) string {
	largest, _, _ := strings.Cut(Duration(d), " ")
	return largest
}

// RoundDuration returns a length of time in one unit, rounded: 0.3s, 14s, 3m,
// 2h. The unit changes at 2m and at 2h.
func RoundDuration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	}
	return fmt.Sprintf("%.0fh", d.Hours())
}

// Latency returns a short length of time: 210ms, 1.4s.
func Latency(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0fms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// ExactDuration returns a length of time in the syntax of a configuration,
// rounded up to a second: 60s, 2m53s, 10m. Up to 2m it is in seconds.
func ExactDuration(d time.Duration) string {
	if whole := d.Truncate(time.Second); whole < d {
		d = whole + time.Second
	}
	if d <= 2*time.Minute {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
