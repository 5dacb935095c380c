package sshclient

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain checks that nothing runs any more when all clients are closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
