package e2e

import (
	"runtime"
	"sync"
	"testing"
)

// turns limits how many parallel tests run at a time, three for each core: they mostly wait. scripts/test.sh lets all parallel tests
// begin, so that one that waits for something that only one test may use, such as the hosts, does not keep others from running.
var turns = make(chan struct{}, 3*runtime.NumCPU())

// runParallel lets a test run in parallel with others. It returns when it is the test's turn. A test whose parallel subtests call it
// must call t.Parallel itself instead.
func runParallel(t *testing.T) {
	t.Helper()
	t.Parallel()
	takeTurn(t)
}

// runParallelWith is runParallel for a test that needs something that only one test may use at a time. It has it until its end.
func runParallelWith(t *testing.T, only *sync.Mutex) {
	t.Helper()
	t.Parallel()
	only.Lock()
	t.Cleanup(only.Unlock)
	takeTurn(t)
}

// turnMessage tells scripts/report.go when the time of a test begins.
const turnMessage = "it is the test's turn"

func takeTurn(t *testing.T) {
	t.Helper()
	turns <- struct{}{}
	t.Cleanup(func() { <-turns })
	t.Log(turnMessage)
}

// examplePort is held by the test that runs an example, as several of them have port 8000.
var examplePort sync.Mutex
