package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"
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
