package gateway

import (
	"sync/atomic"
	"time"
)

// runCounts counts the requests for one run by status and time, for Prometheus, since the gateway knows the run.
// Several goroutines may call its methods at once: they take no lock and look nothing up.
type runCounts struct {
	retried atomic.Uint64
	classes [10]atomic.Pointer[classCounts] // by the first digit of the status; nil: none had such a status
}

// classCounts are the counts of the statuses with one first digit.
type classCounts struct {
	statuses [100]atomic.Uint64
	// Of requests that were given to a replica: from the request to the first byte of its response, and to the end.
	firstByte, end histogram
}

// countAnswer counts a request that the gateway answered itself, without a replica, by the status that its client got.
func (c *runCounts) countAnswer(status int) {
	if class := c.class(status); class != nil {
		class.statuses[status%100].Add(1)
	}
}

// countResponse counts a request that was given to a replica, by the status that its client got: statusClientClosed if it left
// before. firstByte and end are since the request.
func (c *runCounts) countResponse(status int, firstByte, end time.Duration) {
	class := c.class(status)
	if class == nil {
		return
	}
	class.statuses[status%100].Add(1)
	class.firstByte.observe(requestBounds, firstByte)
	class.end.observe(requestBounds, end)
}

// countRetry counts that a request was sent again: to another replica, or over another connection.
func (c *runCounts) countRetry() { c.retried.Add(1) }

// class returns the counts of a status's class; nil: it is no status.
func (c *runCounts) class(status int) *classCounts {
	if status < 100 || status > 999 {
		return nil
	}
	at := &c.classes[status/100]
	if class := at.Load(); class != nil {
		return class
	}
	at.CompareAndSwap(nil, &classCounts{})
	return at.Load()
}
