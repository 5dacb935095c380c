//go:build race

package spec_test

import "time"

// bound is how long a refusal may take under the race detector, which slows
// parsers down ten times and more.
const bound = 5 * time.Second
