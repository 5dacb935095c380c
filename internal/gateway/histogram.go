package gateway

import (
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
	counts [maxBounds + 1]atomic.Uint64 // of each bucket alone; the last has the durations above all bounds
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

// appendTo appends the lines of a histogram in the text format of Prometheus. Labels are without braces; ends are those of the bounds.
func (h *histogram) appendTo(to []byte, name string, labels []byte, ends []string) []byte {
	from := len(to)
	to = append(append(append(to, name...), "_bucket{"...), labels...)
	begin := len(to) - from // the first line's beginning, which the others share
	var sum uint64
	for i, end := range ends {
		if i > 0 {
			to = append(to, to[from:from+begin]...)
		}
		sum += h.counts[i].Load()
		to = append(strconv.AppendUint(append(to, end...), sum, 10), '\n')
	}
	to = append(append(append(append(to, name...), "_sum{"...), labels...), "} "...)
	to = append(strconv.AppendFloat(to, float64(h.micros.Load())/1e6, 'g', -1, 64), '\n')
	to = append(append(append(append(to, name...), "_count{"...), labels...), "} "...)
	return append(strconv.AppendUint(to, sum, 10), '\n')
}

// ends returns what follows the labels in the line of each bucket: the bound in seconds.
func (b bounds) ends() []string {
	ends := make([]string, 0, len(b)+1)
	for _, d := range b {
		ends = append(ends, `,le="`+strconv.FormatFloat(d.Seconds(), 'g', -1, 64)+`"} `)
	}
	return append(ends, `,le="+Inf"} `)
}

var requestEnds, modelEnds = requestBounds.ends(), modelBounds.ends()

// isEmpty reports that nothing was observed.
func (h *histogram) isEmpty() bool {
	for i := range h.counts {
		if h.counts[i].Load() > 0 {
			return false
		}
	}
	return true
}
