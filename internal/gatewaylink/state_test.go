package gatewaylink

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
)

// publisher makes answers as a server does.
type publisher struct {
	t     testing.TB
	key   ed25519.PrivateKey
	parts map[string]json.RawMessage
}

func newPublisher(t testing.TB, routes int) *publisher {
	p := &publisher{t: t, key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), parts: map[string]json.RawMessage{}}
	p.put(api.PartSettings, api.GatewaySettings{Gateway: "g", Domain: "example.com", OfflineSeconds: 3600})
	p.put(api.PartTokens, map[string][]string{"00": {"main"}})
	p.put(api.PartGateways, []route.Gateway{{ID: "g", Project: "main", Domain: "example.com"}})
	for i := range routes {
		p.putRoute(i, "10.0.0.1:8000")
	}
	return p
}

func (p *publisher) put(name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		p.t.Fatal(err)
	}
	p.parts[name] = text
}

func (p *publisher) putRoute(i int, address string) string {
	id := fmt.Sprintf("9f6c2d1e-0000-4000-8000-%012d", i)
	name := api.PartRoutePrefix + id
	p.put(name, route.Route{Run: dstack.RunID(id), Project: "main", Name: fmt.Sprintf("web-%d", i), Auth: true, Since: int64(i + 1),
		Ready: []route.Target{{Replica: dstack.ReplicaID(id), Endpoint: dstack.Endpoint{Address: address}}}})
	return name
}

// answer signs the present parts, and has those with the names; all without names.
func (p *publisher) answer(process, cursor string, names ...string) api.GatewayState {
	digests := map[string][sha256.Size]byte{}
	answer := api.GatewayState{Cursor: cursor, Complete: names == nil, Key: p.key.Public().(ed25519.PublicKey)}
	for name, text := range p.parts {
		digests[name] = api.DigestPart(text)
		if names == nil {
			answer.Parts = append(answer.Parts, api.StatePart{Name: name, Text: text})
		}
	}
	for _, name := range names {
		if text, ok := p.parts[name]; ok {
			answer.Parts = append(answer.Parts, api.StatePart{Name: name, Text: text})
		} else {
			answer.Removed = append(answer.Removed, name)
		}
	}
	header, err := json.Marshal(api.StateHeader{Process: process, TableVersion: 7, DrainSequence: 3, Digest: api.DigestParts(digests)})
	if err != nil {
		p.t.Fatal(err)
	}
	answer.Header = string(header)
	answer.Signature = ed25519.Sign(p.key, []byte(api.StateContext+answer.Header))
	return answer
}

func TestState_FollowsChangesAndRefusesOthers(t *testing.T) {
	p := newPublisher(t, 3)
	first, err := (*state)(nil).apply(p.answer("me", "1"), "me")
	if err != nil || len(first.table.Routes) != 3 || first.settings.Domain != "example.com" || first.table.DrainSequence != 3 {
		t.Fatalf("%+v, %v", first, err)
	}
	changed := p.putRoute(1, "10.0.0.2:9000")
	gone := p.putRoute(2, "")
	delete(p.parts, gone)
	p.put("x/later", "of a later version")
	change := p.answer("me", "2", changed, gone, "x/later")
	second, err := first.apply(change, "me")
	if err != nil || len(second.table.Routes) != 2 || second.table.Routes[1].Ready[0].Address != "10.0.0.2:9000" || second.cursor != "2" {
		t.Fatalf("%+v, %v", second, err)
	}
	if len(first.table.Routes) != 3 || first.table.Routes[1].Ready[0].Address != "10.0.0.1:8000" {
		t.Error("the state before has changed")
	}
	third, err := second.apply(p.answer("me", "3", []string{}...), "me")
	if err != nil || len(third.table.Routes) != 2 {
		t.Errorf("without a change: %+v, %v", third, err)
	}
	if _, err := (*state)(nil).apply(change, "me"); !errors.Is(err, errStale) {
		t.Errorf("a change without a state before it: %v", err)
	}
	if _, err := second.apply(p.answer("me", "4", changed), "me"); err != nil {
		t.Errorf("the same again: %v", err)
	}
	p.putRoute(0, "10.0.0.9:1")
	if _, err := second.apply(p.answer("me", "5", changed), "me"); !errors.Is(err, errStale) {
		t.Errorf("a change that lacks a part: %v", err)
	}
	if _, err := (*state)(nil).apply(p.answer("other", "6"), "me"); err == nil {
		t.Error("the state of another process is accepted")
	}
	forged := p.answer("me", "7")
	forged.Parts[0].Text = json.RawMessage(`{}`)
	if _, err := (*state)(nil).apply(forged, "me"); err == nil {
		t.Error("a changed part is accepted")
	}
	forged = p.answer("me", "8")
	forged.Signature[0] ^= 1
	if _, err := (*state)(nil).apply(forged, "me"); err == nil {
		t.Error("a wrong signature is accepted")
	}
}

// TestState_PatchesRoutes changes routes in all ways: the result is that of reading all of them.
func TestState_PatchesRoutes(t *testing.T) {
	p := newPublisher(t, 5)
	last, err := (*state)(nil).apply(p.answer("me", "0"), "me")
	if err != nil {
		t.Fatal(err)
	}
	moved := last.table.Routes[0]
	moved.Since += 1 << 40
	movedName := api.PartRoutePrefix + string(moved.Run)
	for _, c := range []struct {
		name      string
		change    func() []string // the changed parts
		isPatched bool
	}{
		{"one", func() []string { return []string{p.putRoute(3, "10.0.0.2:1")} }, true},
		{"two, and the settings", func() []string {
			p.put(api.PartSettings, api.GatewaySettings{Gateway: "g", Domain: "example.net"})
			return []string{p.putRoute(4, "10.0.0.2:2"), api.PartSettings, p.putRoute(2, "10.0.0.2:3")}
		}, true},
		{"a new one", func() []string { return []string{p.putRoute(7, "10.0.0.2:4")} }, false},
		{"one that is newer now", func() []string { p.put(movedName, moved); return []string{movedName} }, false},
		{"one that is gone", func() []string {
			gone := p.putRoute(7, "")
			delete(p.parts, gone)
			return []string{gone}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := last
			answer := p.answer("me", c.name, c.change()...)
			if last, err = before.apply(answer, "me"); err != nil {
				t.Fatal(err)
			}
			if want := last.listRoutes(); !reflect.DeepEqual(last.table.Routes, want) {
				t.Errorf("the routes are %+v, want %+v", last.table.Routes, want)
			}
			if _, isPatched := last.patchRoutes(before.table.Routes, answer); isPatched != c.isPatched {
				t.Errorf("patched: %t", isPatched)
			}
		})
	}
}

func TestStateFile_KeepsStateAndTime(t *testing.T) {
	dir, identity := t.TempDir(), newIdentity()
	p := newPublisher(t, 2)
	s, err := (*state)(nil).apply(p.answer("me", "1"), "me")
	if err != nil {
		t.Fatal(err)
	}
	seen := time.Now().Add(-time.Minute).Round(0)
	if err := saveState(dir, identity.Key, s, seen); err != nil {
		t.Fatal(err)
	}
	again, at, err := readState(dir, identity.Key, "me")
	if err != nil || !at.Equal(seen) || len(again.table.Routes) != 2 || again.cursor != "1" {
		t.Errorf("%+v, %s, %v", again, at, err)
	}
	if _, _, err := readState(dir, newIdentity().Key, "me"); err == nil {
		t.Error("another process reads the state")
	}
	if _, _, err := readState(dir, identity.Key, "other"); err == nil {
		t.Error("the state counts for another process")
	}
}

// BenchmarkStart reads the state of 1000 services from the disk.
func BenchmarkStart(b *testing.B) {
	dir, identity := b.TempDir(), newIdentity()
	identity.ID, identity.Servers = "me", []string{"http://127.0.0.1:1"}
	s, err := (*state)(nil).apply(newPublisher(b, 1000).answer("me", "1"), "me")
	if err != nil {
		b.Fatal(err)
	}
	if err := saveState(dir, identity.Key, s, time.Now()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		l, err := New(Options{Dir: dir, Identity: identity, Dialer: &dial.Dialer{}})
		if err != nil {
			b.Fatal(err)
		}
		if table, err := l.Table(b.Context(), 0); err != nil || len(table.Routes) != 1000 {
			b.Fatal(len(table.Routes), err)
		}
	}
}

// BenchmarkChange applies a change of one of 1000 routes.
func BenchmarkChange(b *testing.B) {
	p := newPublisher(b, 1000)
	s, err := (*state)(nil).apply(p.answer("me", "1"), "me")
	if err != nil {
		b.Fatal(err)
	}
	change := p.answer("me", "2", p.putRoute(500, "10.0.0.7:1"))
	for b.Loop() {
		if _, err := s.apply(change, "me"); err != nil {
			b.Fatal(err)
		}
	}
}
