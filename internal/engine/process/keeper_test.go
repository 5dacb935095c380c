package process_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"dstack/internal/dstack"
)

// keeperOf reads the number of an attempt's keeper.
func keeperOf(t *testing.T, dir string, id dstack.AttemptID) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, string(id), "kept.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Keeper int }
	if err := json.Unmarshal(data, &kept); err != nil {
		t.Fatal(err)
	}
	return kept.Keeper
}
