package loop

import (
	"sync"
	"time"
)

// The pauses between two log lines about the same failure.
const (
	minRepeatPause = time.Minute
	maxRepeatPause = time.Hour
)

// maxRepeatKeys limits the memory of a RepeatFilter.
const maxRepeatKeys = 10_000

// RepeatFilter decides which of many equal failures are logged: the first at once,
// and then one after a minute, two minutes, and so on up to one an hour. The zero
// value is ready to use, also by several goroutines at once.
type RepeatFilter struct {
	mu   sync.Mutex
	seen map[string]*repeatedFailure
}

type repeatedFailure struct {
	text    string
	pause   time.Duration // until the next line
	next    time.Time
	skipped int
}

// Admit reports whether to log a failure now. key names what failed; skipped is
// how many equal failures were not logged since the last line.
func (f *RepeatFilter) Admit(key, text string, now time.Time) (skipped int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.seen[key]
	if last == nil || last.text != text {
		if f.seen == nil || len(f.seen) >= maxRepeatKeys {
			f.seen = map[string]*repeatedFailure{}
		}
		f.seen[key] = &repeatedFailure{text: text, pause: minRepeatPause, next: now.Add(minRepeatPause)}
		return 0, true
	}
	if now.Before(last.next) {
		last.skipped++
		return 0, false
	}
	skipped, last.skipped = last.skipped, 0
	last.pause = min(2*last.pause, maxRepeatPause)
	last.next = now.Add(last.pause)
	return skipped, true
}

// Forget ends the series of a key, because it succeeded. It reports whether there
// was one.
func (f *RepeatFilter) Forget(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.seen[key]
	delete(f.seen, key)
	return ok
}
