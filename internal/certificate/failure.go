package certificate

import (
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"dstack/internal/decide/renewal"
)

// orderError is an error whose meaning is known where it happens.
type orderError struct {
	failure renewal.Failure
	problem problem
}

func (e *orderError) Error() string { return e.problem.reason }

// isProblem reports whether err is a problem of a type that an ACME server reported.
func isProblem(err error, kind string) bool {
	found, ok := errors.AsType[acme.Problem](err)
	return ok && found.Type == kind
}

// explainFailure says what a failed order means.
func (k *Keeper) explainFailure(e *entry, err error, held time.Time) (renewal.Failure, problem) {
	if known, ok := errors.AsType[*orderError](err); ok {
		return known.failure, known.problem
	}
	host := k.acme.Load().host()
	reported, isReported := errors.AsType[acme.Problem](err)
	switch {
	case !isReported && !held.IsZero():
		return renewal.Unreachable, problem{fmt.Sprintf("%s refuses orders until %s", host, formatDay(held)), "wait: it is tried again by itself"}
	case !isReported:
		return renewal.Unreachable, problem{fmt.Sprintf("%s does not answer: %s", host, cleanText(rootCause(err))),
			"it is tried again by itself; check that this machine reaches the issuer"}
	case reported.Status == 429 || reported.Type == acme.ProblemTypeRateLimited:
		return renewal.Limited, explainLimit(e, host, reported, held)
	case reported.Status >= 500 || reported.Type == acme.ProblemTypeServerInternal || reported.Type == acme.ProblemTypeBadNonce:
		return renewal.Unreachable, problem{fmt.Sprintf("%s fails: %s", host, describeProblem(reported)), "it is tried again by itself"}
	}
	return renewal.Rejected, explainRejection(e, host, reported)
}

func explainLimit(e *entry, host string, reported acme.Problem, held time.Time) problem {
	limited := problem{fmt.Sprintf("%s limits orders: %s", host, describeProblem(reported)), "it is tried again by itself"}
	if !held.IsZero() {
		limited.hint += " at " + formatDay(held)
	}
	if !e.hasDNS() {
		limited.hint += "; one wildcard certificate for all services needs one order: certificate: {type: lets-encrypt, dns: …}"
	}
	return limited
}

func explainRejection(e *entry, host string, reported acme.Problem) problem {
	rejected := problem{fmt.Sprintf("%s rejected %s: %s", host, e.name, describeProblem(reported)), ""}
	switch reported.Type {
	case acme.ProblemTypeExternalAccountRequired:
		rejected.hint = "set DSTACK_ACME_EAB_KID and DSTACK_ACME_EAB_HMAC_KEY to the account there"
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		rejected.hint = "change email: of the certificate"
	case acme.ProblemTypeRejectedIdentifier:
		rejected.hint = "the issuer gives no certificates for this name; use another domain, or certificate: {type: internal}"
	case acme.ProblemTypeCAA:
		rejected.hint = "a CAA record of the domain forbids this issuer; change it"
	default:
		rejected.hint = "check that the name points at the gateway, and that ports 80 and 443 reach it from the internet"
		if e.hasDNS() {
			rejected.hint = "check that the domain's name servers answer for _acme-challenge." + e.domain
		}
	}
	return rejected
}

// describeProblem returns what an ACME server said, with what it said about a part of the order.
func describeProblem(p acme.Problem) string {
	text := p.Detail
	for _, part := range p.Subproblems {
		text = joinReasons(text, part.Detail)
	}
	if text == "" {
		text = p.Type
	}
	return cleanText(text)
}

// rootCause returns the text of the innermost error.
func rootCause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
