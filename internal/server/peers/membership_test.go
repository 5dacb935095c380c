package peers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/store"
)

// fakeRegister is a Register in memory.
type fakeRegister struct {
	mu       sync.Mutex // held for what follows
	err      error      // of all calls but JoinServers
	beat     store.Heartbeat
	beats    int
	searches int // calls of EndSilentServers
	left     int
}

func (r *fakeRegister) JoinServers(context.Context, dstack.Server) error { return nil }

func (r *fakeRegister) BeatServer(context.Context, dstack.ServerID, string) (store.Heartbeat, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats++
	beat := r.beat
	beat.At = time.Now()
	return beat, r.err
}

func (r *fakeRegister) EndSilentServers(context.Context) ([]dstack.ServerID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.searches++
	return nil, r.err
}

func (r *fakeRegister) LeaveServers(context.Context, dstack.ServerID, string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left++
	return r.err
}

func (r *fakeRegister) ListServers(context.Context) ([]dstack.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return nil, r.err
}

// change changes what the register answers from now on.
func (r *fakeRegister) change(how func(r *fakeRegister)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	how(r)
}

// countSearches returns how often EndSilentServers was called since the last call.
func (r *fakeRegister) countSearches() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	searches := r.searches
	r.searches = 0
	return searches
}

// countBeats returns the number of heartbeats.
func (r *fakeRegister) countBeats() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beats
}

// withMembership runs a test with a member whose task runs.
func withMembership(t *testing.T, test func(t *testing.T, m *Membership, r *fakeRegister)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRegister{}
		m := New(Options{Register: r, Self: dstack.Server{ID: "a", Process: "1"}})
		if dstack.KindOf(m.Permit()()) != dstack.Conflict {
			t.Error("a server may act before it has joined")
		}
		if err := m.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- loop.Run(ctx, m.Task()) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		test(t, m, r)
	})
}

// A permit lasts while heartbeats succeed.
func TestPermit_LastsWithHeartbeats(t *testing.T) {
	withMembership(t, func(t *testing.T, m *Membership, r *fakeRegister) {
		permit := m.Permit()
		time.Sleep(time.Hour)
		if err := permit(); err != nil {
			t.Error(err)
		}
		if beats := r.countBeats(); beats < 1790 || beats > 1802 {
			t.Errorf("%d heartbeats in an hour", beats)
		}
	})
}

// Without a database, a server stops acting before the others take over, and what it had read stays worthless.
func TestPermit_EndsWithoutHeartbeats(t *testing.T) {
	withMembership(t, func(t *testing.T, m *Membership, r *fakeRegister) {
		before := m.Permit()
		r.change(func(r *fakeRegister) { r.err = errors.New("no route to host") })
		time.Sleep(permitTime - beatInterval)
		if err := before(); err != nil {
			t.Errorf("before the end of the permit: %v", err)
		}
		time.Sleep(beatInterval + time.Second)
		if dstack.KindOf(before()) != dstack.Conflict || dstack.KindOf(m.Permit()()) != dstack.Conflict {
			t.Error("a server without its database may act")
		}
		if permitTime+beatInterval >= dstack.ServerSilence {
			t.Error("other servers may take over before the permit has ended")
		}
		r.change(func(r *fakeRegister) { r.err = nil })
		time.Sleep(2 * beatInterval)
		if dstack.KindOf(before()) != dstack.Conflict {
			t.Error("a permit from before the outage is valid again")
		}
		if err := m.Permit()(); err != nil {
			t.Errorf("a new permit: %v", err)
		}
	})
}

// A server that was frozen may not act on what it had read, whether its heartbeat or its pass runs first.
func TestPermit_EndsInAFreeze(t *testing.T) {
	withMembership(t, func(t *testing.T, m *Membership, r *fakeRegister) {
		before := m.Permit()
		m.mu.Lock()
		m.beatAt = m.beatAt.Add(-time.Minute) // as if the process had not run for a minute
		m.mu.Unlock()
		if dstack.KindOf(before()) != dstack.Conflict {
			t.Error("the permit is valid right after the freeze")
		}
		time.Sleep(2 * beatInterval)
		if dstack.KindOf(before()) != dstack.Conflict {
			t.Error("the permit is valid after the next heartbeat")
		}
		if err := m.Permit()(); err != nil {
			t.Errorf("a new permit: %v", err)
		}
	})
}

// A suspended virtual machine shows in the wall clock alone.
func TestElapsed_TakesTheLongerClock(t *testing.T) {
	begin := time.Now()
	if got := elapsed(begin, begin.Add(time.Second)); got != time.Second {
		t.Errorf("%s", got)
	}
	if got := elapsed(begin, begin.Round(0).Add(time.Minute)); got != time.Minute {
		t.Errorf("%s", got)
	}
}

// A process that another one of the same server replaced never acts again.
func TestPermit_EndsWhenReplaced(t *testing.T) {
	withMembership(t, func(t *testing.T, m *Membership, r *fakeRegister) {
		r.change(func(r *fakeRegister) { r.beat.IsReplaced = true })
		time.Sleep(time.Minute)
		if dstack.KindOf(m.Permit()()) != dstack.Conflict {
			t.Error("it may act")
		}
	})
}

// After an outage of the database every server has been silent: nobody takes over until the others had time to return.
func TestBeat_WaitsBeforeItEndsOthers(t *testing.T) {
	withMembership(t, func(t *testing.T, m *Membership, r *fakeRegister) {
		time.Sleep(dstack.ServerSilence - time.Second)
		if r.countSearches() != 0 {
			t.Error("it looked for silent servers right after its start")
		}
		time.Sleep(2 * beatInterval)
		if r.countSearches() == 0 {
			t.Error("it does not look for silent servers")
		}
		r.change(func(r *fakeRegister) { r.err = errors.New("no route to host") })
		time.Sleep(time.Minute)
		r.change(func(r *fakeRegister) { r.err, r.searches = nil, 0 })
		time.Sleep(dstack.ServerSilence - beatInterval)
		if r.countSearches() != 0 {
			t.Error("it looked for silent servers right after an outage")
		}
	})
}

// A server that is alone may always act.
func TestPermit_OfAServerThatIsAlone(t *testing.T) {
	var m *Membership
	if err := m.Permit()(); err != nil {
		t.Error(err)
	}
	if err := m.Leave(t.Context()); err != nil || len(m.Servers()) > 0 {
		t.Error(err)
	}
}
