package ssh

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/sshclient"
)

// link is this server's connection to one host. A host that is applied again may get another
// client; its engine stays.
type link struct {
	b        *Backend
	id       dstack.InstanceID
	openedAt time.Time

	mu         sync.Mutex
	host       dstack.Host       // as read last; Check is the latest of all servers
	client     *sshclient.Client // never nil
	jump       *jump             // nil: directly
	way        *dockerWay        // to the Docker Engine; nil: not known
	engine     *docker.Engine    // nil: not opened yet
	engineID   string
	isChecking bool
	isUntried  bool      // the next check is due at once: this server did not check the host since it started, or was applied
	isSuspect  bool      // its engine failed: a ready host is checked at once
	begunAt    time.Time // when the latest check began
	answeredAt time.Time // when its engine answered last
	isPinging  bool
	isStale    bool // the client is replaced before the next check: a new login may have more rights
}

// jump is the connection to a jump host, which all hosts behind it share.
type jump struct {
	login  dstack.SSHLogin
	client *sshclient.Client
}

// updateLinks opens links to new hosts, closes those to hosts that are gone, and replaces the
// clients of hosts whose logins changed.
func (b *Backend) updateLinks(ctx context.Context, hosts []dstack.Host) {
	b.mu.Lock()
	b.isListed = true
	var gone []*link
	for id, l := range b.links {
		if !slices.ContainsFunc(hosts, func(h dstack.Host) bool { return h.ID == id }) {
			delete(b.links, id)
			gone = append(gone, l)
		}
	}
	for _, h := range hosts {
		l := b.links[h.ID]
		if l == nil {
			l = &link{b: b, id: h.ID, openedAt: time.Now(), host: h, isUntried: true}
			l.jump = b.shareJump(h)
			l.client = b.newClient(h, l.jump)
			b.links[h.ID] = l
			b.Dialer.AddHost(string(h.ID), l.dialTCP)
			continue
		}
		if l.update(h) {
			l.replaceClient(b.shareJump(h))
		}
	}
	if len(gone) > 0 {
		for _, l := range b.links {
			l.retryIdentity()
		}
	}
	unused := b.takeUnusedJumps()
	b.mu.Unlock()
	for _, l := range gone {
		b.Dialer.RemoveHost(string(l.id))
		b.work.Go(func() { b.logClosing(l.id, l.close()) })
	}
	for _, j := range unused {
		b.work.Go(func() { b.logClosing("", j.client.Close()) })
	}
	b.pinJumpKeys(ctx, hosts)
}

func (b *Backend) logClosing(id dstack.InstanceID, err error) {
	if err != nil {
		b.Log.Warn("a connection to a host does not close", "host", id, "err", err)
	}
}

// newClient returns a client for a host. It connects on its first use.
func (b *Backend) newClient(h dstack.Host, j *jump) *sshclient.Client {
	o := sshclient.Options{Login: h.Login, Limits: b.limits, Log: b.Log, Pin: func(ctx context.Context, key string) error {
		return b.pin(ctx, h.ID, false, key)
	}}
	if j != nil {
		o.Jump = j.client
	}
	return sshclient.New(o)
}

// shareJump returns the connection to the jump host of a host; nil: it has none. b.mu is held.
func (b *Backend) shareJump(h dstack.Host) *jump {
	if h.Jump == nil {
		return nil
	}
	for _, j := range b.jumps {
		if isSameLogin(j.login, *h.Jump) && (h.Jump.HostKey == "" || h.Jump.HostKey == j.hostKey()) {
			return j
		}
	}
	j := &jump{login: *h.Jump}
	j.client = sshclient.New(sshclient.Options{Login: *h.Jump, Limits: b.limits, Log: b.Log, Pin: func(ctx context.Context, key string) error {
		return b.pin(ctx, h.ID, true, key)
	}})
	b.jumps = append(b.jumps, j)
	return j
}

// hostKey returns the key that the jump host has shown, or that is pinned.
func (j *jump) hostKey() string {
	if key := j.client.State().HostKey; key != "" {
		return key
	}
	return j.login.HostKey
}

// takeUnusedJumps removes the connections to jump hosts that no host uses any more. b.mu is
// held.
func (b *Backend) takeUnusedJumps() []*jump {
	used := map[*jump]bool{}
	for _, l := range b.links {
		l.mu.Lock()
		used[l.jump] = true
		l.mu.Unlock()
	}
	var unused []*jump
	b.jumps = slices.DeleteFunc(b.jumps, func(j *jump) bool {
		if !used[j] {
			unused = append(unused, j)
		}
		return !used[j]
	})
	return unused
}

// pinJumpKeys pins the key of a jump host for hosts of fleets that came later to it.
func (b *Backend) pinJumpKeys(ctx context.Context, hosts []dstack.Host) {
	for _, h := range hosts {
		if h.Jump == nil || h.Jump.HostKey != "" {
			continue
		}
		l := b.findLink(h.ID)
		if l == nil {
			continue
		}
		l.mu.Lock()
		j := l.jump
		l.mu.Unlock()
		if key := j.client.State().HostKey; key != "" {
			if err := b.pin(ctx, h.ID, true, key); err != nil {
				b.Log.Warn("the key of a jump host is not pinned", "host", h.Name, "err", err)
			}
		}
	}
}

// pin pins the key of a host, or of its jump host.
func (b *Backend) pin(ctx context.Context, id dstack.InstanceID, isJump bool, key string) error {
	pinned, err := b.Hosts.PinHostKey(ctx, id, isJump, key)
	if err != nil {
		return err
	}
	if pinned != key {
		return &dstack.Error{
			Kind: dstack.Forbidden, Message: "another server that shares the database saw another host key at this address",
			Hint: "see that the address is the same machine from everywhere; `ssh-keyscan` shows its keys",
		}
	}
	return nil
}

// isSameLogin reports whether two logins are the same, except for the pinned key.
func isSameLogin(a, b dstack.SSHLogin) bool {
	return a.Address == b.Address && a.User == b.User && a.PrivateKey == b.PrivateKey && slices.Equal(a.Fingerprints, b.Fingerprints)
}

// update takes over what was read of the host. It reports whether the client must be
// replaced: its login changed, or the user mended something and wants it tried now.
func (l *link) update(h dstack.Host) (mustReplace bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.host
	l.host = h
	if !before.Check.CheckedAt.IsZero() && before.Check.CheckedAt.After(h.Check.CheckedAt) && before.AppliedAt.Equal(h.AppliedAt) {
		l.host.Check = before.Check // it is not saved yet
	}
	isSame := isSameLogin(before.Login, h.Login) && (before.Jump == nil) == (h.Jump == nil) && (h.Jump == nil || isSameLogin(*before.Jump, *h.Jump))
	wasReset := before.Login.HostKey != "" && before.Login.HostKey != h.Login.HostKey
	wasMended := !before.AppliedAt.Equal(h.AppliedAt) && h.Check.Status != dstack.HostReady
	if !isSame || wasReset || wasMended {
		l.isUntried = true
		return true
	}
	return l.isStale && !l.isChecking
}

// retryIdentity makes the next check due if the host was the same machine as another entry,
// which may be gone.
func (l *link) retryIdentity() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.host.Check; c.Status == dstack.HostFailed && c.Step == dstack.HostStepIdentity {
		l.isUntried = true
	}
}

// replaceClient closes the client and makes another one with the login read last. b.mu is
// held.
func (l *link) replaceClient(j *jump) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.client
	l.client, l.jump = l.b.newClient(l.host, j), j
	if l.isUntried {
		l.client.TryAgain()
	}
	l.way, l.isStale = nil, false
	l.b.work.Go(func() { l.b.logClosing(l.id, old.Close()) })
}

// snapshot returns the host as this server knows it.
func (l *link) snapshot() dstack.Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.host
}

// silentSince returns since when the host has not answered; zero: it answers, or was not
// asked yet.
func (l *link) silentSince() time.Time {
	l.mu.Lock()
	client, openedAt := l.client, l.openedAt
	l.mu.Unlock()
	state := client.State()
	switch {
	case !state.SilentSince.IsZero():
		return state.SilentSince
	case state.Err != nil && !state.LastAnswer.IsZero():
		return state.LastAnswer
	case state.Err != nil:
		return openedAt
	default:
		return time.Time{}
	}
}

// silentReason returns why the host does not answer, for the user; empty: it answers, or
// sends nothing any more.
func (l *link) silentReason() string {
	l.mu.Lock()
	client := l.client
	l.mu.Unlock()
	if err := client.State().Err; err != nil {
		return err.Error()
	}
	return ""
}

// dialTCP connects to an address in the network of the host. It is the dial.HostDialer of
// replicas. It fails soon if the host does not answer, so that a request goes to another one.
func (l *link) dialTCP(ctx context.Context, address string) (net.Conn, error) {
	l.mu.Lock()
	client := l.client
	l.mu.Unlock()
	return client.DialNow(ctx, address)
}

// close closes the engine and the client.
func (l *link) close() error {
	l.mu.Lock()
	client, engine := l.client, l.engine
	l.engine = nil
	l.mu.Unlock()
	var err error
	if engine != nil {
		err = engine.Close()
	}
	return errors.Join(err, client.Close())
}
