// Package hub reads what a model's repository says of it, from Hugging Face's
// hub or one that speaks like it: its chat template.
package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"dstack/internal/dstack"
)

// DefaultBase is the hub where nothing else is said.
const DefaultBase = "https://huggingface.co"

// The bounds where the options have none.
const (
	defaultPatience = 10 * time.Second
	defaultFresh    = 10 * time.Minute
	defaultEntries  = 256
	maxFetches      = 8 // fetches, each of which may hold tens of megabytes
)

// Options is which hub to ask, and how.
type Options struct {
	Base     string        // the server's own HF_ENDPOINT; empty: DefaultBase
	Dir      string        // the cache's folder, made when absent
	TLS      *tls.Config   // nil: the system's certificate authorities
	Patience time.Duration // for one chat template, all in all; 0: 10 s
	Fresh    time.Duration // how long an answer of the hub is not asked for again; 0: 10 min
	Entries  int           // models in the cache; 0: 256
	Log      *slog.Logger  // nil: slog's default
}

// Client asks one hub. Its methods may be called at any time by anybody.
type Client struct {
	opts       Options
	base       *url.URL // without a slash at its end
	cache      *diskCache
	transport  *http.Transport
	hubIsInner atomic.Bool               // the hub has been reached at an address of no public network
	isInner    func(address string) bool // tells such addresses
	flights    singleflight.Group        // one fetch a model and token
	slots      chan struct{}             // held by the fetches that go on
	ctx        context.Context           // ends when the client closes
	cancel     context.CancelFunc
	closing    sync.RWMutex // held while work begins
	work       sync.WaitGroup
}

// New returns a client of the hub at opts.Base. It asks nothing yet.
func New(opts Options) (*Client, error) {
	if opts.Base == "" {
		opts.Base = DefaultBase
	}
	if opts.Patience <= 0 {
		opts.Patience = defaultPatience
	}
	if opts.Fresh <= 0 {
		opts.Fresh = defaultFresh
	}
	if opts.Entries <= 0 {
		opts.Entries = defaultEntries
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	base, err := parseBase(opts.Base)
	if err != nil {
		return nil, err
	}
	kept, err := openCache(opts.Dir, base.String(), opts.Entries)
	if err != nil {
		return nil, err
	}
	c := &Client{opts: opts, base: base, cache: kept, isInner: isInnerAddress, slots: make(chan struct{}, maxFetches)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.transport = c.newTransport()
	return c, nil
}

// Close ends what is going on, and waits for its end.
func (c *Client) Close() {
	c.closing.Lock()
	c.cancel()
	c.closing.Unlock()
	c.work.Wait()
	c.transport.CloseIdleConnections()
}

// parseBase reads an HF_ENDPOINT. What it refuses is not repeated where it may
// hold a password.
func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &dstack.Error{
			Kind: dstack.Invalid, Message: "cannot ask a model hub: HF_ENDPOINT is not its address",
			Hint: "write it as " + DefaultBase + ", without user, password, query or fragment",
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}, nil
}

// ChatTemplate returns the chat template of main of a model's repository.
//
// The hub is asked as nobody first, and by a token only where that does not
// do: what everybody may read is kept once for all, and no token goes where it
// is not needed. Tokens are tried in their order.
//
// When the hub cannot be reached, the last that it said to one of these tokens
// is the answer, and From says so.
func (c *Client) ChatTemplate(ctx context.Context, model string, tokens []string) (dstack.ChatTemplate, error) {
	if err := checkModel(model); err != nil {
		return dstack.ChatTemplate{}, err
	}
	callers, strange := splitCallers(tokens)
	since := time.Now().Add(-c.opts.Fresh)
	if e, ok := c.cache.findEntry(model, callers, since); ok {
		return e.toTemplate(c.base.Host, false), nil
	}
	limited, cancel := context.WithTimeout(ctx, c.opts.Patience)
	defer cancel()
	e, all := c.askAs(limited, model, callers)
	if all == nil {
		return e.toTemplate(c.base.Host, false), nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return dstack.ChatTemplate{}, context.Cause(ctx)
	}
	if strange && all[len(all)-1].kind.mayHelpOther() {
		all = append(all, &hubError{kind: kindUnknownToken, Cause: errors.New("it has characters that no token has")})
	}
	t := worstError(all)
	if slices.ContainsFunc(all, func(t *hubError) bool { return t.kind.isTemporary() }) { // whom the hub has refused, the cache refuses
		if e, ok := c.cache.findEntry(model, callers, time.Time{}); ok {
			c.opts.Log.Info("a model hub cannot be asked, and the last chat template it gave is used", "model", model, "hub", c.base.Host, "err", t.Cause)
			return e.toTemplate(c.base.Host, true), nil
		}
	}
	return dstack.ChatTemplate{}, query{client: c, model: model}.explainError(t, len(callers) > 1 || strange)
}

// askAs asks as one caller after the other, until one is answered or no other
// would fare better. Without an answer it returns the trouble of each.
func (c *Client) askAs(ctx context.Context, model string, callers []string) (e cacheEntry, all []*hubError) {
	for _, token := range callers {
		e, t := c.fetchShared(ctx, model, token)
		if t != nil && t.kind == kindTimeout && ctx.Err() == nil { // the fetch had begun long before this caller came
			e, t = c.fetchShared(ctx, model, token)
		}
		if t == nil {
			return e, nil
		}
		all = append(all, t)
		if !t.kind.mayHelpOther() {
			break
		}
	}
	return cacheEntry{}, all
}

// fetchShared lets all who ask at once for a model with the same token wait for one
// fetch. It goes on, for as long as its own patience lasts, when they leave.
func (c *Client) fetchShared(ctx context.Context, model, token string) (cacheEntry, *hubError) {
	came := c.flights.DoChan(tokenMark(model, token), func() (any, error) {
		if !c.beginWork() {
			return nil, &hubError{kind: kindUnavailable, Cause: context.Canceled}
		}
		defer c.work.Done()
		ctx, cancel := context.WithTimeout(c.ctx, c.opts.Patience)
		defer cancel()
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return nil, connectionError(ctx, ctx.Err())
		}
		e, t := query{client: c, model: model, token: token}.askAndCache(ctx)
		if t != nil {
			return nil, t
		}
		return e, nil
	})
	select {
	case <-ctx.Done():
		return cacheEntry{}, &hubError{kind: kindTimeout, Cause: ctx.Err()}
	case r := <-came:
		if t, ok := errors.AsType[*hubError](r.Err); ok {
			return cacheEntry{}, t
		}
		return r.Val.(cacheEntry), nil
	}
}

// beginWork tells whether new work may begin, which the caller then ends.
func (c *Client) beginWork() bool {
	c.closing.RLock()
	defer c.closing.RUnlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.work.Add(1)
	return true
}
