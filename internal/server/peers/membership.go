// Package peers makes a server one of several that share a database: it says that this server is alive, takes over from
// servers that are not, and reaches what lies on the machines of the others.
package peers

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/server/store"
)

const (
	beatInterval = 2 * time.Second
	// permitTime is how long a permit lasts after a heartbeat. It is shorter than dstack.ServerSilence by more than the
	// time between a check of the permit and the end of the call that it is for.
	permitTime = 6 * time.Second
	// maxClockSkew is by how much the clock of a server may differ from that of the database before it is logged.
	maxClockSkew = 5 * time.Second
	leaveTimeout = 5 * time.Second
)

// Register is where the servers that share the database are kept. All methods may be called again.
type Register interface {
	// JoinServers records that a server has started, in place of an earlier process of it.
	JoinServers(ctx context.Context, server dstack.Server) error
	// BeatServer records that a process of a server runs.
	BeatServer(ctx context.Context, id dstack.ServerID, process string) (store.Heartbeat, error)
	// EndSilentServers ends what silent servers hold. A server that is absent is not silent.
	EndSilentServers(ctx context.Context) ([]dstack.ServerID, error)
	// LeaveServers ends what a process holds; nothing if another process of the same server has joined since.
	LeaveServers(ctx context.Context, id dstack.ServerID, process string) error
	// ListServers returns all servers, also those that have ended.
	ListServers(ctx context.Context) ([]dstack.Server, error)
}

// Membership is this server's place among those that share the database. Nil is the membership of a server that is alone.
type Membership struct {
	register Register
	self     dstack.Server
	changed  func()
	log      *slog.Logger
	now      func() time.Time

	mu         sync.Mutex
	session    int       // grows whenever other servers may have taken over this server's work
	beatAt     time.Time // when the last successful heartbeat began
	aliveSince time.Time // of the session
	isReplaced bool
	isSkewed   bool // the clock's difference is logged
	servers    []dstack.Server
}

// Options configures a Membership.
type Options struct {
	Register Register
	Self     dstack.Server
	Changed  func() // called when other servers came or went; nil: nothing
	Log      *slog.Logger
}

// New returns the membership of a server, which begins with Join.
func New(o Options) *Membership {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Membership{register: o.Register, self: o.Self, changed: o.Changed, log: o.Log, now: time.Now}
}

// Join records that this server has started. Its Task must run as long as the server works.
func (m *Membership) Join(ctx context.Context) error {
	began := m.now()
	if err := m.register.JoinServers(ctx, m.self); err != nil {
		return err
	}
	m.mu.Lock()
	m.beatAt, m.aliveSince = began, began
	m.mu.Unlock()
	return m.readServers(ctx)
}

// Task sends the heartbeats of this server, and takes over from servers that send none. It ends with an error if another
// process of this server has replaced this one.
func (m *Membership) Task() loop.Task {
	return loop.Repeat("heartbeat", nil, func(ctx context.Context) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, permitTime)
		defer cancel()
		return beatInterval, m.beat(ctx)
	})
}

// Leave lets other servers go on with the work of this one at once. It is called when the server has stopped working.
func (m *Membership) Leave(ctx context.Context) error {
	if m == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	m.mu.Lock()
	m.session++
	m.mu.Unlock()
	return m.register.LeaveServers(ctx, m.self.ID, m.self.Process)
}

func (m *Membership) beat(ctx context.Context) error {
	began := m.now()
	beat, err := m.register.BeatServer(ctx, m.self.ID, m.self.Process)
	if err != nil {
		return err
	}
	m.noteBeat(beat, began)
	if m.isLongAlive(began) {
		ended, err := m.register.EndSilentServers(ctx)
		if err != nil {
			return err
		}
		for _, id := range ended {
			m.log.Warn("a server sent no heartbeat, so other servers go on with its work", "server", id)
		}
		if len(ended) > 0 {
			m.changed()
		}
	}
	return m.readServers(ctx)
}

// noteBeat takes over the answer to a heartbeat that began at a time.
func (m *Membership) noteBeat(beat store.Heartbeat, began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if beat.IsReplaced {
		if !m.isReplaced {
			m.log.Info("another process of this server has replaced this one, which changes nothing any more")
		}
		m.isReplaced = true
		return
	}
	if gap := elapsed(m.beatAt, began); beat.WasEnded || gap > permitTime {
		m.session++
		m.aliveSince = began
		m.log.Warn("this server was frozen or could not reach its database, and begins again what it was doing",
			"for", human.RoundDuration(gap), "replaced_by_others", beat.WasEnded)
	}
	m.beatAt = began
	m.noteClock(beat.At)
}

// noteClock logs once if this machine's clock differs from that of the database. m.mu is held.
func (m *Membership) noteClock(at time.Time) {
	skew := m.now().Sub(at)
	isSkewed := skew.Abs() > maxClockSkew
	if isSkewed && !m.isSkewed {
		m.log.Warn("the clock of this machine differs from that of the database; synchronize them", "by", human.RoundDuration(skew.Abs()))
	}
	m.isSkewed = isSkewed
}

// isLongAlive reports whether this server has sent heartbeats without a gap for so long that the silence of others says
// something: after an outage of the database, all servers have been silent.
func (m *Membership) isLongAlive(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.isReplaced && elapsed(m.aliveSince, now) > dstack.ServerSilence
}

func (m *Membership) readServers(ctx context.Context) error {
	servers, err := m.register.ListServers(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	isChanged := !slices.EqualFunc(servers, m.servers, func(a, b dstack.Server) bool {
		return a.ID == b.ID && a.Process == b.Process && a.URL == b.URL && a.IsEnded == b.IsEnded
	})
	m.servers = servers
	m.mu.Unlock()
	if isChanged {
		m.changed()
	}
	return nil
}

// Servers returns the servers that share the database, as this one read them last; none if it is alone.
func (m *Membership) Servers() []dstack.Server {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.servers
}

// Permit returns a function that reports whether this server may still act on what it has read since the call of Permit.
// It fails with Conflict once other servers may have taken over: this one was frozen, or could not reach the database. What a
// server does outside of the database is preceded by such a check.
func (m *Membership) Permit() func() error {
	if m == nil {
		return func() error { return nil }
	}
	m.mu.Lock()
	session := m.session
	m.mu.Unlock()
	return func() error { return m.check(session) }
}

func (m *Membership) check(session int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isReplaced || m.session != session || elapsed(m.beatAt, m.now()) > permitTime {
		return &dstack.Error{Kind: dstack.Conflict, Message: "this server was frozen or cannot reach its database, so another one may be doing this"}
	}
	return nil
}

// elapsed returns the time between two readings of the clock: by the monotonic clock, which stands still while a virtual
// machine is suspended, or by the wall clock, whichever is longer.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}
