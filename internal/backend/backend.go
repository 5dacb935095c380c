// Package backend is where machines come from: the port, and the configured
// set.
package backend

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Backend is where machines come from. Create and Delete may be repeated: a
// backend knows its machines by the instance they were made for. For owned
// machines both do nothing, and Machines lists them always.
type Backend interface {
	// Offers returns every machine that could be had, whether it suits or not.
	Offers(ctx context.Context) ([]dstack.Offer, error)
	Create(ctx context.Context, id dstack.InstanceID, offer dstack.Offer) error
	// Machines returns all that we made or own: this also finds leaks.
	Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error)
	// Delete ends a machine. None there is no error.
	Delete(ctx context.Context, id dstack.InstanceID) error
	// Engine returns what runs replicas on a machine. The backend keeps it
	// and closes it.
	Engine(ctx context.Context, id dstack.InstanceID) (engine.Engine, error)
}

// Set is the configured backends by project. It does not change while the
// server runs.
type Set struct {
	byName    map[string]Backend  // by key
	byProject map[string][]string // project name in lower case → keys, in the file's order
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{byName: map[string]Backend{}, byProject: map[string][]string{}}
}

// Add makes a backend available to a project. key names the backend among
// all; the same key may be given to many projects.
func (s *Set) Add(project, key string, b Backend) {
	project = strings.ToLower(project)
	s.byName[key] = b
	s.byProject[project] = append(s.byProject[project], key)
}

// Of returns the names of a project's backends. Case is no matter, as with
// projects everywhere.
func (s *Set) Of(project string) []string { return s.byProject[strings.ToLower(project)] }

// Get returns a backend by its key.
func (s *Set) Get(key string) (Backend, error) {
	b, ok := s.byName[key]
	if !ok {
		return nil, &dstack.Error{
			Kind:    dstack.Unavailable,
			Message: fmt.Sprintf("the backend %q is not configured any more", key),
			Hint:    "add it to the server's config.yml again, or stop the runs that use it",
		}
	}
	return b, nil
}

// All returns the key of every backend, sorted.
func (s *Set) All() []string {
	keys := make([]string, 0, len(s.byName))
	for k := range s.byName {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// offersTime is how long one backend may take to answer.
const offersTime = 8 * time.Second

// UnansweredBackend is a backend that did not say what it offers.
type UnansweredBackend struct {
	Key string
	Err error
}

// Offers asks all backends of a project at once, each for a bounded time. One
// that does not answer keeps back none of what the others offer.
func (s *Set) Offers(ctx context.Context, project string) (all []dstack.Offer, silent []UnansweredBackend) {
	keys := s.Of(project)
	found, errs := make([][]dstack.Offer, len(keys)), make([]error, len(keys))
	var asking sync.WaitGroup
	for i, key := range keys {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, offersTime)
			defer cancel()
			b, err := s.Get(key)
			if err == nil {
				found[i], err = b.Offers(ctx)
			}
			errs[i] = err
		})
	}
	asking.Wait()
	for i, key := range keys {
		if errs[i] != nil {
			silent = append(silent, UnansweredBackend{key, errs[i]})
			continue
		}
		for _, o := range found[i] {
			o.Key = key
			all = append(all, o)
		}
	}
	return all, silent
}
