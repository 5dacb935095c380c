package gatewaylink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dstack/internal/api"
)

// savedState is the content of the state's file.
type savedState struct {
	SeenAt time.Time        `json:"seen_at"` // when a server answered last
	State  api.GatewayState `json:"state"`
}

// saveState writes the state into the folder, sealed.
func saveState(dir string, key []byte, s *state, seenAt time.Time) error {
	text, err := json.Marshal(savedState{SeenAt: seenAt, State: s.complete()})
	if err != nil {
		return err
	}
	return saveSealed(dir, key, stateName, text)
}

// readState reads the state in the folder; nil if there is none.
func readState(dir string, key []byte, process string) (*state, time.Time, error) {
	text, err := readSealed(dir, key, stateName)
	if err != nil || text == nil {
		return nil, time.Time{}, err
	}
	var saved savedState
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil, time.Time{}, fmt.Errorf("read the saved state: %w", err)
	}
	s, err := (*state)(nil).apply(saved.State, process)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the saved state: %w", err)
	}
	return s, saved.SeenAt, nil
}

// saveLoads writes what was counted into the folder.
func saveLoads(dir string, key []byte, counts savedCounts) error {
	text, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	return saveSealed(dir, key, loadsName, text)
}

// readLoads reads what was counted from the folder; nothing if there is none.
func readLoads(dir string, key []byte) (counts savedCounts, err error) {
	text, err := readSealed(dir, key, loadsName)
	if err != nil || text == nil {
		return counts, err
	}
	return counts, json.Unmarshal(text, &counts)
}

func saveSealed(dir string, key []byte, name string, text []byte) error {
	sealed, err := sealFile(key, text, name)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, name), sealed)
}

// readSealed returns the content of a sealed file; nil if there is none.
func readSealed(dir string, key []byte, name string) ([]byte, error) {
	sealed, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := openFile(key, sealed, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return text, nil
}
