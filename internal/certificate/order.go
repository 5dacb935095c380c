package certificate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"dstack/internal/decide/renewal"
)

// orderTimeout limits one order, without the time that DNS records need.
const orderTimeout = 3 * time.Minute

// orderCertificate orders the certificate of an entry and returns the changed record. The caller has the lock.
func (k *Keeper) orderCertificate(ctx context.Context, e *entry, rec record, present *tls.Certificate) (record, *tls.Certificate, error) {
	solvers, limit, err := k.solversFor(ctx, e)
	if err != nil {
		return rec, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client := &acmez.Client{Client: k.acme.Load().newDirectory(), ChallengeSolvers: solvers}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return rec, nil, err
	}
	chain, err := k.requestChain(ctx, client, e, key, present)
	if err != nil {
		return rec, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return rec, nil, err
	}
	rec = record{Certificate: string(chain), Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))}
	cert, err := parsePair([]byte(rec.Certificate), []byte(rec.Key))
	if err != nil {
		return rec, nil, fmt.Errorf("the issued certificate cannot be used: %w", err)
	}
	k.askSuggestion(ctx, &rec, cert, time.Now())
	return rec, cert, nil
}

// solversFor returns what answers the challenges for a name, and the time limit of its order.
func (k *Keeper) solversFor(ctx context.Context, e *entry) (map[string]acmez.Solver, time.Duration, error) {
	if e.hasDNS() {
		dns, wait, err := k.newDNSSolver(e.source.DNS)
		if err != nil {
			return nil, 0, err
		}
		return map[string]acmez.Solver{acme.ChallengeTypeDNS01: dns}, orderTimeout + wait, nil
	}
	types, wrong := k.checkReach(ctx, e)
	if wrong != nil {
		return nil, 0, &orderError{renewal.Misdirected, *wrong}
	}
	solvers := map[string]acmez.Solver{}
	for _, name := range types {
		solvers[name] = solver{k, e.domain}
	}
	return solvers, orderTimeout, nil
}

// requestChain obtains a certificate with its chain in PEM. If the server does not
// know the account any more, requestChain registers a new one.
func (k *Keeper) requestChain(ctx context.Context, client *acmez.Client, e *entry, key *ecdsa.PrivateKey, present *tls.Certificate) ([]byte, error) {
	request, err := acmez.NewCSR(key, []string{e.name})
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		account, err := k.openAccount(ctx, client.Client, e.domain, k.emailOf(e))
		if err != nil {
			return nil, err
		}
		order, err := acmez.OrderParametersFromCSR(account, request)
		if err != nil {
			return nil, err
		}
		order.Profile = k.acme.Load().Profile
		if present != nil && k.hasSuggestions(ctx) {
			order.Replaces = present.Leaf // such orders do not count for some limits
		}
		chains, err := client.ObtainCertificate(ctx, order)
		switch {
		case err == nil && len(chains) > 0:
			return chains[0].ChainPEM, nil
		case err == nil:
			return nil, errors.New("the issuer sent no certificate")
		case attempt > 0 || !isProblem(err, acme.ProblemTypeAccountDoesNotExist):
			return nil, err
		}
		if err := k.opts.Storage.Delete(ctx, k.accountKey(e.domain)); err != nil {
			return nil, err
		}
	}
}

// emailOf returns the address that the server writes to about a certificate.
func (k *Keeper) emailOf(e *entry) string {
	if e.source.Email != "" {
		return string(e.source.Email)
	}
	return k.acme.Load().Email
}

func (k *Keeper) hasSuggestions(ctx context.Context) bool {
	directory, err := k.acme.Load().directory.GetDirectory(ctx)
	return err == nil && directory.RenewalInfo != ""
}

// suggestionInterval is how often the issuer is asked when to renew a certificate.
const suggestionInterval = 6 * time.Hour

// askSuggestion asks the issuer when it wants a certificate to be renewed. Without an
// answer the last one stays.
func (k *Keeper) askSuggestion(ctx context.Context, rec *record, cert *tls.Certificate, now time.Time) {
	rec.AskedAt = now
	if !k.hasSuggestions(ctx) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if info, err := k.acme.Load().directory.GetRenewalInfo(ctx, cert.Leaf); err == nil {
		rec.Suggested = info.SelectedTime
	}
}
