package backend_test

import (
	"testing"

	"dstack/internal/backend"
)

// The file may say Main where the database says main.
func TestSet_ProjectsAreFoundWithoutCase(t *testing.T) {
	set := backend.NewSet()
	set.Add("Main", "local-process", nil)
	if keys := set.Of("main"); len(keys) != 1 || keys[0] != "local-process" {
		t.Errorf("got %v", keys)
	}
}
