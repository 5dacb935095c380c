package main

import (
	"strings"
	"testing"

	"dstack/internal/dstack"
)

// A process that was replaced while it sent code or pulled an image starts nothing beside its successor, which does the same again.
func TestDaemon_StartsNothingOnceReplaced(t *testing.T) {
	d := &daemon{}
	d.successor.Store(7)
	if err := d.mayStart(t.Context(), "a"); dstack.KindOf(err) != dstack.Conflict || !strings.Contains(err.Error(), "the process 7 has taken over") {
		t.Error(err)
	}
}
