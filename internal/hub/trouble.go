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

// what sorts the ways in which an attempt fails.
type what int

// The later ones say more, when several tokens have failed.
const (
	hidden  what = iota // there is none, or none for this caller: hubs do not tell which
	unknown             // the hub does not know the token
	denied              // the hub knows the token, and shows nothing
	gated               // only those may read who have accepted the terms
	content             // it was read, and is not usable; nobody else would fare better
	busy                // too many requests, of this caller
	away                // no answer, or none of a hub in order
	slow                // no answer yet
)

// anotherMay tells whether another token may do better.
func (w what) anotherMay() bool { return w <= gated || w == busy }

// refuses tells whether the hub has said that this caller may not read.
func (w what) refuses() bool { return w <= gated }

// passes tells whether it may do later.
func (w what) passes() bool { return w >= busy }

// trouble is why an attempt failed. Cause never holds an address, which may
// be signed, nor a token.
type trouble struct {
	what  what
	told  *dstack.Error // of content: the whole of it
	why   string        // of away: what the hub did; empty: it was not reached
	Cause error
}

func (t *trouble) Error() string { return fmt.Sprintf("trouble %d: %s %v", t.what, t.why, t.Cause) }

// worst is the trouble to tell of those that nobody, the first, and then each
// token had.
func worst(all []*trouble) *trouble {
	if len(all) > 1 {
		all = all[1:] // nobody can read more than somebody
	}
	return slices.MaxFunc(all, func(a, b *trouble) int { return cmp.Compare(a.what, b.what) })
}

// unreached is the trouble of a request that brought no whole answer.
func unreached(ctx context.Context, err error) *trouble {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	limit, ok := errors.AsType[net.Error](err)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || ok && limit.Timeout() {
		return &trouble{what: slow, Cause: err}
	}
	return &trouble{what: away, Cause: err}
}

// refusal is the trouble that an answer's status and X-Error-Code mean.
func refusal(status int, header http.Header, token string) *trouble {
	code := header.Get("X-Error-Code")
	t := &trouble{what: away, why: fmt.Sprintf("answered with status %d", status),
		Cause: fmt.Errorf("status %d, code %.40q, %.200q", status, code, header.Get("X-Error-Message"))}
	switch {
	case status == http.StatusTooManyRequests:
		t.what = busy
	case code == "GatedRepo":
		t.what = gated
	case code == "RepoNotFound" || status == http.StatusNotFound || status == http.StatusGone:
		t.what = hidden
	case status == http.StatusUnauthorized && token != "":
		t.what = unknown
	case status == http.StatusUnauthorized: // also where there is no such model
		t.what = hidden
	case status == http.StatusForbidden:
		t.what = denied
	}
	return t
}

// explain makes a trouble an error for the people who run the model.
func (a asking) explain(t *trouble, withToken bool) error {
	if t.told != nil {
		return t.told
	}
	e := a.laterWords(t)
	if t.what.refuses() {
		e = a.refusalWords(t.what, withToken)
	}
	e.Message = fmt.Sprintf("cannot read the chat template of %s: %s", a.model, e.Message)
	e.Hint += ", or set model.chat_template"
	e.Cause = t.Cause
	return &e
}

// refusalWords say why the hub gives nothing, and what helps.
func (a asking) refusalWords(w what, withToken bool) dstack.Error {
	host := a.client.base.Host
	page := a.client.base.String() + "/" + a.model
	switch {
	case w == gated && withToken:
		return dstack.Error{Kind: dstack.Forbidden, Message: "it is gated, and the token in env has no access to it on " + host,
			Hint: fmt.Sprintf("ask for access at %s with the token's account, or give another HF_TOKEN in env", page)}
	case w == gated:
		return dstack.Error{Kind: dstack.Forbidden, Message: "it is gated on " + host + ", and there is no token in env",
			Hint: fmt.Sprintf("accept its terms at %s and give HF_TOKEN in env", page)}
	case w == unknown:
		return dstack.Error{Kind: dstack.Invalid, Message: host + " does not accept the token in env",
			Hint: "give a valid HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) in env"}
	case w == denied:
		return dstack.Error{Kind: dstack.Forbidden, Message: host + " does not show it", Hint: fmt.Sprintf("see %s for the reason", page)}
	case withToken:
		return dstack.Error{Kind: dstack.NotFound, Message: "there is no such model on " + host + ", or the token in env may not see it",
			Hint: "check the model's name, give the HF_TOKEN of somebody who sees it"}
	default:
		return dstack.Error{Kind: dstack.NotFound, Message: "there is no such model on " + host + ", or it is private",
			Hint: "check the model's name; for a private model give HF_TOKEN in env"}
	}
}

// laterWords say why there was no answer.
func (a asking) laterWords(t *trouble) dstack.Error {
	host := a.client.base.Host
	const another = "try again, let the server's HF_ENDPOINT name a hub that it reaches"
	switch t.what {
	case busy:
		return dstack.Error{Kind: dstack.Unavailable, Message: host + " has had too many requests from here",
			Hint: "try again in some minutes, give HF_TOKEN in env"}
	case slow:
		return dstack.Error{Kind: dstack.Timeout, Hint: another,
			Message: fmt.Sprintf("%s has not answered in time, which is at most %v", host, a.client.opts.Patience)}
	default:
		return dstack.Error{Kind: dstack.Unavailable, Message: host + " " + cmp.Or(t.why, "cannot be reached"), Hint: another}
	}
}
