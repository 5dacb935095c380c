package sshclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// maxLogins is how many logins may be under way towards one address. sshd begins to drop connections at 10 (MaxStartups).
const maxLogins = 8

// maxLimiterEntries is how many addresses, and how many refused logins, a LoginLimiter has before it forgets old ones.
const maxLimiterEntries = 1000

// pauses are the waits between logins. Tests shorten them.
type pauses struct {
	jitter      time.Duration // at most, before a login beside others at the same address
	unreachable time.Duration // after the address did not answer
	minDropped  time.Duration // after the server dropped a connection: as sshd does with too many at once (MaxStartups) ...
	maxDropped  time.Duration
	lockedOut   time.Duration // ... and when it goes on: as sshd does with an address that it penalizes
	refused     time.Duration // after a refused key or another host key; doubled each time ...
	maxRefused  time.Duration // ... up to this; also the bound of lockedOut
	forgiven    time.Duration // between two pauses at one address that TryAgain ends
}

func defaultPauses() pauses {
	return pauses{
		jitter: 100 * time.Millisecond, unreachable: 2 * time.Second, minDropped: time.Second, maxDropped: 5 * time.Second,
		lockedOut: 30 * time.Second, refused: 30 * time.Second, maxRefused: 10 * time.Minute, forgiven: 5 * time.Second,
	}
}

// LoginLimiter limits the logins of all clients of a process: how many are under way at one address, and how soon a login is
// tried again after it failed. It is safe for concurrent use.
type LoginLimiter struct {
	pauses pauses

	mu        sync.Mutex
	addresses map[string]*addressLogins
	refusals  map[string]*refusal // by login
}

// addressLogins are the logins at one address.
type addressLogins struct {
	slots     chan struct{} // one element for each login under way
	users     int           // logins under way and waiting
	dropped   int           // connections that the server dropped, in a row; those of one pause count as one
	pausedTo  time.Time
	pausedFor error
	// nextForgiven is when the next pause of the address, or of a login there, may end early.
	nextForgiven time.Time
}

// refusal is a login that the server refused, or that the host key prevented.
type refusal struct {
	count      int // in a row
	pausedTo   time.Time
	isForgiven bool // the pause is a short one, after which the login is tried
	err        error
}

// NewLoginLimiter returns a LoginLimiter that knows no addresses yet.
func NewLoginLimiter() *LoginLimiter {
	return &LoginLimiter{pauses: defaultPauses(), addresses: map[string]*addressLogins{}, refusals: map[string]*refusal{}}
}

// login names one login: two clients with the same address, user, keys and host keys have the same.
type login struct {
	address string // with the jump hosts before it
	digest  string // of everything
}

// begin waits until a login may start. Without an error, the caller calls end with its result. During a long pause, begin
// returns the reason of the pause at once.
func (l *LoginLimiter) begin(ctx context.Context, who login) error {
	a := l.enter(who.address)
	for {
		if wait, err := l.checkPause(a, who); err != nil {
			l.leave(a)
			return err
		} else if wait > 0 {
			if err := loop.Sleep(ctx, wait); err != nil {
				l.leave(a)
				return err
			}
			continue
		}
		isAlone, err := takeSlot(ctx, a.slots)
		if err != nil {
			l.leave(a)
			return err
		}
		if !isAlone {
			_ = loop.Sleep(ctx, rand.N(l.pauses.jitter+1))
		}
		if wait, err := l.checkPause(a, who); wait > 0 || err != nil { // a pause began meanwhile
			<-a.slots
			continue
		}
		return nil
	}
}

// takeSlot waits for a free slot. It reports whether all were free.
func takeSlot(ctx context.Context, slots chan struct{}) (isAlone bool, err error) {
	select {
	case slots <- struct{}{}:
		return len(slots) == 1, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// enter returns the logins of an address. leave ends the use.
func (l *LoginLimiter) enter(address string) *addressLogins {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(time.Now())
	a := l.addresses[address]
	if a == nil {
		a = &addressLogins{slots: make(chan struct{}, maxLogins)}
		l.addresses[address] = a
	}
	a.users++
	return a
}

func (l *LoginLimiter) leave(a *addressLogins) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.users--
}

// prune forgets what has no effect any more when there is much of it.
func (l *LoginLimiter) prune(now time.Time) {
	if len(l.addresses) > maxLimiterEntries {
		for address, a := range l.addresses {
			if a.users == 0 && now.After(a.pausedTo) && now.After(a.nextForgiven) {
				delete(l.addresses, address)
			}
		}
	}
	if len(l.refusals) > maxLimiterEntries {
		for digest, r := range l.refusals {
			if now.After(r.pausedTo.Add(l.pauses.maxRefused)) {
				delete(l.refusals, digest)
			}
		}
	}
}

// checkPause returns how long to wait before a login may start, or the reason of a long pause.
func (l *LoginLimiter) checkPause(a *addressLogins, who login) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if r := l.refusals[who.digest]; r != nil && now.Before(r.pausedTo) {
		if wait := r.pausedTo.Sub(now); r.isForgiven && wait <= l.pauses.forgiven {
			return wait, nil
		}
		return 0, &pausedError{err: r.err, until: r.pausedTo}
	}
	wait := a.pausedTo.Sub(now)
	if wait <= 0 {
		return 0, nil
	}
	if isDropped(a.pausedFor) && wait <= l.pauses.maxDropped {
		return wait, nil
	}
	return 0, &pausedError{err: l.trueReason(who, a.pausedFor), until: a.pausedTo}
}

// trueReason returns the reason that a user should read: a server that refused a key drops later connections without one.
func (l *LoginLimiter) trueReason(who login, err error) error {
	if r := l.refusals[who.digest]; r != nil && isDropped(err) {
		return r.err
	}
	return err
}

// isDropped reports whether the server itself, and no jump host before it, dropped a connection.
func isDropped(err error) bool { return errors.Is(err, errDropped) && !errors.Is(err, errJump) }

// end notes the result of a login that begin allowed. It returns the error that the user should read, and whether a
// further try may follow at once: begin then waits for a short time.
func (l *LoginLimiter) end(who login, result error) (reason error, mayRetry bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.addresses[who.address]
	<-a.slots
	a.users--
	now := time.Now()
	switch kind := dstack.KindOf(result); {
	case errors.Is(result, context.Canceled): // the client was closed
	case result == nil:
		a.dropped, a.pausedTo = 0, time.Time{}
		delete(l.refusals, who.digest)
		return nil, false
	case errors.Is(result, errJump):
		a.pausedTo, a.pausedFor = now.Add(l.pauses.unreachable), result
	case isDropped(result):
		return l.trueReason(who, result), l.noteDropped(a, result, now)
	case kind == dstack.Unauthorized, kind == dstack.Forbidden, kind == dstack.Unsupported:
		l.noteRefusal(who, result, now)
	default:
		a.pausedTo, a.pausedFor = now.Add(l.pauses.unreachable), result
	}
	return result, false
}

// noteDropped begins a pause after the server dropped a connection. It reports whether the pause is a short one.
func (l *LoginLimiter) noteDropped(a *addressLogins, err error, now time.Time) (isShort bool) {
	if now.Before(a.pausedTo) {
		return a.dropped <= 1
	}
	a.dropped++
	pause := l.pauses.minDropped + rand.N(l.pauses.maxDropped-l.pauses.minDropped+1)
	if a.dropped > 1 {
		pause = doublePause(l.pauses.lockedOut, a.dropped-1, l.pauses.maxRefused)
		pause += rand.N(pause/4 + 1)
	}
	a.pausedTo, a.pausedFor = now.Add(pause), err
	return a.dropped == 1
}

// noteRefusal begins a pause after a refused login.
func (l *LoginLimiter) noteRefusal(who login, err error, now time.Time) {
	r := l.refusals[who.digest]
	if r == nil {
		r = &refusal{}
		l.refusals[who.digest] = r
	}
	r.count++
	r.isForgiven = false
	r.err, r.pausedTo = err, now.Add(doublePause(l.pauses.refused, r.count, l.pauses.maxRefused))
}

// forgive ends the pause of a login early, because a user has mended what it was for. At one address that happens at most
// once in pauses.forgiven, so that users who try again and again do not make the server lock the address out: later ones
// wait for their turn.
func (l *LoginLimiter) forgive(who login) {
	a := l.enter(who.address)
	l.mu.Lock()
	defer l.mu.Unlock()
	a.users--
	turn := time.Now()
	if a.nextForgiven.After(turn) {
		turn = a.nextForgiven
	}
	isPaused := a.pausedTo.After(turn)
	if isPaused {
		a.pausedTo = turn
	}
	if r := l.refusals[who.digest]; r != nil && r.pausedTo.After(turn) {
		r.pausedTo, r.isForgiven, isPaused = turn, true, true
	}
	if isPaused {
		a.nextForgiven = turn.Add(l.pauses.forgiven)
	}
}

// doublePause returns the pause after a number of failures in a row.
func doublePause(first time.Duration, count int, most time.Duration) time.Duration {
	for range count - 1 {
		if first *= 2; first >= most {
			return most
		}
	}
	return min(first, most)
}

// pausedError is the reason of a pause, for callers during the pause.
type pausedError struct {
	err   error
	until time.Time
}

// Error returns the reason.
func (e *pausedError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *pausedError) Unwrap() error { return e.err }

// nextTry returns when a login may start again, or the zero time if it may now.
func (l *LoginLimiter) nextTry(who login) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	var next time.Time
	if a := l.addresses[who.address]; a != nil {
		next = a.pausedTo
	}
	if r := l.refusals[who.digest]; r != nil && r.pausedTo.After(next) {
		next = r.pausedTo
	}
	if !next.After(time.Now()) {
		return time.Time{}
	}
	return next
}
