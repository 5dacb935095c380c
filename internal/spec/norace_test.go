//go:build !race

package spec_test

import "time"

// parseEnd is how long a refusal may take. It takes milliseconds; the rest is for
// machines that are busy.
const parseEnd = time.Second
