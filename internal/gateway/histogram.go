package gateway

import (
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// bounds are the upper bounds of the buckets of histograms.
type bounds []time.Duration

var (
	// requestBounds are for requests of all kinds: from a file in memory to a long answer.
	requestBounds = bounds{time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
		2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute, 15 * time.Minute}
	// modelBounds are for calls of models: from a cached prompt to a long answer.
	modelBounds = bounds{5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
		250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
		30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute}
)

// maxBounds is the length of the longest bounds.
const maxBounds = 16

// histogram counts durations by buckets. Several goroutines may observe at once.
type histogram struct {
	counts [maxBounds + 1]atomic.Uint64 // of each bucket alone; the last is for what is over all bounds
	micros atomic.Uint64                // the sum
}

// observe counts a duration.
func (h *histogram) observe(b bounds, d time.Duration) {
	at := 0
	for at < len(b) && d > b[at] {
		at++
	}
	h.counts[at].Add(1)
	h.micros.Add(uint64(max(0, d+time.Microsecond/2) / time.Microsecond))
}

// appendTo appends the lines of a histogram in the text format of Prometheus. Labels are without braces.
func (h *histogram) appendTo(to []byte, name string, labels []byte, b bounds, texts []string) []byte {
	var sum uint64
	for i := range len(b) + 1 {
		sum += h.counts[i].Load()
		text := "+Inf"
		if i < len(b) {
			text = texts[i]
		}
		to = append(append(append(to, name...), "_bucket{"...), labels...)
		to = append(append(append(to, `,le="`...), text...), `"} `...)
		to = append(strconv.AppendUint(to, sum, 10), '\n')
	}
	to = append(append(append(append(to, name...), "_sum{"...), labels...), "} "...)
	to = append(strconv.AppendFloat(to, float64(h.micros.Load())/1e6, 'g', -1, 64), '\n')
	to = append(append(append(append(to, name...), "_count{"...), labels...), "} "...)
	return append(strconv.AppendUint(to, sum, 10), '\n')
}

// texts returns the bounds in seconds, as labels.
func (b bounds) texts() []string {
	return slices.Collect(func(yield func(string) bool) {
		for _, d := range b {
			if !yield(strconv.FormatFloat(d.Seconds(), 'g', -1, 64)) {
				return
			}
		}
	})
}

var requestTexts, modelTexts = requestBounds.texts(), modelBounds.texts()

// isEmpty reports that nothing was observed.
func (h *histogram) isEmpty() bool {
	for i := range h.counts {
		if h.counts[i].Load() > 0 {
			return false
		}
	}
	return true
}
