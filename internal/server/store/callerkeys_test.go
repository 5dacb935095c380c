package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

func (h *fixture) newKey(name string) dstack.CallerKey {
	return dstack.CallerKey{ID: dstack.CallerKeyID("key-" + name), Project: h.project.ID, Name: name, Hash: hash(name), Author: "admin", CreatedAt: t0}
}

func (h *fixture) keyNames(withRevoked bool) string {
	h.t.Helper()
	keys, err := h.s.CallerKeys(h.ctx(), h.project.ID, withRevoked)
	h.noError(err)
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	return strings.Join(names, " ")
}

// A key is in the table from its creation to its end, and its name is free after it was revoked.
func TestCallerKeys_FromCreationToRevocation(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.s.SetClock(func() time.Time { return t0 })
		full := h.newKey("full")
		full.Services, full.Models, full.RPS, full.ExpiresAt = []string{"web"}, []string{"smol"}, 2.5, t0.Add(time.Hour)
		h.noError(h.s.CreateCallerKey(h.ctx(), full))
		plain := h.newKey("plain")
		h.noError(h.s.CreateCallerKey(h.ctx(), plain))

		keys, err := h.s.CallerKeys(h.ctx(), h.project.ID, false)
		h.noError(err)
		if diff := cmp.Diff([]dstack.CallerKey{full, plain}, keys); diff != "" {
			t.Error(diff)
		}
		table, err := h.s.Routes(h.ctx())
		h.noError(err)
		want := []route.Key{
			{Digest: full.Hash, ID: "key-full", Project: "main", Name: "full", Services: []string{"web"}, Models: []string{"smol"}, RPS: 2.5, Expires: full.ExpiresAt.Unix()},
			{Digest: plain.Hash, ID: "key-plain", Project: "main", Name: "plain"},
		}
		if diff := cmp.Diff(want, table.Keys); diff != "" {
			t.Error(diff)
		}
		if found, err := h.s.CallerKeyByHash(h.ctx(), full.Hash); err != nil || found.Name != "full" {
			t.Errorf("by hash: %+v, %v", found, err)
		}
		_, err = h.s.CallerKeyByHash(h.ctx(), hash("none"))
		h.wantKind(dstack.NotFound, err)

		again := h.newKey("plain")
		again.ID, again.Hash = "key-2", hash("two")
		h.wantKind(dstack.Conflict, h.s.CreateCallerKey(h.ctx(), again))
		h.wantKind(dstack.NotFound, h.s.RevokeCallerKeys(h.ctx(), h.project.ID, []string{"plain", "none"}, "bob", t0))
		h.wantKind(dstack.NotFound, h.s.RevokeCallerKeys(h.ctx(), "other", []string{"plain"}, "bob", t0))
		if names := h.keyNames(false); names != "full plain" {
			t.Errorf("a failed revocation left %s", names)
		}
		h.noError(h.s.RevokeCallerKeys(h.ctx(), h.project.ID, []string{"plain"}, "bob", t0.Add(time.Minute)))
		h.noError(h.s.CreateCallerKey(h.ctx(), again))
		if live, all := h.keyNames(false), h.keyNames(true); live != "full plain" || all != "full plain plain" {
			t.Errorf("live %s; all %s", live, all)
		}

		// Another server reads the table after the first key has expired.
		h.restart()
		h.s.SetClock(func() time.Time { return t0.Add(time.Hour) })
		table, err = h.s.Routes(h.ctx())
		h.noError(err)
		if len(table.Keys) != 1 || table.Keys[0].ID != "key-2" {
			t.Errorf("got %+v", table.Keys)
		}
		events, err := h.s.Events(h.ctx(), h.project.ID, "", 0, 0)
		h.noError(err)
		var messages []string
		for _, e := range events {
			messages = append(messages, e.User+": "+e.Message)
		}
		wantEvents := []string{"admin: key full was created: services web; models smol", "admin: key plain was created: all services and models",
			"bob: key plain was revoked: all services and models", "admin: key plain was created: all services and models"}
		if diff := cmp.Diff(wantEvents, messages); diff != "" {
			t.Error(diff)
		}
	})
}

// A project has at most a thousand keys that work; ended ones are forgotten after 90 days.
func TestCallerKeys_Bounds(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		raw := h.openRaw()
		var values []string
		for i := range 1000 {
			values = append(values, fmt.Sprintf("('k%d', '%s', 'n%d', 'h%d', '[]', '[]', 0, %d, 0, '', 'admin', 0)",
				i, h.project.ID, i, i, t0.Add(time.Hour).UnixMicro()))
		}
		_, err := raw.ExecContext(h.ctx(), `INSERT INTO caller_keys (id, project_id, name, hash, services, models, rps, expires_at,
			revoked_at, revoked_by, username, created_at) VALUES `+strings.Join(values, ", "))
		h.noError(err)
		h.wantKind(dstack.Conflict, h.s.CreateCallerKey(h.ctx(), h.newKey("one-more")))
		later := h.newKey("later")
		later.CreatedAt = t0.Add(time.Hour)
		h.noError(h.s.CreateCallerKey(h.ctx(), later))
		if n := len(strings.Fields(h.keyNames(true))); n != 1001 {
			t.Errorf("there are %d keys", n)
		}
		last := h.newKey("last")
		last.CreatedAt = t0.Add(91 * 24 * time.Hour)
		h.noError(h.s.CreateCallerKey(h.ctx(), last))
		if names := h.keyNames(true); names != "last later" {
			t.Errorf("after 90 days there are %.100s", names)
		}
	})
}
