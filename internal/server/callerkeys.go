package server

import (
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// callerKeyPrefix identifies a key for callers, for people and for secret scanners.
const callerKeyPrefix = "dstkey_"

const (
	maxScopeName   = 200 // bytes of the name of a service or a model
	maxKeyLifetime = 10 * 365 * 24 * time.Hour
)

// keyNamePattern matches valid names of keys, which are labels of metrics.
var keyNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// listKeys lists the keys for callers of a project.
func (s *Server) listKeys(c *apiCall, in api.ListKeys) ([]api.CallerKey, error) {
	keys, err := s.store.CallerKeys(c.ctx, c.project.ID, in.IncludeRevoked)
	list := make([]api.CallerKey, 0, len(keys))
	for _, key := range keys {
		list = append(list, buildCallerKey(key, now()))
	}
	return list, err
}

func buildCallerKey(key dstack.CallerKey, now time.Time) api.CallerKey {
	view := api.CallerKey{ID: string(key.ID), Name: key.Name, Services: orEmptyNames(key.Services), Models: orEmptyNames(key.Models),
		ExpiresAt: optionalTime(key.ExpiresAt), RevokedAt: optionalTime(key.RevokedAt), RevokedBy: key.RevokedBy,
		CreatedAt: key.CreatedAt.UTC(), CreatedBy: key.Author, UsedAt: optionalTime(key.UsedAt),
		Requests: key.Counts.Requests, Refused: key.Counts.Refused, Status: api.KeyActive}
	if key.RPS > 0 {
		view.RPS = &key.RPS
	}
	switch {
	case !key.RevokedAt.IsZero():
		view.Status = api.KeyRevoked
	case !key.IsLive(now):
		view.Status = api.KeyExpired
	}
	return view
}

func orEmptyNames(names []string) []string { return append([]string{}, names...) }

// optionalTime returns a pointer to a time in UTC; nil: the time is zero.
func optionalTime(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// createKey creates a key for callers. Its answer is the only place that shows the key.
func (s *Server) createKey(c *apiCall, in api.CreateKey) (api.CreatedKey, error) {
	created := now()
	if err := checkKey(in, created); err != nil {
		return api.CreatedKey{}, err
	}
	secret := newTokenWith(callerKeyPrefix)
	key := dstack.CallerKey{ID: dstack.CallerKeyID(uuid.NewString()), Project: c.project.ID, Name: in.Name, Hash: HashToken(secret),
		Services: uniqueNames(in.Services), Models: uniqueNames(in.Models), RPS: in.RPS, Author: c.user.Name, CreatedAt: created}
	if in.ExpiresAt != nil {
		key.ExpiresAt = in.ExpiresAt.UTC().Truncate(time.Second) // gateways compare seconds
	}
	if err := s.store.CreateCallerKey(c.ctx, key); err != nil {
		return api.CreatedKey{}, err
	}
	s.audit(c, "key created", slog.String("project", c.project.Name), slog.String("key", in.Name))
	s.notifyChange()
	missing, err := s.findMissingScope(c, key)
	if err != nil { // the key exists, and nobody could read it again
		s.log.Warn("cannot look for the services of a new key", "key", key.Name, "err", err)
	}
	return api.CreatedKey{CallerKey: buildCallerKey(key, created), Key: secret, Missing: missing}, nil
}

// findMissingScope returns the services and models of a key that no unfinished run
// of the project has.
func (s *Server) findMissingScope(c *apiCall, key dstack.CallerKey) ([]string, error) {
	missing := []string{}
	if len(key.Services)+len(key.Models) == 0 {
		return missing, nil
	}
	table, err := s.store.Routes(c.ctx)
	if err != nil {
		return missing, err
	}
	runs, models := map[string]bool{}, map[string]bool{}
	for _, r := range table.Routes {
		if r.Project == strings.ToLower(c.project.Name) {
			runs[r.Name], models[r.Model] = true, true
		}
	}
	for _, name := range key.Services {
		if !runs[name] {
			missing = append(missing, "service "+name)
		}
	}
	for _, name := range key.Models {
		if !models[name] {
			missing = append(missing, "model "+name)
		}
	}
	return missing, nil
}

// checkKey checks a new key, and names everything that is wrong with it.
func checkKey(in api.CreateKey, now time.Time) error {
	var problems []string
	if !keyNamePattern.MatchString(in.Name) {
		problems = append(problems, "name: use letters, digits, dots, dashes and underscores, at most 63, a letter or a digit first")
	}
	for _, list := range []struct {
		field string
		names []string
	}{{"services", in.Services}, {"models", in.Models}} {
		for _, name := range list.names {
			if name == "" || len(name) > maxScopeName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				problems = append(problems, fmt.Sprintf("%s: %s is not a name", list.field, quote(name)))
			}
		}
	}
	if len(in.Services)+len(in.Models) > api.MaxKeyScope {
		problems = append(problems, fmt.Sprintf("services and models: %d names are more than %d", len(in.Services)+len(in.Models), api.MaxKeyScope))
	}
	if math.IsNaN(in.RPS) || in.RPS < 0 || in.RPS > api.MaxKeyRPS || in.RPS > 0 && in.RPS < 0.001 {
		problems = append(problems, fmt.Sprintf("rps: write a number from 0.001 to %d", api.MaxKeyRPS))
	}
	if at := in.ExpiresAt; at != nil && (!at.After(now) || at.After(now.Add(maxKeyLifetime))) {
		problems = append(problems, "expires_at: "+at.UTC().Format(time.RFC3339)+" is not within the next ten years")
	}
	if len(problems) == 0 {
		return nil
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: "cannot create the key: " + strings.Join(problems, "; "),
		Hint: "see: dstack key create --help"}
}

// uniqueNames returns names sorted, each once.
func uniqueNames(names []string) []string {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// revokeKeys revokes keys for callers: all of them or none.
func (s *Server) revokeKeys(c *apiCall, in api.RevokeKeys) (wire.Null, error) {
	err := s.store.RevokeCallerKeys(c.ctx, c.project.ID, in.Names, c.user.Name, now())
	if err == nil {
		s.audit(c, "keys revoked", slog.String("project", c.project.Name), slog.String("keys", strings.Join(in.Names, ",")))
		s.notifyChange()
	}
	return wire.Null{}, err
}

// isCallerKey reports whether a token that no user has is a key for callers.
func (s *Server) isCallerKey(c *apiCall, token, hash string) bool {
	if !strings.HasPrefix(token, callerKeyPrefix) {
		return false
	}
	_, err := s.store.CallerKeyByHash(c.ctx, hash)
	return err == nil
}
