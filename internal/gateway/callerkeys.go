package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// callerKeyPrefix is what keys for callers begin with.
const callerKeyPrefix = "dstkey_"

// errKeyEnded is the cause of the end of requests whose key for callers was revoked
// or has expired.
var errKeyEnded = errors.New("the key was revoked or has expired")

// credential is what a request is authorized by: the token of a user or a key for
// callers.
type credential struct {
	grant *route.Grant
	key   *route.Key
}

// findCredential returns what has a digest, with ok unset for an unknown one. A key
// that has expired is unknown.
func (v *view) findCredential(digest route.Digest, now time.Time) (c credential, ok bool) {
	if grant := v.Grant(digest); grant != nil {
		return credential{grant: grant}, true
	}
	if key := v.Key(digest); key != nil && !key.IsExpired(now) {
		return credential{key: key}, true
	}
	return credential{}, false
}

// opens reports whether the credential opens a destination. Whether a key is for a
// model is checked once the body names it.
func (c credential) opens(d route.Destination) bool {
	if c.key == nil {
		return c.grant.Allows(d.Project)
	}
	return c.key.Project == d.Project && (d.Models || c.key.AllowsRun(d.Project, d.Run))
}

// check returns an error if the credential does not open a destination.
func (c credential) check(d route.Destination) error {
	forbidden := func(message, hint string) error {
		return &responseError{details: details{Kind: dstack.Forbidden, Message: message, Hint: hint}}
	}
	switch {
	case c.opens(d):
		return nil
	case c.key == nil:
		return forbidden("this token gives no access to the project "+d.Project, "ask an administrator of the project to make you a member")
	case c.key.Project != d.Project:
		return forbidden("this key gives no access to the project "+d.Project, "ask an administrator of the project for a key")
	default:
		return forbidden("this key is not for the service "+d.Run, "ask an administrator of the project for a key that is")
	}
}

// keyUse is how a request uses a key for callers.
type keyUse struct {
	key       *route.Key              // that authorized the request; nil: by the latest table, none did
	id        string                  // of the key
	end       context.CancelCauseFunc // nil: the request does not depend on the key
	isCounted bool
	isLimited bool // its caller does not send too many
}

// keyTracker counts the requests with each key for callers, and ends those in flight
// when their key ends.
type keyTracker struct {
	counter string // see dstack.LoadReport

	mu   sync.Mutex
	keys map[string]*trackedKey // by ID
}

// trackedKey is what the gateway knows of one key since it began.
type trackedKey struct {
	project, name string
	counts        dstack.KeyCounts
	inFlight      map[*keyUse]bool
	isGone        bool // not in the table any more
}

func newKeyTracker() *keyTracker {
	return &keyTracker{counter: rand.Text(), keys: map[string]*trackedKey{}}
}

// trackedKey returns what is known of a key. The caller holds the lock.
func (t *keyTracker) trackedKey(key *route.Key) *trackedKey {
	k := t.keys[key.ID]
	if k == nil {
		k = &trackedKey{project: key.Project, name: key.Name, inFlight: map[*keyUse]bool{}}
		t.keys[key.ID] = k
	}
	return k
}

// count counts a request once.
func (t *keyTracker) count(use *keyUse, key *route.Key, isAllowed bool) {
	if use.isCounted {
		return
	}
	use.isCounted = true
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.trackedKey(key)
	if isAllowed {
		k.counts.Requests++
		return
	}
	k.counts.Refused++
}

// begin makes a request end with its key. It fails if the key has ended already.
func (t *keyTracker) begin(use *keyUse, key *route.Key, isLive func() bool) error {
	use.id = key.ID
	t.mu.Lock()
	t.trackedKey(key).inFlight[use] = true
	t.mu.Unlock()
	if !isLive() { // a table that came meanwhile does not have it
		return newKeyEndedError()
	}
	return nil
}

// finish ends what begin began.
func (t *keyTracker) finish(use *keyUse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keys[use.id]; k != nil {
		delete(k.inFlight, use)
	}
}

// end ends a request whose key has expired, if it has not ended.
func (t *keyTracker) end(id string, use *keyUse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keys[id]; k != nil && k.inFlight[use] {
		use.end(errKeyEnded)
	}
}

// applyTable ends the requests whose keys a table does not have.
func (t *keyTracker) applyTable(x *route.Index) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, k := range t.keys {
		if k.isGone = !x.HasKey(id); !k.isGone {
			continue
		}
		for use := range k.inFlight {
			use.end(errKeyEnded)
		}
	}
}

// addTo adds the counts to a report. Those of keys that have ended are told once more,
// and forgotten.
func (t *keyTracker) addTo(report *dstack.LoadReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	report.Counter, report.Keys = t.counter, make(map[dstack.CallerKeyID]dstack.KeyCounts, len(t.keys))
	for id, k := range t.keys {
		report.Keys[dstack.CallerKeyID(id)] = k.counts
		if k.isGone && len(k.inFlight) == 0 {
			delete(t.keys, id)
		}
	}
}

// key returns the key for callers that authorized the request; nil: none did.
func (p *proxyRequest) key() *route.Key {
	if p.keyUse == nil {
		return nil
	}
	return p.keyUse.key
}

// setKey sets the key for callers that authorized the request; nil: none did.
func (p *proxyRequest) setKey(key *route.Key) {
	if p.keyUse == nil {
		if key == nil {
			return
		}
		p.keyUse = &keyUse{}
	}
	p.keyUse.key = key
}

// beginKey makes a request that a key authorized end with it, and refuses it if its
// caller sends too many.
func (p *proxyRequest) beginKey() error {
	key := p.key()
	if key == nil {
		return nil
	}
	ctx, end := context.WithCancelCause(p.ctx())
	p.keyUse.end = end
	if at := key.ExpiresAt(); !at.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, at, errKeyEnded)
		context.AfterFunc(ctx, cancel) // end ends it, too
	}
	p.r = p.r.WithContext(ctx)
	if err := p.gateway.keys.begin(p.keyUse, key, func() bool { return p.gateway.loads.view.Load().HasKey(key.ID) }); err != nil {
		return err
	}
	return p.checkKeyLimit(key)
}

// countKey counts a request with a key for callers, as allowed or refused.
func (p *proxyRequest) countKey(isAllowed bool) {
	if key := p.key(); key != nil {
		p.gateway.keys.count(p.keyUse, key, isAllowed)
	}
}

// finishKey releases what beginKey took.
func (p *proxyRequest) finishKey() {
	if p.keyUse != nil && p.keyUse.end != nil {
		p.gateway.keys.finish(p.keyUse)
		p.keyUse.end(nil)
	}
}

// keyEnded returns the error of a request that ended with its key before anything of
// a response was sent; nil: it did not.
func (p *proxyRequest) keyEnded() *responseError {
	if p.response.sent || !errors.Is(context.Cause(p.ctx()), errKeyEnded) {
		return nil
	}
	return newKeyEndedError()
}

func newKeyEndedError() *responseError {
	return &responseError{challenge: invalidTokenChallenge, details: details{Kind: dstack.Unauthorized, Message: errKeyEnded.Error(),
		Hint: "ask an administrator of the project for a new one"}}
}

// invalidTokenChallenge is the challenge for tokens and keys that are not valid.
const invalidTokenChallenge = `Bearer realm="dstack", error="invalid_token"`

// newInvalidTokenError is for a token that is neither a user's nor a key for callers.
func newInvalidTokenError(token string) error {
	e := &responseError{challenge: invalidTokenChallenge, details: details{Kind: dstack.Unauthorized,
		Message: "this token is not valid for this server", Hint: "yours is in ~/.dstack/config.yml"}}
	if strings.HasPrefix(token, callerKeyPrefix) {
		e.Message = "this key is not valid: it was revoked, has expired, or is for another server"
		e.Hint = "ask an administrator of the project for a new one"
	}
	return e
}
