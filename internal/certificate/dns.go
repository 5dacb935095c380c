package certificate

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/cloudflare"
	"github.com/mholt/acmez/v3/acme"

	"dstack/internal/decide/renewal"
	"dstack/internal/spec"
)

// Times of the DNS records that answer challenges.
const (
	recordTTL          = time.Minute
	defaultPropagation = 5 * time.Minute
	providerTimeout    = time.Minute // of one call of a provider
)

// dnsSolver answers DNS-01 challenges, and marks the failures of the provider.
type dnsSolver struct {
	provider string
	solver   *certmagic.DNS01Solver
}

// newDNSSolver returns a solver that writes records by a provider, and how long
// they may take to become visible.
func (k *Keeper) newDNSSolver(p *spec.DNSProvider) (dnsSolver, time.Duration, error) {
	provider, err := newDNSProvider(p)
	if err != nil {
		return dnsSolver{}, 0, &orderError{renewal.Provider, problem{err.Error(), "change dns: of the certificate"}}
	}
	wait := defaultPropagation
	if text := p.Settings["propagation_timeout"]; text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait <= 0 {
			return dnsSolver{}, 0, &orderError{renewal.Provider, problem{fmt.Sprintf("propagation_timeout is %q, which is no duration", text), "write 5m"}}
		}
	}
	resolvers := k.acme.Load().resolvers()
	if own := p.Settings["resolver"]; own != "" {
		resolvers = []string{own}
	}
	return dnsSolver{p.Provider, &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider: provider, TTL: recordTTL, PropagationTimeout: wait, Resolvers: resolvers}}}, wait, nil
}

// newDNSProvider returns the client of a provider.
func newDNSProvider(p *spec.DNSProvider) (certmagic.DNSProvider, error) {
	set := p.Settings
	switch p.Provider {
	case "rfc2136":
		return newUpdateProvider(set)
	case "cloudflare":
		return &cloudflare.Provider{APIToken: set["api_token"], ZoneToken: set["zone_token"], HTTPClient: newProviderClient()}, nil
	case "route53":
		return recordSetProvider{&route53{keyID: set["access_key_id"], secret: set["secret_access_key"], session: set["session_token"],
			region: cmp.Or(set["region"], "us-east-1"), zoneID: set["hosted_zone_id"], base: "https://route53.amazonaws.com", client: newProviderClient()}}, nil
	case "googleclouddns":
		cloud, err := newCloudDNS(set["project"], set["service_account"])
		return recordSetProvider{cloud}, err
	case "exec":
		return execProvider{command: set["command"]}, nil
	case "webhook":
		return webhookProvider{url: set["url"], token: set["token"], client: newHookClient()}, nil
	}
	return nil, fmt.Errorf("the DNS provider %s is not known", cleanText(p.Provider))
}

// Present implements acmez.Solver.
func (s dnsSolver) Present(ctx context.Context, challenge acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	if err := s.solver.Present(ctx, challenge); err != nil {
		return &orderError{renewal.Provider, problem{fmt.Sprintf("the DNS provider %s does not write %s: %s", s.provider,
			challenge.DNS01TXTRecordName(), cleanText(shortenProviderError(err))), "check dns: of the certificate, and its secrets"}}
	}
	return nil
}

// shortenProviderError removes what the solver says before the provider's own text.
func shortenProviderError(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "adding temporary record for zone "); ok {
		if _, rest, ok = strings.Cut(rest, ": "); ok {
			return rest
		}
	}
	return text
}

// Wait implements acmez.Waiter: it returns when the record is visible.
func (s dnsSolver) Wait(ctx context.Context, challenge acme.Challenge) error {
	if err := s.solver.Wait(ctx, challenge); err != nil && ctx.Err() == nil {
		return &orderError{renewal.Provider, problem{fmt.Sprintf("%s, which the DNS provider %s wrote, is not visible: %s",
			challenge.DNS01TXTRecordName(), s.provider, cleanText(err.Error())),
			"check that the domain's name servers are those of the provider; raise propagation_timeout if they are slow"}}
	}
	return ctx.Err()
}

// CleanUp implements acmez.Solver.
func (s dnsSolver) CleanUp(ctx context.Context, challenge acme.Challenge) error {
	return s.solver.CleanUp(ctx, challenge)
}
