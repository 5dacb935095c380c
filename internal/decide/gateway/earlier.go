package gateway

import (
	"slices"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// maxEarlier is how many earlier domains a gateway goes on serving.
const maxEarlier = 10

// KeepEarlier returns what a gateway goes on serving for a while when it gets a domain and a certificate (nil: plain HTTP):
// the domain that it had, and its https port if it has no certificate any more.
func KeepEarlier(before dstack.Gateway, domain string, certificate *spec.Certificate, now time.Time) []dstack.EarlierDomain {
	was := dstack.EarlierDomain{Domain: before.Domain, Until: now.Add(dstack.EarlierDomainTime), Certificate: withoutSettings(before.Configuration.Certificate)}
	all := slices.Clone(before.Earlier)
	if was.Domain != "" && (was.Domain != domain || was.Certificate != nil && certificate == nil) {
		all = slices.DeleteFunc(all, func(e dstack.EarlierDomain) bool { return e.Domain == was.Domain && isPlain(e) == isPlain(was) })
		all = slices.Insert(all, 0, was)
	}
	all = slices.DeleteFunc(all, func(e dstack.EarlierDomain) bool {
		isServedAnyway := e.Domain == domain && (certificate != nil || isPlain(e))
		return isServedAnyway || !now.Before(e.Until)
	})
	return all[:min(len(all), maxEarlier)]
}

func isPlain(e dstack.EarlierDomain) bool { return e.Certificate == nil }

// withoutSettings returns a source of certificates without the settings, which may be secret, for writing DNS records.
func withoutSettings(c *spec.Certificate) *spec.Certificate {
	c = c.Clone()
	if c != nil && c.DNS != nil {
		c.DNS.Settings = nil
	}
	return c
}

// HasEnded reports whether the time of an earlier domain of a gateway is over.
func HasEnded(g dstack.Gateway, now time.Time) bool {
	return slices.ContainsFunc(g.Earlier, func(e dstack.EarlierDomain) bool { return !now.Before(e.Until) })
}
