package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"

	"dstack/internal/dstack"
)

// failureKind classifies failed attempts.
type failureKind int

// After several tokens have failed, the error with the highest kind is
// returned.
const (
	kindHidden       failureKind = iota // no such model, or not for this caller; hubs do not tell the difference
	kindUnknownToken                    // the hub rejects the token
	kindDenied                          // the hub accepts the token but not the access
	kindGated                           // readers must accept the model's terms first
	kindUnusable                        // the files were read but have no usable template
	kindBusy                            // too many requests of this caller
	kindUnavailable                     // no response, or not one of a working hub
	kindTimeout                         // no response in time
)

// mayHelpOther reports whether another token may succeed.
func (w failureKind) mayHelpOther() bool { return w <= kindGated || w == kindBusy }

// isRefusal reports whether the hub has denied access to this caller.
func (w failureKind) isRefusal() bool { return w <= kindGated }

// isTemporary reports whether a later attempt may succeed.
func (w failureKind) isTemporary() bool { return w >= kindBusy }

// hubError is the error of an attempt. Cause contains neither a token nor a
// URL, which may be signed.
type hubError struct {
	kind      failureKind
	userError *dstack.Error // the complete error, for kindUnusable
	reason    string        // what the hub did, for kindUnavailable; empty if it was not reached
	Cause     error
}

func (failure *hubError) Error() string {
	return fmt.Sprintf("hub failure %d: %s %v", failure.kind, failure.reason, failure.Cause)
}

// worstError selects the error to return from those of the anonymous attempt
// and of each token.
func worstError(all []*hubError) *hubError {
	if len(all) > 1 {
		all = all[1:] // a token can read whatever an anonymous caller can
	}
	return slices.MaxFunc(all, func(a, b *hubError) int { return cmp.Compare(a.kind, b.kind) })
}

// connectionError returns the error for a request without a complete response.
func connectionError(ctx context.Context, err error) *hubError {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	limit, ok := errors.AsType[net.Error](err)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || ok && limit.Timeout() {
		return &hubError{kind: kindTimeout, Cause: err}
	}
	failure := &hubError{kind: kindUnavailable, Cause: err}
	if proxied, ok := errors.AsType[*proxyError](err); ok {
		failure.reason = "cannot be reached through the proxy " + proxied.proxy
	}
	if errors.Is(err, errInvalidProxy) {
		failure.reason = "cannot be reached: " + err.Error()
	}
	return failure
}

// statusError returns the error for a status and its X-Error-Code.
func statusError(status int, header http.Header, token string) *hubError {
	code := header.Get("X-Error-Code")
	failure := &hubError{kind: kindUnavailable, reason: fmt.Sprintf("responded with status %d", status),
		Cause: fmt.Errorf("status %d, code %.40q, %.200q", status, code, header.Get("X-Error-Message"))}
	switch {
	case status == http.StatusTooManyRequests:
		failure.kind = kindBusy
	case code == "GatedRepo":
		failure.kind = kindGated
	case code == "RepoNotFound" || status == http.StatusNotFound || status == http.StatusGone:
		failure.kind = kindHidden
	case status == http.StatusUnauthorized && token != "":
		failure.kind = kindUnknownToken
	case status == http.StatusUnauthorized: // the hub's answer for a missing model, too
		failure.kind = kindHidden
	case status == http.StatusForbidden:
		failure.kind = kindDenied
	}
	return failure
}

// explainError returns the error for the people who run the model.
func (q query) explainError(failure *hubError, withToken bool) error {
	if failure.userError != nil {
		return failure.userError
	}
	e := q.temporaryMessage(failure)
	if failure.kind.isRefusal() {
		e = q.refusalMessage(failure.kind, withToken)
	}
	e.Message = fmt.Sprintf("cannot read the chat template of %s: %s", q.model, e.Message)
	e.Hint += ", or set model.chat_template"
	e.Cause = failure.Cause
	return &e
}

// refusalMessage says why the hub denies access, and what helps.
func (q query) refusalMessage(w failureKind, withToken bool) dstack.Error {
	host := q.client.base.Host
	page := q.client.base.String() + "/" + q.model
	switch {
	case w == kindGated && withToken:
		return dstack.Error{Kind: dstack.Forbidden, Message: "it is gated, and the token in env has no access to it on " + host,
			Hint: fmt.Sprintf("ask for access at %s with the token's account, or give another HF_TOKEN in env", page)}
	case w == kindGated:
		return dstack.Error{Kind: dstack.Forbidden, Message: "it is gated on " + host + ", and there is no token in env",
			Hint: fmt.Sprintf("accept its terms at %s and give HF_TOKEN in env", page)}
	case w == kindUnknownToken:
		return dstack.Error{Kind: dstack.Invalid, Message: host + " does not accept the token in env",
			Hint: "give a valid HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) in env"}
	case w == kindDenied:
		return dstack.Error{Kind: dstack.Forbidden, Message: host + " denies access to it", Hint: fmt.Sprintf("see %s for the reason", page)}
	case withToken:
		return dstack.Error{Kind: dstack.NotFound, Message: "there is no such model on " + host + ", or the token in env may not see it",
			Hint: "check the model's name, give an HF_TOKEN with access"}
	default:
		return dstack.Error{Kind: dstack.NotFound, Message: "there is no such model on " + host + ", or it is private",
			Hint: "check the model's name; for a private model give HF_TOKEN in env"}
	}
}

// temporaryMessage says why there is no response.
func (q query) temporaryMessage(failure *hubError) dstack.Error {
	host := q.client.base.Host
	const another = "try again, set HF_ENDPOINT of the server to a hub that it can reach"
	switch failure.kind {
	case kindBusy:
		return dstack.Error{Kind: dstack.Unavailable, Message: host + " has received too many requests from this server",
			Hint: "try again in some minutes, give HF_TOKEN in env"}
	case kindTimeout:
		return dstack.Error{Kind: dstack.Timeout, Hint: another,
			Message: fmt.Sprintf("%s did not respond in time (limit %v)", host, q.client.opts.Patience)}
	default:
		return dstack.Error{Kind: dstack.Unavailable, Message: host + " " + cmp.Or(failure.reason, "cannot be reached"), Hint: another}
	}
}
