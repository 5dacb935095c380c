package route

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Published is a gateway as it publishes the services of its project now.
type Published struct {
	ID        dstack.GatewayID
	Project   string // lower case
	Name      string
	Domain    string
	IsDefault bool

	origin       Origin        // of the names below the domain, with the domain as host; zero: no process serves
	reason       dstack.Reason // why no process serves
	certificates map[string]dstack.CertificateStatus
	isPlain      bool // it needs no certificate
}

// Publish returns how a gateway publishes its services. reason says why, if no process of it serves.
func Publish(g dstack.Gateway, serving []dstack.GatewayProcess, reason dstack.Reason) Published {
	p := Published{ID: g.ID, Project: lowerASCII(g.ProjectName), Name: g.Name, Domain: g.Domain, IsDefault: g.IsDefault,
		isPlain: g.Configuration.Certificate == nil, reason: reason, certificates: map[string]dstack.CertificateStatus{}}
	for _, process := range serving {
		port, scheme, usual := process.HTTPSPort, "https", 443
		if p.isPlain {
			port, scheme, usual = process.HTTPPort, "http", 80
		}
		if port == 0 || g.Domain == "" {
			continue
		}
		host := g.Domain
		if port != usual {
			host += ":" + strconv.Itoa(port)
		}
		if p.origin.IsZero() || port == usual {
			p.origin = Origin{scheme, host}
		}
		for _, c := range process.Certificates {
			if known, ok := p.certificates[c.Name]; !ok || known.HasCertificate() {
				p.certificates[c.Name] = c // the worst counts
			}
		}
	}
	return p
}

// URL returns the origin of a name below the domain, as in https://notes.example.com, and, if clients cannot use it yet, what
// is missing. The origin is zero if it is not known yet.
func (p Published) URL(label string, now time.Time) (at Origin, missing dstack.Reason) {
	if p.Domain == "" {
		return Origin{}, "the gateway " + dstack.Reason(p.Name) + " has no domain"
	}
	if p.origin.IsZero() {
		reason := p.reason
		if reason == "" {
			reason = "no process serves"
		}
		return Origin{}, dstack.Reason("the gateway "+p.Name+" does not serve: ") + reason
	}
	at = Origin{p.origin.Scheme, label + "." + p.origin.Host}
	if p.isPlain {
		return at, ""
	}
	for _, name := range []string{label + "." + p.Domain, "*." + p.Domain} {
		c, ok := p.certificates[name]
		switch {
		case ok && c.HasCertificate() && (c.NotAfter.IsZero() || now.Before(c.NotAfter)):
			return at, ""
		case ok:
			missing = describeMissing(c, now)
		}
	}
	if missing == "" {
		missing = dstack.Reason("there is no certificate for " + label + "." + p.Domain + " yet")
	}
	return at, missing
}

// describeMissing returns why a certificate cannot be used.
func describeMissing(c dstack.CertificateStatus, now time.Time) dstack.Reason {
	text := "the certificate for " + c.Name
	switch {
	case c.HasCertificate() && !now.Before(c.NotAfter):
		text += " has expired"
	case c.State == dstack.CertificatePending && c.Queue > 0:
		text += " waits: place " + strconv.Itoa(c.Queue) + " of " + strconv.Itoa(max(c.Queue, c.Queued))
	case c.State == dstack.CertificatePending:
		text += " is being issued"
	default:
		text += " is missing"
	}
	if c.Reason != "" {
		text += ": " + c.Reason
	}
	return dstack.Reason(text)
}

// isLocalDomain reports whether only readers on the server's machine can resolve the names below the domain.
func (p Published) isLocalDomain() bool {
	return p.Domain == localDomain || strings.HasSuffix(p.Domain, "."+localDomain)
}

// FindPublished returns the gateway at which a run of a project has its URL, by what its configuration says of gateways; nil:
// the server itself.
func FindPublished(all []Published, project, choice string) *Published {
	project = lowerASCII(project)
	name := choice[strings.LastIndexByte(choice, '/')+1:]
	at := slices.IndexFunc(all, func(p Published) bool {
		switch {
		case p.Project != project || choice == spec.GatewayNone:
			return false
		case choice == "" || choice == spec.GatewayDefault:
			return p.IsDefault
		}
		return p.Name == name
	})
	if at < 0 {
		return nil
	}
	return &all[at]
}
