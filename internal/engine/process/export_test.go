package process

import (
	"testing"
	"time"
)

// SetHeldPortTimeout changes how long an attempt waits for a port that a connection
// holds, until the end of the test.
func SetHeldPortTimeout(t *testing.T, d time.Duration) {
	before := heldPortTimeout
	heldPortTimeout = d
	t.Cleanup(func() { heldPortTimeout = before })
}
