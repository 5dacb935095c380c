package server

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

func TestTable_ReturnsOnAChange(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	first, err := h.server.Table(t.Context(), 0)
	if err != nil || first.Version == 0 || len(first.Routes) != 0 || !slices.Equal(first.Tokens[HashToken(h.admin)], []string{"*"}) {
		t.Fatalf("%+v, %v", first, err)
	}
	// All of many callers return, and an unchanged table keeps its version.
	h.broadcast.Notify()
	var following sync.WaitGroup
	tables := make([]route.Table, 20)
	for i := range tables {
		following.Go(func() {
			table, err := h.server.Table(t.Context(), first.Version)
			if err != nil {
				t.Error(err)
			}
			tables[i] = table
		})
	}
	h.submitRun("web")
	following.Wait()
	for _, table := range tables {
		if table.Version <= first.Version || len(table.Routes) != 1 || table.Routes[0].Name != "web" || len(table.Routes[0].Ready) != 0 || table.Routes[0].State == "" {
			t.Fatalf("%+v", table)
		}
	}
	token := h.createUser("ann", dstack.RoleUser)
	h.mustCall("/api/projects/main/set_members", `{"members": [{"username": "ann", "project_role": "user"}]}`, nil)
	table, err := h.server.Table(t.Context(), 0)
	if err != nil || !slices.Equal(table.Tokens[HashToken(token)], []string{"main"}) {
		t.Errorf("%+v, %v", table.Tokens, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.server.Table(ctx, table.Version); err == nil {
		t.Error("it returned without a change")
	}
}

// A change by another server of the same database is seen without a
// notification.
func TestTable_SeesChangesOfOtherServers(t *testing.T) {
	h := newTestServer(t)
	first, err := h.server.Table(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.CreateUser(t.Context(), dstack.User{ID: "11111111-1111-4111-8111-111111111111", Name: "ann", GlobalRole: dstack.RoleAdmin,
		TokenHash: HashToken("t"), CreatedAt: now()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*maxTableAge)
	defer cancel()
	if next, err := h.server.Table(ctx, first.Version); err != nil || len(next.Tokens) != 2 {
		t.Errorf("%+v, %v", next, err)
	}
}
