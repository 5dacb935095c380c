package certificate

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challengePath is where an ACME server asks for the answers to HTTP-01 challenges.
const challengePath = "/.well-known/acme-challenge/"

// challengeAnswers remembers answers to challenges: those of this process, and for
// a moment what the storage had of others.
type challengeAnswers struct {
	mu    sync.Mutex
	own   map[string]acme.Challenge // by name
	other map[string]storedAnswer   // by name and token
}

// storedAnswer is what the storage had for a name at some time.
type storedAnswer struct {
	at        time.Time
	challenge acme.Challenge // zero: nothing
}

// answerLife is how long an answer from the storage is believed, so that strangers who
// ask for challenges do not load the storage. It is short, because another process may
// present a challenge right after. maxAnswers limits the number of answers.
const (
	answerLife = 100 * time.Millisecond
	maxAnswers = 1000
)

// find returns the present challenge of a name. load reads it from the storage.
func (a *challengeAnswers) find(name, token string, load func() acme.Challenge) acme.Challenge {
	a.mu.Lock()
	own, ok := a.own[name]
	stored := a.other[name+" "+token]
	a.mu.Unlock()
	switch {
	case ok:
		return own
	case time.Since(stored.at) < answerLife:
		return stored.challenge
	}
	stored = storedAnswer{time.Now(), load()}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.other == nil || len(a.other) >= maxAnswers {
		a.other = map[string]storedAnswer{}
	}
	a.other[name+" "+token] = stored
	return stored.challenge
}

func (a *challengeAnswers) set(challenge acme.Challenge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own == nil {
		a.own = map[string]acme.Challenge{}
	}
	a.own[challenge.Identifier.Value] = challenge
}

func (a *challengeAnswers) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.own, name)
}

// solver puts the answer to a challenge where every process that serves the domain
// finds it.
type solver struct {
	keeper *Keeper
	domain string
}

func challengeKey(domain, name string) string {
	return DomainPrefix(domain) + "challenges/" + name + ".json"
}

// Present implements acmez.Solver.
func (s solver) Present(ctx context.Context, challenge acme.Challenge) error {
	text, err := json.Marshal(challenge)
	if err != nil {
		return err
	}
	s.keeper.answers.set(challenge)
	return s.keeper.opts.Storage.Store(ctx, challengeKey(s.domain, challenge.Identifier.Value), text)
}

// CleanUp implements acmez.Solver.
func (s solver) CleanUp(ctx context.Context, challenge acme.Challenge) error {
	s.keeper.answers.forget(challenge.Identifier.Value)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storageTimeout)
	defer cancel()
	return s.keeper.opts.Storage.Delete(ctx, challengeKey(s.domain, challenge.Identifier.Value))
}

// storageTimeout limits calls of the storage beside requests and handshakes.
const storageTimeout = 3 * time.Second

// findChallenge returns the challenge of a name that was presented by this process
// or another one; zero if there is none.
func (k *Keeper) findChallenge(ctx context.Context, name, domain, token string) acme.Challenge {
	return k.answers.find(name, token, func() (challenge acme.Challenge) {
		ctx, cancel := context.WithTimeout(ctx, storageTimeout)
		defer cancel()
		text, err := k.opts.Storage.Load(ctx, challengeKey(domain, name))
		if err != nil || json.Unmarshal(text, &challenge) != nil {
			return acme.Challenge{}
		}
		return challenge
	})
}

// checkedDomain returns the domain of a name that an ACME server may check over
// HTTP or TLS; empty: it may not.
func (k *Keeper) checkedDomain(name string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.entries {
		if e.name == name && e.isOrdered() && !e.hasDNS() {
			return e.domain
		}
	}
	return ""
}

// ChallengeHandler returns a handler that answers the HTTP-01 challenges of the
// ACME server, and passes all other requests to next. No request below the path of
// challenges is passed on: with its answer a service could get a certificate for
// its name from anywhere.
func (k *Keeper) ChallengeHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, isChallenge := strings.CutPrefix(r.URL.Path, challengePath)
		if !isChallenge {
			next.ServeHTTP(w, r)
			return
		}
		answer := k.answerHTTPChallenge(r.Context(), hostOf(r.Host), token)
		if answer == "" {
			http.Error(w, "there is no such challenge", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		io.WriteString(w, answer) //nolint:errcheck // the ACME server asks again
	})
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return normalizeName(hostport)
}

// answerHTTPChallenge returns the answer to a challenge; empty: there is none.
func (k *Keeper) answerHTTPChallenge(ctx context.Context, name, token string) string {
	domain := k.checkedDomain(name)
	switch {
	case domain == "" || token == "" || len(token) > 200:
		return ""
	case strings.HasPrefix(token, probeTokenPrefix):
		return k.probeAnswer(ctx, domain, "http", name, token)
	}
	challenge := k.findChallenge(ctx, name, domain, token)
	if challenge.Type != acme.ChallengeTypeHTTP01 || challenge.Token != token {
		return ""
	}
	return challenge.KeyAuthorization
}

// probeProtocol marks our own handshakes that find out whether TLS-ALPN-01 challenges
// reach a process of the domain.
const probeProtocol = "dstack-probe"

// isTLSChallenge reports whether a handshake is for a TLS-ALPN-01 challenge, and
// whether it is one of our probes.
func isTLSChallenge(protocols []string) (isChallenge, isProbe bool) {
	isProbe = slices.Equal(protocols, []string{acmez.ACMETLS1Protocol, probeProtocol})
	return isProbe || slices.Equal(protocols, []string{acmez.ACMETLS1Protocol}), isProbe
}

// answerTLSChallenge returns the certificate that answers a TLS-ALPN-01 challenge, or a probe; nil: there is no answer.
func (k *Keeper) answerTLSChallenge(ctx context.Context, name string, isProbe bool) (*tls.Certificate, error) {
	domain := k.checkedDomain(name)
	if domain == "" {
		return nil, nil
	}
	if isProbe {
		return acmez.TLSALPN01ChallengeCert(k.probeChallenge(ctx, domain, name))
	}
	challenge := k.findChallenge(ctx, name, domain, "")
	if challenge.Type != acme.ChallengeTypeTLSALPN01 {
		return nil, nil
	}
	return acmez.TLSALPN01ChallengeCert(challenge)
}
