package store

import (
	"encoding/json"
	"fmt"

	"dstack/internal/dstack"
)

// sourceSpec is a RunSpec whose configuration still tells what somebody asked
// for and what is a default.
type sourceSpec struct {
	dstack.RunSpec
	Configuration json.RawMessage `json:"configuration"`
}

// sealSpec makes what is kept of a run's spec.
func (s *Store) sealSpec(id dstack.RunID, spec dstack.RunSpec) (string, error) {
	config, err := spec.Configuration.SourceJSON()
	if err != nil {
		return "", fmt.Errorf("write the configuration of run %s: %w", id, err)
	}
	if len(spec.RepoData) == 0 {
		spec.RepoData = nil // an empty RawMessage is not JSON
	}
	text, err := json.Marshal(sourceSpec{RunSpec: spec, Configuration: config})
	if err != nil {
		return "", fmt.Errorf("write the spec of run %s: %w", id, err)
	}
	return s.sealer.seal(string(text), string(id))
}

func (s *Store) openSpec(id, sealed string) (spec dstack.RunSpec, err error) {
	text, err := s.sealer.open(sealed, id)
	if err != nil {
		return spec, fmt.Errorf("open the spec of run %s: %w", id, err)
	}
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return dstack.RunSpec{}, fmt.Errorf("read the spec of run %s: %w", id, err)
	}
	return spec, nil
}
