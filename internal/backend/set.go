package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// Set is the configured backends by project. It does not change while the
// server runs.
type Set struct {
	byKey     map[string]Backend
	byProject map[string][]string // project name in lower case → keys, in the order of the configuration
	fallback  string              // the project whose backends unconfigured projects have; empty: they have none
	shared    []string            // keys of the backends that every project has
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{byKey: map[string]Backend{}, byProject: map[string][]string{}}
}

// Add makes a backend available to a project. key identifies the backend among
// all; many projects may share a key.
func (s *Set) Add(project, key string, b Backend) {
	project = strings.ToLower(project)
	s.byKey[key] = b
	s.byProject[project] = append(s.byProject[project], key)
}

// Keep makes a backend available for the instances that exist, and to no project:
// it is not asked for offers.
func (s *Set) Keep(key string, b Backend) { s.byKey[key] = b }

// Share makes a backend available to every project. It offers each project only its own
// machines: see dstack.Requirements.Project.
func (s *Set) Share(key string, b Backend) {
	s.byKey[key] = b
	s.shared = append(s.shared, key)
}

// Configure declares that the configuration names a project: without an Add it has no
// backends.
func (s *Set) Configure(project string) {
	project = strings.ToLower(project)
	s.byProject[project] = append([]string{}, s.byProject[project]...)
}

// SetFallback gives projects that the configuration does not name, such as those that
// are created while the server runs, the backends of another project.
func (s *Set) SetFallback(project string) { s.fallback = strings.ToLower(project) }

// Of returns the keys of a project's backends. As everywhere, the case of a
// project's name does not matter.
func (s *Set) Of(project string) []string {
	keys, isConfigured := s.byProject[strings.ToLower(project)]
	if !isConfigured {
		keys = s.byProject[s.fallback]
	}
	return slices.Concat(keys, s.shared)
}

// Get returns a backend by its key. It fails with kind Unavailable if the key is
// no longer configured.
func (s *Set) Get(key string) (Backend, error) {
	b, ok := s.byKey[key]
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
	return slices.Sorted(maps.Keys(s.byKey))
}

// offersTimeout limits how long each backend may take to list its offers.
const offersTimeout = 8 * time.Second

// UnansweredBackend is a backend that did not list its offers, or those of a region.
type UnansweredBackend struct {
	Key string
	Err error
}

// FoundOffers are the offers of all backends of a project.
type FoundOffers struct {
	Offers     []dstack.Offer
	More       MoreOffers // that backends left out
	Unanswered []UnansweredBackend
	Missing    []UnansweredBackend // regions without offers of backends that did answer
	Notes      []string            // see OfferSearch
}

// Offers asks all backends of a project at once, each with a time limit, and
// sets the Key of their offers. Of backends that implement Searcher it takes the
// limit best offers. The backends with the keys in skip are not asked. A backend
// that fails does not hide the others' offers.
func (s *Set) Offers(ctx context.Context, project string, need dstack.Requirements, limit int, skip ...string) (all FoundOffers) {
	keys := slices.DeleteFunc(slices.Clone(s.Of(project)), func(key string) bool { return slices.Contains(skip, key) })
	found, errs := make([]OfferSearch, len(keys)), make([]error, len(keys))
	var calls sync.WaitGroup
	for i, key := range keys {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, offersTimeout)
			defer cancel()
			found[i], errs[i] = s.searchOffers(ctx, key, need, limit)
		})
	}
	calls.Wait()
	for i, key := range keys {
		if errs[i] != nil {
			all.Unanswered = append(all.Unanswered, UnansweredBackend{key, errs[i]})
			continue
		}
		for _, o := range found[i].Offers {
			o.Key = key
			all.Offers = append(all.Offers, o)
		}
		all.More.add(found[i].More)
		for _, err := range found[i].Missing {
			all.Missing = append(all.Missing, UnansweredBackend{key, err})
		}
		all.Notes = append(all.Notes, found[i].Notes...)
	}
	return all
}

func (s *Set) searchOffers(ctx context.Context, key string, need dstack.Requirements, limit int) (OfferSearch, error) {
	b, err := s.Get(key)
	if err != nil {
		return OfferSearch{}, err
	}
	if searcher, ok := b.(Searcher); ok {
		return searcher.SearchOffers(ctx, need, limit)
	}
	offers, err := b.Offers(ctx, need)
	return OfferSearch{Offers: offers}, err
}

// ListUnusable returns the machines of a project that its backends do not offer now, and why.
// A backend that does not say adds none.
func (s *Set) ListUnusable(ctx context.Context, project dstack.Project) []dstack.Rejection {
	ctx, cancel := context.WithTimeout(ctx, offersTimeout)
	defer cancel()
	var all []dstack.Rejection
	for _, key := range s.Of(project.Name) {
		b, ok := s.byKey[key].(Unusables)
		if !ok {
			continue
		}
		found, err := b.ListUnusable(ctx, project.ID)
		if err == nil {
			all = append(all, found...)
		}
	}
	return all
}
