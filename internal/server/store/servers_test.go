package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
)

// silence makes a server silent for a while.
func (h *fixture) silence(id dstack.ServerID, by time.Duration) {
	h.t.Helper()
	h.exec("UPDATE servers SET seen_at = seen_at - ? WHERE id = ?", by.Microseconds(), string(id))
}

// exec changes the database behind the store's back.
func (h *fixture) exec(query string, args ...any) {
	h.t.Helper()
	h.noError(h.s.ExecForTest(h.ctx(), query, args...))
}

// A silent server loses its leases and instances to others; one that goes on sending heartbeats does not.
func TestEndSilentServers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		join := func(id dstack.ServerID, process string) {
			h.noError(h.s.JoinServers(h.ctx(), dstack.Server{ID: id, Process: process, URL: "https://" + string(id), StartedAt: t0,
				Machine: dstack.ServerMachine{Engines: []string{"E-" + string(id)}, BootID: "boot"}}))
		}
		join("a", "1")
		join("b", "1")
		run := h.submit("web", t0)
		if leases, err := h.s.Claim(h.ctx(), store.Runs, "a/1", "a", t0, time.Minute, 1); err != nil || len(leases) != 1 {
			t.Fatalf("%v %v", leases, err)
		}
		if ended, err := h.s.EndSilentServers(h.ctx()); err != nil || len(ended) > 0 {
			t.Fatalf("servers that have just joined: %v %v", ended, err)
		}
		h.silence("a", dstack.ServerSilence-time.Second)
		h.silence("b", time.Minute)
		if beat, err := h.s.BeatServer(h.ctx(), "b", "1"); err != nil || beat.WasEnded || beat.IsReplaced || time.Since(beat.At).Abs() > time.Minute {
			t.Errorf("%+v %v", beat, err)
		}
		if ended, err := h.s.EndSilentServers(h.ctx()); err != nil || len(ended) > 0 {
			t.Fatalf("a server that is silent for 9 s: %v %v", ended, err)
		}
		h.silence("a", 2*time.Second)
		if ended, err := h.s.EndSilentServers(h.ctx()); err != nil || !slices.Equal(ended, []dstack.ServerID{"a"}) {
			t.Fatalf("%v %v", ended, err)
		}
		if leases, err := h.s.Claim(h.ctx(), store.Runs, "b/1", "b", t0, time.Minute, 1); err != nil || len(leases) != 1 || leases[0].ID != string(run.ID) {
			t.Errorf("the lease of the silent server: %v %v", leases, err)
		}
		if beat, err := h.s.BeatServer(h.ctx(), "a", "1"); err != nil || !beat.WasEnded {
			t.Errorf("a server that is back: %+v %v", beat, err)
		}
		if beat, err := h.s.BeatServer(h.ctx(), "a", "1"); err != nil || beat.WasEnded {
			t.Errorf("its next heartbeat: %+v %v", beat, err)
		}
		join("a", "2")
		if beat, err := h.s.BeatServer(h.ctx(), "a", "1"); err != nil || !beat.IsReplaced {
			t.Errorf("a process that was replaced: %+v %v", beat, err)
		}
		h.noError(h.s.LeaveServers(h.ctx(), "a", "1")) // changes nothing
		h.noError(h.s.LeaveServers(h.ctx(), "b", "1"))
		all, err := h.s.ListServers(h.ctx())
		h.noError(err)
		got := ""
		for _, s := range all {
			got += fmt.Sprint(s.ID, " ", s.Process, " ", s.URL, " ", s.IsEnded, " ", s.Machine.Engines, "; ")
		}
		if want := "a 2 https://a false [E-a]; b 1 https://b true [E-b]; "; got != want {
			t.Errorf("the servers are %s, want %s", got, want)
		}
	})
}

// Of several servers one works on an instance, until it stops, falls silent, or gives the instance up.
func TestClaim_OneServerHoldsAnInstance(t *testing.T) {
	h := newFixture(t, storetest.NewPostgres(t))
	for _, id := range []dstack.ServerID{"a", "b"} {
		h.noError(h.s.JoinServers(h.ctx(), dstack.Server{ID: id, Process: "1"}))
	}
	_, r := h.replica("web", t0)
	h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
	h.exec("UPDATE instances SET host = ''") // every server can reach it
	claims := func(server string) bool {
		t.Helper()
		leases, err := h.s.Claim(h.ctx(), store.Instances, server+"/1", server, t0, time.Minute, 1)
		h.noError(err)
		h.noError(h.s.ReleaseAll(h.ctx(), leases, t0))
		return len(leases) == 1
	}
	claims("a")
	if !claims("a") || claims("b") {
		t.Fatal("a holds it, and b does not claim it")
	}
	if next, err := h.s.NextDue(h.ctx(), store.Instances, "b"); err != nil || !next.IsZero() {
		t.Errorf("it is due for b at %s: %v", next, err)
	}
	h.noError(h.s.GiveUpInstance(h.ctx(), "local-box", "b")) // it is not b's
	if claims("b") {
		t.Error("b claims it")
	}
	h.noError(h.s.GiveUpInstance(h.ctx(), "local-box", "a"))
	if !claims("b") || claims("a") {
		t.Error("b holds it after a has given it up")
	}
	h.noError(h.s.LeaveServers(h.ctx(), "b", "1"))
	if !claims("a") {
		t.Error("a holds it after b has stopped")
	}
	h.exec("DELETE FROM servers WHERE id = 'a'") // its folder is lost
	if ended, err := h.s.EndSilentServers(h.ctx()); err != nil || !slices.Equal(ended, []dstack.ServerID{"a"}) || !claims("b") {
		t.Errorf("a server that nobody knows holds it: %v %v", ended, err)
	}
}

// A server hears of another one's changes at once, and not of its own.
func TestShareTasks_TellOtherServers(t *testing.T) {
	h := newFixture(t, storetest.NewPostgres(t))
	first := h.s
	h.open() // a second server
	defer func() { h.noError(first.Close()) }()
	ctx, stop := context.WithCancel(t.Context())
	heard := map[string]chan struct{}{"a": make(chan struct{}, 1000), "b": make(chan struct{}, 1000)}
	tasks := first.ShareTasks("a", func() { heard["a"] <- struct{}{} })
	tasks = append(tasks, h.s.ShareTasks("b", func() { heard["b"] <- struct{}{} })...)
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, tasks...) }()
	defer func() {
		stop()
		h.noError(<-done)
	}()
	<-heard["a"] // each listens
	<-heard["b"]
	expect := func(server, what string) {
		t.Helper()
		select {
		case <-heard[server]:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s has not heard of %s", server, what)
		}
	}
	h.submit("web", t0) // by b
	expect("a", "a change by b")
	select {
	case <-heard["b"]:
		t.Error("b hears of its own change")
	case <-time.After(100 * time.Millisecond):
	}
	terminateListeners(t, h.url)
	expect("a", "the changes that it may have missed")
	expect("b", "the changes that it may have missed")
	h.submit("more", t0)
	expect("a", "a change after its connection broke")
}

// terminateListeners breaks the connections that listen.
func terminateListeners(t *testing.T, url string) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	err = db.QueryRowContext(t.Context(), `SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&n)
	if err != nil || n != 2 {
		t.Fatalf("%d connections were ended: %v", n, err)
	}
	_ = stdlib.GetDefaultDriver // it registers pgx
}

// A server that is frozen in a transaction holds up the others for seconds only.
func TestSessionLimits_EndAFrozenTransaction(t *testing.T) {
	if before := store.SetMaxIdleInTransaction(500 * time.Millisecond); before != 5*time.Second {
		t.Errorf("the limit is %s", before)
	}
	defer store.SetMaxIdleInTransaction(5 * time.Second)
	h := newFixture(t, storetest.NewPostgres(t))
	frozen := h.s
	h.open()
	defer func() { h.noError(frozen.Close()) }()
	began := time.Now()
	tried := 0
	wokeUp := make(chan error, 1)
	inside := make(chan struct{})
	go func() {
		wokeUp <- frozen.WriteForTest(context.Background(), func() {
			if tried++; tried == 1 {
				close(inside)
				time.Sleep(1500 * time.Millisecond)
			}
		})
	}()
	<-inside
	h.submit("web", t0)
	if took := time.Since(began); took < 400*time.Millisecond || took > 1400*time.Millisecond {
		t.Errorf("the other server waited for %s, want 0.5 s", took)
	}
	if err := <-wokeUp; err != nil || tried != 2 {
		t.Errorf("the frozen server tried %d times: %v", tried, err)
	}
}
