// Package gatewaylink connects a gateway process with the servers of its installation. The process joins a gateway
// once, follows the state of the gateway, and reports what it counts. It keeps the last state on disk, signed by the
// installation and sealed, so that the gateway serves while no server answers, also after a restart.
package gatewaylink

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Options configure a Link. Dir, Identity and Dialer are required.
type Options struct {
	Dir      string // the folder of the process
	Identity Identity
	Version  string       // of the program
	Dialer   *dial.Dialer // gets an entry for each host of the targets
	// PodAuthorities are those of the cluster whose pod the process runs in; nil: it runs in none. See netplace.PodAuthorities.
	PodAuthorities []string
	// Describe sets the certificates, the problems and the ports in a report; nil: there is nothing to say.
	Describe func(*api.GatewayReport)
	Log      *slog.Logger
}

// Link is the connection of one process with its servers. It is a gateway.ControlPlane.
type Link struct {
	options Options
	servers *servers
	hosts   *hostDialers
	totals  *loadTotals
	machine string
	log     *slog.Logger

	changed loop.Broadcast // of what mu protects
	toSave  loop.Wake

	mu         sync.Mutex
	state      *state      // nil: none yet
	table      route.Table // of state, as the gateway uses it
	tables     uint64      // how many tables there were, from a number that no earlier process used
	seenAt     time.Time   // when a server answered last
	hasEnded   bool        // tokens and keys for callers are not accepted any more
	isRemoved  bool        // a server said that the process may not serve
	lastReport time.Time   // that a server accepted

	saving sync.Mutex
	saved  savedFiles // what the folder has; protected by saving
	isHeld bool       // the files are those of another process; protected by saving

	apart atomic.Int64 // see SetApart
}

// savedFiles is what the files of the folder contain.
type savedFiles struct {
	at     time.Time // when the state was written last
	state  *state
	seenAt time.Time
	counts savedCounts
}

// How the process follows its servers.
const (
	stateWait       = 20 * time.Second // of one call
	minFollowRetry  = 100 * time.Millisecond
	maxFollowRetry  = 3 * time.Second
	minSaveInterval = time.Second
	reportTimeout   = 5 * time.Second
)

// New returns a link with the state that the folder has. It makes no connection. A state that cannot be read is logged
// and left alone: the servers have another one.
func New(o Options) (*Link, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	all, err := newServers(o.Identity.Servers, o.Identity.Credential, o.Identity.Fingerprint)
	if err != nil {
		return nil, err
	}
	l := &Link{options: o, servers: all, log: o.Log, machine: MachineID(), toSave: loop.NewWake(), tables: uint64(time.Now().UnixMicro())}
	l.hosts = newHostDialers(o, l.connectThroughServer)
	counts, err := readLoads(o.Dir, o.Identity.Key)
	if err != nil {
		o.Log.Warn("the counts of the last process are lost", "err", err)
	}
	l.totals = newLoadTotals(counts)
	saved, seenAt, err := readState(o.Dir, o.Identity.Key, o.Identity.ID)
	switch {
	case err != nil:
		o.Log.Error("the saved state of the gateway cannot be used; waiting for a server", "err", err)
	case saved != nil:
		l.setState(saved, seenAt)
	}
	return l, nil
}

// Tasks are to run while the gateway serves, and until it has drained.
func (l *Link) Tasks() []loop.Task {
	return []loop.Task{
		{Name: "gateway state", Run: l.followState},
		{Name: "offline bound", Run: l.watchOfflineBound},
		loop.Repeat("gateway state file", l.toSave, l.save),
		loop.Repeat("connections to hosts", loop.NewWake(), l.hosts.closeUnused),
	}
}

// Close tells the server that the process ends, saves what is not saved, and closes the connections to hosts.
func (l *Link) Close(ctx context.Context) error {
	l.saving.Lock()
	l.saved.seenAt = time.Time{} // write the time at which a server answered last
	err := l.saveNow()
	l.saving.Unlock()
	l.mu.Lock()
	isConnected := time.Since(l.lastReport) < 2*reportTimeout
	l.mu.Unlock()
	if isConnected {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, _ = l.sendReport(ctx, api.GatewayReport{Leaving: true}) // otherwise the server notices the silence
	}
	return errors.Join(err, l.hosts.close())
}

// WaitForState returns once there is a state: that of the folder, or the first one of a server.
func (l *Link) WaitForState(ctx context.Context) error {
	for {
		changed := l.changed.Changed()
		l.mu.Lock()
		isThere := l.state != nil
		l.mu.Unlock()
		if isThere {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Settings returns how the process serves its gateway, and a channel that is closed when that may have changed. Call
// WaitForState before.
func (l *Link) Settings() (api.GatewaySettings, <-chan struct{}) {
	changed := l.changed.Changed()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == nil {
		return api.GatewaySettings{}, changed
	}
	return l.state.settings, changed
}

// Table returns the route table once its version is another one than since.
func (l *Link) Table(ctx context.Context, since uint64) (route.Table, error) {
	for {
		changed := l.changed.Changed()
		l.mu.Lock()
		table, isThere := l.table, l.state != nil
		l.mu.Unlock()
		if isThere && table.Version != since {
			return table, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return route.Table{}, ctx.Err()
		}
	}
}

// setState makes the gateway use a state.
func (l *Link) setState(s *state, seenAt time.Time) {
	isOwnMachine := l.machine != "" && s.header.ServerMachine == l.machine
	l.mu.Lock()
	l.state, l.seenAt = s, seenAt
	l.hasEnded = l.isOfflineTooLong(time.Now())
	l.buildTable(isOwnMachine)
	hosts := s.hosts
	table, ownHost := l.table, s.header.Host
	l.mu.Unlock()
	l.hosts.update(hosts, table.Routes, ownHost)
	l.changed.Notify()
}

// buildTable makes the table of the state. l.mu is held.
func (l *Link) buildTable(isOwnMachine bool) {
	l.tables++
	l.table = l.state.table
	l.table.Version = l.tables
	if l.hasEnded {
		l.table.Tokens, l.table.Keys, l.table.TokensEnded = nil, nil, true
	}
	if !isOwnMachine {
		l.table.Routes = renameServerHost(l.table.Routes)
	}
}

// serverHost names the machine of the server in the targets of other machines.
const serverHost = "server"

// renameServerHost returns the routes with the targets that the server reaches directly marked, so that this process,
// which is elsewhere, reaches them through the server.
func renameServerHost(routes []route.Route) []route.Route {
	renamed := make([]route.Route, len(routes))
	copy(renamed, routes)
	for i, r := range renamed {
		var ready []route.Target
		for j, target := range r.Ready {
			if target.Host != "" || target.Address == "" {
				continue
			}
			if ready == nil {
				ready = append([]route.Target(nil), r.Ready...)
			}
			ready[j].Host = serverHost
		}
		if ready != nil {
			renamed[i].Ready = ready
		}
	}
	return renamed
}

// followState keeps the state up to date. It ends only when a server says that the process was removed.
func (l *Link) followState(ctx context.Context) error {
	var failures loop.RepeatFilter
	wait, cursor := minFollowRetry, l.cursor()
	for {
		used := l.servers.currentServer()
		answer, err := used.client.GatewayState(ctx, api.GatewayStateRequest{Cursor: cursor, WaitSeconds: int(stateWait / time.Second),
			Version: l.options.Version, Machine: l.machine})
		if err == nil {
			err = l.applyAnswer(answer)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if wait > minFollowRetry {
				l.log.Info("a server answers again", "server", used.url)
			}
			failures.Forget("state")
			wait, cursor = minFollowRetry, l.cursor()
			continue
		case errors.Is(err, errStale) && cursor != "":
			cursor = "" // ask for everything
			continue
		case dstack.KindOf(err) == dstack.Forbidden:
			l.markRemoved()
			return err
		}
		if skipped, ok := failures.Admit("state", err.Error(), time.Now()); ok {
			l.log.Warn("cannot follow the server; the gateway serves what it knows", "server", used.url, "err", err, "not_logged", skipped)
		}
		l.servers.leaveServer(used)
		if err := loop.Sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxFollowRetry)
	}
}

func (l *Link) cursor() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == nil {
		return ""
	}
	return l.state.cursor
}

// applyAnswer takes over what a server answered.
func (l *Link) applyAnswer(answer api.GatewayState) error {
	now := time.Now()
	l.mu.Lock()
	before, hadEnded := l.state, l.hasEnded
	isSame := before != nil && answer.Cursor == before.cursor && !answer.Complete && len(answer.Parts)+len(answer.Removed) == 0
	if isSame {
		l.seenAt = now
	}
	l.mu.Unlock()
	if isSame && !hadEnded {
		return nil
	}
	after := before
	if !isSame {
		var err error
		if after, err = before.apply(answer, l.options.Identity.ID); err != nil {
			return err
		}
	}
	l.setState(after, now)
	l.toSave.Signal()
	return nil
}

// IsRemoved reports whether a server said that the process may not serve any more.
func (l *Link) IsRemoved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isRemoved
}

// markRemoved makes the gateway serve nothing, also after a restart.
func (l *Link) markRemoved() {
	l.mu.Lock()
	l.isRemoved = true
	l.tables++
	l.table = route.Table{Version: l.tables, Projects: []string{}}
	l.mu.Unlock()
	l.changed.Notify()
	l.toSave.Signal()
}
