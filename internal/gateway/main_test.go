package gateway_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(bothPathsRunner{m}) }

// isSlowPath says that all requests of the tests take the slow path.
var isSlowPath = os.Getenv("DSTACK_TEST_SLOW_PATH") != ""

// bothPathsRunner runs the tests on the fast path, and once more on the slow one: but for those that take long there, or are not
// about a path. With DSTACK_TEST_SLOW_PATH=1 all tests, and those that -run names, run on the slow path alone.
type bothPathsRunner struct{ *testing.M }

// Run implements goleak.TestingM.
func (r bothPathsRunner) Run() int {
	code := r.M.Run()
	for _, name := range []string{"test.run", "test.skip", "test.bench", "test.fuzz", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return code
		}
	}
	if code != 0 || isSlowPath {
		return code
	}
	isSlowPath = true
	if err := flag.Set("test.skip", onlyOnce); err != nil {
		return 1
	}
	return r.M.Run()
}

// onlyOnce are the tests that run once: of single parts, of both paths, of tgi, which is never fast, and those that take long.
const onlyOnce = `^(Fuzz.*|TestFast.*|TestBothPaths.*|TestTGI_.*|TestGRPC_.*|TestWaitQueue.*|TestWindow.*|TestBudget.*|` +
	`TestPick.*|TestOpening.*|TestHeld_.*|TestRateLimit_.*|TestStallTimeout_.*|TestReadBudget_.*|TestModels_.*|TestReport_.*|` +
	`TestMetrics.*|TestKeepAlive_UntilThereIsAReplica|TestForward_ReplicaThatStopsReading|TestForward_HugeBodiesInConstantMemory|` +
	`TestForward_EarlyResponseToAModelCall|TestForward_HerdAtShortListenQueue|TestForward_SmallStreamsBesideABigOne|` +
	`TestReplicaClient_.*|TestForward_DeadlinesEndWithTheRequest|TestCallerKey_Scope|TestAPIPath)$`
