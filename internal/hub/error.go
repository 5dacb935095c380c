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

// failureKind sorts the ways in which an attempt fails.
type failureKind int

// The later ones say more, when several tokens have failed.
const (
	kindHidden       failureKind = iota // there is none, or none for this caller: hubs do not tell which
	kindUnknownToken                    // the hub does not know the token
	kindDenied                          // the hub knows the token, and shows nothing
	kindGated                           // only those may read who have accepted the terms
	kindUnusable                        // it was read, and is not usable; nobody else would fare better
	kindBusy                            // too many requests, of this caller
	kindUnavailable                     // no answer, or none of a hub in order
	kindTimeout                         // no answer yet
)

// mayHelpOther tells whether another token may do better.
func (w failureKind) mayHelpOther() bool { return w <= kindGated || w == kindBusy }

// isRefusal tells whether the hub has said that this caller may not read.
func (w failureKind) isRefusal() bool { return w <= kindGated }

// isTemporary tells whether it may do later.
func (w failureKind) isTemporary() bool { return w >= kindBusy }

// hubError is why an attempt failed. Cause never holds an address, which may
// be signed, nor a token.
type hubError struct {
	kind      failureKind
	userError *dstack.Error // of content: the whole of it
	reason    string        // of away: what the hub did; empty: it was not reached
	Cause     error
}

func (t *hubError) Error() string { return fmt.Sprintf("trouble %d: %s %v", t.kind, t.reason, t.Cause) }

// worstError is the trouble to tell of those that nobody, the first, and then each
// token had.
func worstError(all []*hubError) *hubError {
	if len(all) > 1 {
		all = all[1:] // nobody can read more than somebody
	}
	return slices.MaxFunc(all, func(a, b *hubError) int { return cmp.Compare(a.kind, b.kind) })
}

// connectionError is the trouble of a request that brought no whole answer.
func connectionError(ctx context.Context, err error) *hubError {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	limit, ok := errors.AsType[net.Error](err)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || ok && limit.Timeout() {
		return &hubError{kind: kindTimeout, Cause: err}
	}
	return &hubError{kind: kindUnavailable, Cause: err}
}

// statusError is the trouble that an answer's status and X-Error-Code mean.
func statusError(status int, header http.Header, token string) *hubError {
	code := header.Get("X-Error-Code")
	t := &hubError{kind: kindUnavailable, reason: fmt.Sprintf("answered with status %d", status),
		Cause: fmt.Errorf("status %d, code %.40q, %.200q", status, code, header.Get("X-Error-Message"))}
	switch {
	case status == http.StatusTooManyRequests:
		t.kind = kindBusy
	case code == "GatedRepo":
		t.kind = kindGated
	case code == "RepoNotFound" || status == http.StatusNotFound || status == http.StatusGone:
		t.kind = kindHidden
	case status == http.StatusUnauthorized && token != "":
		t.kind = kindUnknownToken
	case status == http.StatusUnauthorized: // also where there is no such model
		t.kind = kindHidden
	case status == http.StatusForbidden:
		t.kind = kindDenied
	}
	return t
}

// explainError makes a trouble an error for the people who run the model.
func (a query) explainError(t *hubError, withToken bool) error {
	if t.userError != nil {
		return t.userError
	}
	e := a.temporaryMessage(t)
	if t.kind.isRefusal() {
		e = a.refusalMessage(t.kind, withToken)
	}
	e.Message = fmt.Sprintf("cannot read the chat template of %s: %s", a.model, e.Message)
	e.Hint += ", or set model.chat_template"
	e.Cause = t.Cause
	return &e
}

// refusalMessage say why the hub gives nothing, and what helps.
func (a query) refusalMessage(w failureKind, withToken bool) dstack.Error {
	host := a.client.base.Host
	page := a.client.base.String() + "/" + a.model
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
		return dstack.Error{Kind: dstack.Forbidden, Message: host + " does not show it", Hint: fmt.Sprintf("see %s for the reason", page)}
	case withToken:
		return dstack.Error{Kind: dstack.NotFound, Message: "there is no such model on " + host + ", or the token in env may not see it",
			Hint: "check the model's name, give the HF_TOKEN of somebody who sees it"}
	default:
		return dstack.Error{Kind: dstack.NotFound, Message: "there is no such model on " + host + ", or it is private",
			Hint: "check the model's name; for a private model give HF_TOKEN in env"}
	}
}

// temporaryMessage say why there was no answer.
func (a query) temporaryMessage(t *hubError) dstack.Error {
	host := a.client.base.Host
	const another = "try again, let the server's HF_ENDPOINT name a hub that it reaches"
	switch t.kind {
	case kindBusy:
		return dstack.Error{Kind: dstack.Unavailable, Message: host + " has had too many requests from here",
			Hint: "try again in some minutes, give HF_TOKEN in env"}
	case kindTimeout:
		return dstack.Error{Kind: dstack.Timeout, Hint: another,
			Message: fmt.Sprintf("%s has not answered in time, which is at most %v", host, a.client.opts.Patience)}
	default:
		return dstack.Error{Kind: dstack.Unavailable, Message: host + " " + cmp.Or(t.reason, "cannot be reached"), Hint: another}
	}
}
