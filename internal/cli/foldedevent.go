package cli

import (
	"fmt"

	"dstack/internal/api"
	"dstack/internal/human"
)

// foldedEvent is the last of several equal events.
type foldedEvent struct {
	api.EventView
	count int // how many events it stands for
	first api.EventView
}

// maxCycle is how many different events may alternate in a series that is folded:
// a replica that crashes restarts, starts and crashes.
const maxCycle = 3

// foldEvents replaces series of equal events by their last ones. Events that
// differ in numbers alone, such as durations, are equal, but exit codes count: a crash
// and the end of the memory are not the same.
func foldEvents(events []api.EventView) []foldedEvent {
	keys := make([]string, len(events))
	for i, e := range events {
		keys[i] = eventSubject(e) + "\n" + eventChange(e) + "\n" + withoutDigits(eventReason(e))
	}
	var folded []foldedEvent
	for i := 0; i < len(events); {
		cycle, count := longestCycle(keys[i:])
		for at := range cycle {
			folded = append(folded, foldedEvent{events[i+(count-1)*cycle+at], count, events[i+at]})
		}
		i += cycle * count
	}
	return folded
}

// longestCycle returns how many of the first keys repeat, and how often. Without
// a repetition, that is the first key, once.
func longestCycle(keys []string) (cycle, count int) {
	cycle, count = 1, 1
	for c := 1; c <= maxCycle; c++ {
		n := 1
		for (n+1)*c <= len(keys) && equalKeys(keys[:c], keys[n*c:(n+1)*c]) {
			n++
		}
		if n > 1 && n*c > cycle*count {
			cycle, count = c, n
		}
	}
	return cycle, count
}

func equalKeys(a, b []string) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// reason returns the event's reason and how often it occurred.
func (e foldedEvent) reason() string {
	why := eventReason(e.EventView)
	if e.count == 1 {
		return why
	}
	within := human.Duration(e.At.Sub(e.first.At))
	return fmt.Sprintf("%s (%d times in %s)", why, e.count, within)
}
