package gateway

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/httpwire"
)

// fastAccess is what one view lets a request use, as access is on the slow path. It has all that authorizes the request
// again by a new table, without the head of the request.
type fastAccess struct {
	view       *view
	routes     []*route.Route
	single     [1]*route.Route
	digest     route.Digest // of the token that authorized the request
	hasToken   bool         // one did
	hidesToken bool         // see access
}

// isForReplica reports whether a run exists that the relay can serve: all its replicas are reached directly, and it can start.
// The path of a service's own prefix is not for a replica.
func (f *fastRequest) isForReplica() bool {
	run := f.run
	return run != nil && run.isDirect && (len(run.replicas) > 0 || rejectIfUnstartable(run.route) == nil)
}

// authorize reports whether the caller may use the run by its token. The slow path serves all other callers: it knows
// sessions of browsers, and refuses.
func (f *fastRequest) authorize() bool {
	if !f.run.route.Auth {
		f.access.hidesToken = f.fields.authorizations > 0 && f.carriesPlatformToken(f.access.view)
		return true
	}
	f.access.hidesToken = true
	return f.checkToken()
}

// checkToken reports whether the request has exactly one token, and that token opens the destination.
func (f *fastRequest) checkToken() bool {
	token, ok := bearerTokenOf(f.fields.authorization)
	if !ok || f.fields.authorizations != 1 {
		return false
	}
	return f.checkDigest(sha256.Sum256(token))
}

// checkDigest is checkToken for the digest of a token.
func (f *fastRequest) checkDigest(digest route.Digest) bool {
	found, ok := f.access.view.findCredential(digest, f.x.StartedAt)
	if !ok || !found.opens(f.conn.destination) {
		return false
	}
	f.access.digest, f.access.hasToken = digest, true
	f.keyUse.key = found.key
	return true
}

// authorizeAgain repeats the authorization of a waiting request by another view. It reports false where the slow path is to
// decide: the caller may not use the run any more, or the run is another one.
func (f *fastRequest) authorizeAgain(v *view, now time.Time) bool {
	r := v.Run(f.conn.destination)
	if r == nil || r.Run != f.access.routes[0].Run || r.Auth != f.access.routes[0].Auth {
		return false
	}
	if f.access.hasToken && !f.isStillOpen(v, now) {
		return false
	}
	f.access.view, f.access.single[0] = v, r
	f.access.routes = f.access.single[:]
	return true
}

// isStillOpen reports whether the token of the request opens the destination by another view, as the same key for callers if it is
// one.
func (f *fastRequest) isStillOpen(v *view, now time.Time) bool {
	found, ok := v.findCredential(f.access.digest, now)
	if !ok || !found.opens(f.conn.destination) {
		return false
	}
	before := f.keyUse.key
	return (before == nil) == (found.key == nil) && (before == nil || before.ID == found.key.ID)
}

// carriesPlatformToken calls the function of the slow path with the Authorization fields.
func (f *fastRequest) carriesPlatformToken(v *view) bool {
	h := http.Header{}
	for _, field := range f.x.Request.Fields {
		if field.Kind == httpwire.Authorization {
			h["Authorization"] = append(h["Authorization"], string(field.Value))
		}
	}
	return carriesPlatformToken(v, h)
}

// bearerTokenOf is bearerToken for the value of the only Authorization field.
func bearerTokenOf(value []byte) ([]byte, bool) {
	const scheme = len("bearer")
	if len(value) <= scheme || value[scheme] != ' ' || !bytes.EqualFold(value[:scheme], bearerScheme) {
		return nil, false
	}
	token := bytes.Trim(value[scheme:], " ")
	return token, len(token) > 0
}

var bearerScheme = []byte("bearer")

// beginKey makes a request that a key for callers authorized end with it. It reports false if the key has ended already.
func (f *fastRequest) beginKey() bool {
	key := f.keyUse.key
	if key == nil {
		return true
	}
	loads := f.gateway.loads
	if err := f.gateway.keys.begin(f.keyUse, key, func() bool { return loads.view.Load().HasKey(key.ID) }); err != nil {
		f.isKeyUsed = true
		f.endKeyUse()
		return false
	}
	f.isKeyUsed = true
	if at := key.ExpiresAt(); !at.IsZero() {
		use, id := f.keyUse, key.ID
		f.keyTimer = time.AfterFunc(time.Until(at), func() { f.gateway.keys.end(id, use) })
	}
	return true
}

// endKeyUse releases what beginKey took.
func (f *fastRequest) endKeyUse() {
	if f.keyUse.key == nil && f.keyTimer == nil {
		return
	}
	if f.isKeyUsed {
		f.gateway.keys.finish(f.keyUse)
		f.isKeyUsed = false
	}
	if f.keyTimer != nil && !f.keyTimer.Stop() {
		f.keyUse = &keyUse{end: f.endWithKey} // the timer still has the old one
	}
	f.keyTimer = nil
	end := f.keyUse.end
	*f.keyUse = keyUse{end: end}
	f.keyEnded.Store(false)
}

// endWithKey ends the request because its key was revoked or has expired. Any goroutine may call it, under the lock of the
// tracker, and never after endKeyUse.
func (f *fastRequest) endWithKey(error) {
	f.keyEnded.Store(true)
	f.handle.Wake()
}

// countKey counts a request with a key for callers, as allowed or refused.
func (f *fastRequest) countKey(isAllowed bool) {
	if key := f.keyUse.key; key != nil {
		f.gateway.keys.count(f.keyUse, key, isAllowed)
	}
}

// checkKeyLimit refuses a request with a key for callers that has too many.
func (f *fastRequest) checkKeyLimit() error {
	key := f.keyUse.key
	if key == nil || key.RPS <= 0 || f.keyUse.isLimited {
		return nil
	}
	wait := f.gateway.rateLimiter.takeForKey(key)
	if wait == 0 {
		return nil
	}
	f.countKey(false)
	return newKeyLimitError(wait, key)
}
