//go:build !race

package spec_test

import "time"

// bound is how long a refusal may take.
const bound = 300 * time.Millisecond
