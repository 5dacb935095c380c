//go:build !race

package spec_test

import "time"

// maxRejectionTime is the maximum time for rejecting a file. It takes
// milliseconds; the rest allows for busy machines.
const maxRejectionTime = time.Second
