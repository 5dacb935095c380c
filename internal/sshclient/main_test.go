package sshclient

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain checks that nothing runs any more when all clients are closed. The tests mostly wait, so more of them run at once
// than there are CPUs.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
