//go:build !race

package spec_test

import "time"

// bound is how long a refusal may take. It takes milliseconds; the rest is for
// machines that are busy.
const bound = time.Second
