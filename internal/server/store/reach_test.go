package store_test

import (
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
)

// A start is allowed while the replica waits for it and this server works on its instance.
func TestCheckStart(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		_, r = h.reread(run.ID)
		check := func(server dstack.ServerID, want dstack.Kind) {
			t.Helper()
			if err := h.s.CheckStart(h.ctx(), r.Attempt, server); dstack.KindOf(err) != want && (err != nil || want != "") {
				t.Errorf("for server %s: %v, want kind %q", server, err, want)
			}
		}
		h.exec("UPDATE instances SET holder = 'a'")
		check("a", "")
		if h.s.IsShared() {
			check("b", dstack.Conflict)
		} else {
			check("b", "") // the only one
		}
		h.exec("UPDATE replicas SET status = 'terminating'")
		check("a", dstack.Conflict)
	})
}

// A replica on the machine of another server is reached through that server, if it runs.
func TestRoutes_ThroughTheServerOfTheMachine(t *testing.T) {
	h := newFixture(t, storetest.NewPostgres(t))
	_, r := h.ready("web", "127.0.0.1:1", t0)
	join := func(id dstack.ServerID) {
		t.Helper()
		h.noError(h.s.JoinServers(h.ctx(), dstack.Server{ID: id, Process: "1"}))
	}
	targets := func() (found []dstack.Endpoint) {
		t.Helper()
		table, err := h.s.Routes(h.ctx())
		h.noError(err)
		for _, target := range table.Routes[0].Ready {
			found = append(found, target.Endpoint)
		}
		return found
	}
	join("here") // the fixture's machine is that of server here
	if got := targets(); len(got) != 1 || got[0] != (dstack.Endpoint{Address: "127.0.0.1:1"}) {
		t.Errorf("of its own machine: %v", got)
	}
	join("there")
	if got := targets(); len(got) != 1 || got[0] != (dstack.Endpoint{Host: "server/here", Address: "127.0.0.1:1"}) {
		t.Errorf("of another server's machine: %v", got)
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "127.0.0.1:2": false} {
		if is, err := h.s.IsMachineEndpoint(h.ctx(), "here", address); err != nil || is != want {
			t.Errorf("%s is an endpoint there: %v %v", address, is, err)
		}
	}
	if is, err := h.s.IsMachineEndpoint(h.ctx(), "there", "127.0.0.1:1"); err != nil || is {
		t.Errorf("it is one of another machine: %v", err)
	}
	if server, err := h.s.OutputServer(h.ctx(), r.Attempt); err != nil || server != "here" {
		t.Errorf("its output is copied by %q: %v", server, err)
	}
	h.noError(h.s.LeaveServers(h.ctx(), "here", "1"))
	if got := targets(); len(got) != 0 {
		t.Errorf("of a server that has ended: %v", got)
	}
}

// A key suits only the database that it sealed.
func TestOpenSealer(t *testing.T) {
	h := newFixture(t, storetest.NewPostgres(t))
	if _, _, err := store.OpenSealer(h.ctx(), t.TempDir()+"/encryption.key", h.url); dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("a server without the key: %v", err)
	}
	if isNew, err := store.CheckKey(h.ctx(), h.url, h.sealer); err != nil || isNew {
		t.Errorf("the right key: %v %v", isNew, err)
	}
	other, isNew, err := store.OpenSealer(h.ctx(), t.TempDir()+"/encryption.key", "sqlite://"+t.TempDir()+"/new.db")
	if err != nil || !isNew {
		t.Fatalf("%v %v", isNew, err)
	}
	if _, err := store.CheckKey(h.ctx(), h.url, other); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("another key: %v", err)
	}
	if isNew, err := store.CheckKey(h.ctx(), storetest.NewPostgres(t), other); err != nil || !isNew {
		t.Errorf("a database without a server: %v %v", isNew, err)
	}
}
