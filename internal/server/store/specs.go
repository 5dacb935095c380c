package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// sourceSpec is a RunSpec whose configuration still distinguishes what the user
// wrote from defaults.
type sourceSpec struct {
	dstack.RunSpec
	Configuration json.RawMessage `json:"configuration"`
	Profile       *spec.Profile   `json:"profile"` // nil: none, because a profile without a name cannot be read again
	// The other fields are not sent by clients, so their names are free.
	Template *dstack.ChatTemplate            `json:"x_template,omitempty"`
	Secrets  map[string]dstack.SecretVersion `json:"x_secrets,omitempty"`
	RepoUser dstack.UserID                   `json:"x_repo_user,omitempty"`
}

// keptSpec is a stored sourceSpec as it is read.
type keptSpec struct {
	dstack.RunSpec
	Template *dstack.ChatTemplate            `json:"x_template"`
	Secrets  map[string]dstack.SecretVersion `json:"x_secrets"`
	RepoUser dstack.UserID                   `json:"x_repo_user"`
}

// sealSpec returns a run's spec as it is stored. It fails when the spec could not
// be read again, so that the user sees the error at once.
func (s *Store) sealSpec(id dstack.RunID, run dstack.RunSpec) (string, error) {
	config, err := run.Configuration.SourceJSON()
	if err != nil {
		return "", fmt.Errorf("write the configuration of run %s: %w", id, err)
	}
	if len(run.RepoData) == 0 {
		run.RepoData = nil // an empty RawMessage is not JSON
	}
	kept := sourceSpec{RunSpec: run, Configuration: config, Template: run.Template, Secrets: run.Secrets,
		RepoUser: run.RepoUser}
	if !reflect.ValueOf(run.Profile).IsZero() {
		kept.Profile = &run.Profile
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("write the spec of run %s: %w", id, err)
	}
	if err := json.Unmarshal(text, new(dstack.RunSpec)); err != nil {
		return "", fmt.Errorf("the spec of run %s could not be read again: %w", id, err)
	}
	return s.sealer.seal(string(text), string(id))
}

func (s *Store) openSpec(id, sealed string) (run dstack.RunSpec, err error) {
	text, err := s.sealer.open(sealed, id)
	if err != nil {
		return run, fmt.Errorf("open the spec of run %s: %w", id, err)
	}
	var kept keptSpec
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return dstack.RunSpec{}, fmt.Errorf("read the spec of run %s: %w", id, err)
	}
	kept.RunSpec.Template, kept.RunSpec.Secrets, kept.RunSpec.RepoUser = kept.Template, kept.Secrets, kept.RepoUser
	return kept.RunSpec, nil
}

// maxSpecsCached limits the cache, which is emptied when it is full.
const maxSpecsCached = 4096

// specCache caches the opened specs of unfinished runs for the passes, which read
// each many times a second and never write to one.
type specCache struct {
	mu   sync.Mutex
	runs map[specKey]cachedSpec
}

// specKey is a run's present spec, or that of one of its revisions.
type specKey struct {
	run      string
	revision int // 0: the present one
}

type cachedSpec struct {
	sealed string // what it was opened from
	spec   dstack.RunSpec
}

// openSpecCached is openSpec, except that the same sealed text is opened once. The
// caller must not change what the spec points to.
func (s *Store) openSpecCached(key specKey, sealed string) (dstack.RunSpec, error) {
	s.specs.mu.Lock()
	known, ok := s.specs.runs[key]
	s.specs.mu.Unlock()
	if ok && known.sealed == sealed {
		return known.spec, nil
	}
	run, err := s.openSpec(key.run, sealed)
	if err != nil {
		return run, err
	}
	s.specs.mu.Lock()
	defer s.specs.mu.Unlock()
	if len(s.specs.runs) >= maxSpecsCached {
		clear(s.specs.runs)
	}
	s.specs.runs[key] = cachedSpec{sealed: sealed, spec: run}
	return run, nil
}

// forgetSpecs removes the specs of a finished run from the cache.
func (s *Store) forgetSpecs(id dstack.RunID) {
	s.specs.mu.Lock()
	defer s.specs.mu.Unlock()
	maps.DeleteFunc(s.specs.runs, func(key specKey, _ cachedSpec) bool { return key.run == string(id) })
}
