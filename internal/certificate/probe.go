package certificate

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io/fs"
	"sync"

	"github.com/mholt/acmez/v3/acme"
)

// probeTokenPrefix begins the tokens of our own requests for a challenge, by which
// a process finds out whether those of an ACME server would reach it, or another
// process that serves the domain.
const probeTokenPrefix = "dstack-probe-"

// probeSecrets are the secrets with which probes are answered, by domain.
type probeSecrets struct {
	mu     sync.Mutex
	byName map[string][]byte
}

func probeSecretKey(domain string) string { return DomainPrefix(domain) + "probe.key" }

// probeSecret reads the secret that the processes of a domain share, or makes it.
func (k *Keeper) probeSecret(ctx context.Context, domain string) ([]byte, error) {
	k.probes.mu.Lock()
	defer k.probes.mu.Unlock()
	if secret := k.probes.byName[domain]; secret != nil {
		return secret, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	secret, err := k.opts.Storage.Load(ctx, probeSecretKey(domain))
	if errors.Is(err, fs.ErrNotExist) {
		err = waitForLock(ctx, k.opts.Storage, probeSecretKey(domain), func(ctx context.Context) error {
			if secret, err = k.opts.Storage.Load(ctx, probeSecretKey(domain)); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			secret = []byte(rand.Text())
			return k.opts.Storage.Store(ctx, probeSecretKey(domain), secret)
		})
	}
	if err != nil {
		return nil, err
	}
	if k.probes.byName == nil {
		k.probes.byName = map[string][]byte{}
	}
	k.probes.byName[domain] = secret
	return secret, nil
}

// probeAnswer returns the answer to a probe; empty if the storage does not answer.
func (k *Keeper) probeAnswer(ctx context.Context, domain, protocol, name, token string) string {
	secret, err := k.probeSecret(ctx, domain)
	if err != nil {
		return ""
	}
	mac := hmac.New(sha256.New, secret)
	for _, part := range []string{protocol, name, token} {
		mac.Write([]byte(part + "\n")) //nolint:errcheck // never fails
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// probeChallenge returns the challenge whose certificate answers a probe over TLS.
func (k *Keeper) probeChallenge(ctx context.Context, domain, name string) acme.Challenge {
	return acme.Challenge{Type: acme.ChallengeTypeTLSALPN01, Identifier: acme.Identifier{Type: "dns", Value: name},
		KeyAuthorization: k.probeAnswer(ctx, domain, "tls", name, "")}
}
