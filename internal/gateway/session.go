package gateway

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
)

// A browser that signed in to a service has a cookie for that service's host
// alone. It has no token, only the sealed digest of one, so that it is of no use
// anywhere else; each request looks the digest up in the route table, so that a
// revoked token ends the session at once.
const (
	sessionCookie = "dstack-session"
	// secureSessionCookie is its name with https. Browsers accept this prefix only
	// from the host itself, so that no neighbour below the domain can set it.
	secureSessionCookie = "__Host-dstack-session"
	sessionTime         = 7 * 24 * time.Hour
)

const sessionKeySize = 32

// sessions has the sealer of the present key.
type sessions struct {
	sealer atomic.Pointer[sessionSealer]
	key    []byte // of SetSessionKey; it alone changes it
}

func newSessions(key []byte) *sessions {
	s := &sessions{key: key}
	s.sealer.Store(newSessionSealer(key))
	return s
}

// SetSessionKey changes the key of Options.SessionKey. Sessions that began with the key before are over. It must not be
// called at the same time again. It ignores a key of another length.
func (g *Gateway) SetSessionKey(key []byte) {
	if len(key) == sessionKeySize && !bytes.Equal(g.sessions.key, key) {
		g.sessions.key = key
		g.sessions.sealer.Store(newSessionSealer(key))
	}
}

// sessionSealer seals and opens the values of session cookies.
type sessionSealer struct{ aead cipher.AEAD }

// newSessionSealer returns a sealer with a key of 32 bytes; nil: a random one.
func newSessionSealer(key []byte) *sessionSealer {
	if key == nil {
		key = make([]byte, sessionKeySize)
		_, _ = rand.Read(key) // never fails
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("gateway: the session key: " + err.Error()) // its length is wrong
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("gateway: the session key: " + err.Error())
	}
	return &sessionSealer{aead: aead}
}

// seal returns the value of a cookie for one run, which names a token by its
// digest until a time.
func (s *sessionSealer) seal(token route.Digest, d route.Destination, until time.Time) string {
	text := binary.BigEndian.AppendUint64(token[:], uint64(until.Unix()))
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, text, sessionScope(d)))
}

// open is the opposite of seal. It fails for the value of another run, for a
// changed one, and once its time has passed.
func (s *sessionSealer) open(value string, d route.Destination, now time.Time) (route.Digest, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return route.Digest{}, false
	}
	text, err := s.aead.Open(nil, nil, raw, sessionScope(d))
	if err != nil || len(text) != len(route.Digest{})+8 {
		return route.Digest{}, false
	}
	until := time.Unix(int64(binary.BigEndian.Uint64(text[len(route.Digest{}):])), 0)
	return route.Digest(text[:len(route.Digest{})]), now.Before(until)
}

// sessionScope is what a cookie is for. Neither name has a zero byte.
func sessionScope(d route.Destination) []byte {
	return []byte("session\x00" + d.Project + "\x00" + d.Run)
}

// isByName reports whether the request names a run by its host. Only there does
// a host belong to one service, so that browsers can sign in.
func (p *proxyRequest) isByName() bool { return p.destination.Run != "" && p.destination.Base == "" }

// isSecure reports whether the client used https.
func (p *proxyRequest) isSecure() bool { return p.scheme() == "https" }

// sessionCookieName is the name of the cookie at the request's host.
func (p *proxyRequest) sessionCookieName() string {
	if p.isSecure() {
		return secureSessionCookie
	}
	return sessionCookie
}

// sessionCredential returns what the session that the request's cookie has was begun
// with.
func (p *proxyRequest) sessionCredential(v *view) (c credential, ok bool) {
	if !p.isByName() || len(p.r.Header["Cookie"]) == 0 {
		return credential{}, false
	}
	now := time.Now()
	for _, cookie := range p.r.CookiesNamed(p.sessionCookieName()) {
		if token, ok := p.gateway.sessions.sealer.Load().open(cookie.Value, p.destination, now); ok {
			if found, ok := v.findCredential(token, now); ok {
				return found, true
			}
		}
	}
	return credential{}, false
}

// startSession sets the cookie of a session.
func (p *proxyRequest) startSession(token route.Digest) {
	value := p.gateway.sessions.sealer.Load().seal(token, p.destination, time.Now().Add(sessionTime))
	p.setSessionCookie(p.sessionCookieName(), value, int(sessionTime.Seconds()))
}

// endSession removes the cookie, under both of its names.
func (p *proxyRequest) endSession() {
	p.setSessionCookie(p.sessionCookieName(), "", -1)
	if p.isSecure() {
		p.setSessionCookie(sessionCookie, "", -1)
	}
}

func (p *proxyRequest) setSessionCookie(name, value string, maxAge int) {
	http.SetCookie(&p.response, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: p.isSecure(), SameSite: http.SameSiteLaxMode})
}

// isSessionCookie reports whether a pair name=value is a session cookie. Browsers
// send =name=value, a cookie without a name, as name=value.
func isSessionCookie(pair string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(pair, " \t="), "=")
	name = strings.TrimSpace(name)
	return name == sessionCookie || name == secureSessionCookie
}

// removeSessionCookies removes session cookies from a request for a replica. All
// other cookies stay byte for byte.
func removeSessionCookies(h http.Header) {
	lines := h["Cookie"]
	if len(lines) == 0 {
		return
	}
	var kept []string
	for _, line := range lines {
		if !strings.Contains(line, sessionCookie) {
			kept = append(kept, line)
			continue
		}
		var pairs []string
		for pair := range strings.SplitSeq(line, ";") {
			if !isSessionCookie(pair) {
				pairs = append(pairs, pair)
			}
		}
		if line = strings.TrimSpace(strings.Join(pairs, ";")); line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}
