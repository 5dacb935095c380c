//go:build race

package spec_test

import "time"

// maxRejectionTime is the maximum time for rejecting a file under the race
// detector, which slows parsers down about ten times.
const maxRejectionTime = 5 * time.Second
