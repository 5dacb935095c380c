package e2e

import (
	"runtime"
	"sync"
	"testing"
)

// turns limits how many parallel tests run at a time, three for each core: they mostly wait. scripts/test.sh lets all parallel tests
// begin, so that one that waits for something that only one test may use, such as the hosts, does not keep others from running.
var turns = turnQueue{free: 3 * runtime.NumCPU()}

// turnQueue gives turns in the order in which they were asked for, but first to tests that others wait for. Those would otherwise each
// wait for nearly all tests, one after the other, and be left over at the end, where they run one at a time.
type turnQueue struct {
	mu            sync.Mutex
	free          int
	first, others []chan struct{} // each is closed when the turn has come
}

func (q *turnQueue) take(isFirst bool) {
	q.mu.Lock()
	if q.free > 0 {
		q.free--
		q.mu.Unlock()
		return
	}
	comes := make(chan struct{})
	if isFirst {
		q.first = append(q.first, comes)
	} else {
		q.others = append(q.others, comes)
	}
	q.mu.Unlock()
	<-comes
}

func (q *turnQueue) give() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, waiting := range []*[]chan struct{}{&q.first, &q.others} {
		if len(*waiting) > 0 {
			close((*waiting)[0])
			*waiting = (*waiting)[1:]
			return
		}
	}
	q.free++
}

// runParallel lets a test run in parallel with others. It returns when it is the test's turn. A test whose parallel subtests call it
// must call t.Parallel itself instead.
func runParallel(t *testing.T) {
	t.Helper()
	t.Parallel()
	takeTurn(t, false)
}

// runParallelWith is runParallel for a test that needs something that only one test may use at a time. It has it until its end.
func runParallelWith(t *testing.T, only *sync.Mutex) {
	t.Helper()
	t.Parallel()
	only.Lock()
	t.Cleanup(only.Unlock)
	takeTurn(t, true)
}

// turnMessage tells scripts/report.go when the time of a test begins.
const turnMessage = "it is the test's turn"

func takeTurn(t *testing.T, isFirst bool) {
	t.Helper()
	turns.take(isFirst)
	t.Cleanup(turns.give)
	t.Log(turnMessage)
}

// examplePort is held by the test that runs an example, as several of them have port 8000.
var examplePort sync.Mutex
