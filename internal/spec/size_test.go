package spec_test

import (
	"testing"

	"dstack/internal/spec"
)

// A size is printed as people write it.
func TestGB_String(t *testing.T) {
	for want, size := range map[string]spec.GB{
		"0GB": 0, "16GB": 16, "1.5GB": 1.5, "0.5GB": 0.5, "0.25GB": 0.25, "0.1GB": 0.1, "100MB": 100.0 / 1024, "1MB": 1.0 / 1024, "1536GB": 1536,
	} {
		if got := size.String(); got != want {
			t.Errorf("%v: %s, want %s", float64(size), got, want)
		}
	}
}
