package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
)

func TestCertificates_KeepValuesSealed(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		c := h.s.Certificates()
		if _, err := c.Load(h.ctx(), "domains/example.com/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a key that does not exist: %v", err)
		}
		h.noError(c.Store(h.ctx(), "domains/example.com/a", []byte("PRIVATE one")))
		h.noError(c.Store(h.ctx(), "domains/example.com/a", []byte("PRIVATE two")))
		h.noError(c.Store(h.ctx(), "domains/example.com/b", []byte("PRIVATE three")))
		value, err := c.Load(h.ctx(), "domains/example.com/a")
		if h.noError(err); string(value) != "PRIVATE two" {
			t.Errorf("got %q", value)
		}
		if bytes.Contains(h.everything(), []byte("PRIVATE")) {
			t.Error("a value is in clear in the database")
		}
		h.noError(c.Delete(h.ctx(), "domains/example.com/a"))
		h.noError(c.Delete(h.ctx(), "domains/example.com/a"))
		if _, err := c.Load(h.ctx(), "domains/example.com/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a deleted key: %v", err)
		}
	})
}

func TestCertificates_LockHasOneOwnerAndEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		c := h.s.Certificates()
		try := func(owner string, lifetime time.Duration, want bool) {
			t.Helper()
			if ok, err := c.TryLock(h.ctx(), "a", owner, lifetime); ok != want || err != nil {
				t.Errorf("%s: %v, %v", owner, ok, err)
			}
		}
		try("one", time.Minute, true)
		try("one", time.Minute, true) // extends it
		try("two", time.Minute, false)
		h.noError(c.Unlock(h.ctx(), "a", "two")) // has no effect
		try("two", time.Minute, false)
		h.noError(c.Unlock(h.ctx(), "a", "one"))
		try("two", -time.Second, true) // ends at once
		try("three", time.Minute, true)
		try("two", time.Minute, false)
	})
}

// A project that gets the domain of another one gets none of its private keys, and one that has it again keeps its own.
func TestCertificates_StayWithTheirProject(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		c, first, second := h.s.Certificates(), h.newGateway("front-door", "example.com"), h.newGateway("edge", "*.Example.com")
		other := dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: "Other", Owner: h.project.Owner}
		h.noError(h.s.CreateProject(h.ctx(), other))
		second.Project = other.ID
		h.putGateway(first, t0)
		for _, key := range []string{"domains/example.com/a", "domains/example.com.net/a", "domains/sub.example.com/a"} {
			h.noError(c.Store(h.ctx(), key, []byte("PRIVATE")))
		}
		has := func(key string, want bool) {
			t.Helper()
			if _, err := c.Load(h.ctx(), key); (err == nil) != want {
				t.Errorf("%s: %v", key, err)
			}
		}
		h.putGateway(first, t0)
		h.noError(h.s.DeleteGateways(h.ctx(), h.project.ID, []string{"front-door"}))
		h.putGateway(first, t0)
		has("domains/example.com/a", true)
		first.Configuration.Domain = "example.org"
		h.putGateway(first, t0)
		h.putGateway(second, t0)
		has("domains/example.com/a", false)
		has("domains/example.com.net/a", true)
		has("domains/sub.example.com/a", true)
	})
}
