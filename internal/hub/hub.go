// Package hub reads the chat templates of models from the Hugging Face Hub or
// a compatible hub.
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

// DefaultBase is the address of the default hub.
const DefaultBase = "https://huggingface.co"

// Defaults of Options, and the limit of concurrent fetches.
const (
	defaultPatience = 10 * time.Second
	defaultFresh    = 10 * time.Minute
	defaultEntries  = 256
	maxFetches      = 8 // each fetch may hold tens of megabytes
)

// Options configure a Client.
type Options struct {
	Base     string        // HF_ENDPOINT of the server; default DefaultBase
	Dir      string        // directory of the cache, created if missing
	TLS      *tls.Config   // nil for the system's certificate authorities
	Proxy    ProxyFunc     // nil for none; http.ProxyFromEnvironment for that of the environment
	Patience time.Duration // timeout of ChatTemplate; default 10 s
	Fresh    time.Duration // how long a cached template needs no request; default 10 min
	Entries  int           // maximum of models in the cache; default 256
	Log      *slog.Logger  // nil for slog.Default
}

// Client reads from one hub. It is safe for concurrent use.
type Client struct {
	opts       Options
	base       *url.URL // without a trailing slash
	cache      *diskCache
	direct     *http.Transport
	proxied    *http.Transport
	hubIsInner atomic.Bool               // a connection to the hub had an inner address
	isInner    func(address string) bool // isInnerAddress; tests replace it
	flights    singleflight.Group        // one fetch per model and token
	slots      chan struct{}             // held by running fetches
	ctx        context.Context           // ends with Close
	cancel     context.CancelFunc
	closing    sync.RWMutex // held by Close and by the start of work
	work       sync.WaitGroup
}

// New returns a client of the hub at opts.Base. It sends no request. The error
// is a *dstack.Error.
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
	cache, err := openCache(opts.Dir, base.String(), opts.Entries)
	if err != nil {
		return nil, err
	}
	c := &Client{opts: opts, base: base, cache: cache, isInner: isInnerAddress, slots: make(chan struct{}, maxFetches)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.direct, c.proxied = c.newDirectTransport(), c.newProxiedTransport()
	return c, nil
}

// Close cancels running requests and waits for their end.
func (c *Client) Close() {
	c.closing.Lock()
	c.cancel()
	c.closing.Unlock()
	c.work.Wait()
	c.direct.CloseIdleConnections()
	c.proxied.CloseIdleConnections()
}

// parseBase parses HF_ENDPOINT. The error does not repeat the value, which may
// contain a password.
func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	valid := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != ""
	if !valid || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &dstack.Error{
			Kind: dstack.Invalid, Message: "cannot use the model hub: HF_ENDPOINT is not a valid address",
			Hint: "write it as " + DefaultBase + ", without user, password, query or fragment",
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}, nil
}

// ChatTemplate returns the chat template of a model, from the main branch of
// its repository.
//
// The client first asks without a token, and then with each token in order
// until one succeeds. So all callers share one cached copy of a public model,
// and no token is sent without need.
//
// When the hub is unavailable, ChatTemplate returns the copy that the hub last
// gave to one of these tokens, and the template's Source says so. The error is
// a *dstack.Error, or the cause of a canceled ctx.
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
		all = append(all, &hubError{kind: kindUnknownToken, Cause: errors.New("it has characters that a token cannot have")})
	}
	failure := worstError(all)
	// The cache no longer returns a copy to a caller that the hub has refused.
	if slices.ContainsFunc(all, func(failure *hubError) bool { return failure.kind.isTemporary() }) {
		if e, ok := c.cache.findEntry(model, callers, time.Time{}); ok {
			c.opts.Log.Info("using a cached chat template, because the model hub is unavailable",
				"model", model, "hub", c.base.Host, "err", failure.Cause)
			return e.toTemplate(c.base.Host, true), nil
		}
	}
	return dstack.ChatTemplate{}, query{client: c, model: model}.explainError(failure, len(callers) > 1 || strange)
}

// askAs asks with one credential after the other until one succeeds or another
// cannot help. Without success it returns the error of each attempt.
func (c *Client) askAs(ctx context.Context, model string, callers []string) (e cacheEntry, all []*hubError) {
	for _, token := range callers {
		e, failure := c.fetchShared(ctx, model, token)
		if failure != nil && failure.kind == kindTimeout && ctx.Err() == nil { // a shared fetch that began before this call
			e, failure = c.fetchShared(ctx, model, token)
		}
		if failure == nil {
			return e, nil
		}
		all = append(all, failure)
		if !failure.kind.mayHelpOther() {
			break
		}
	}
	return cacheEntry{}, all
}

// fetchShared lets concurrent callers with the same model and token share one
// fetch. The fetch has its own timeout and goes on when a caller leaves.
func (c *Client) fetchShared(ctx context.Context, model, token string) (cacheEntry, *hubError) {
	result := c.flights.DoChan(tokenMark(model, token), func() (any, error) {
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
		e, failure := query{client: c, model: model, token: token}.askAndCache(ctx)
		if failure != nil {
			return nil, failure
		}
		return e, nil
	})
	select {
	case <-ctx.Done():
		return cacheEntry{}, &hubError{kind: kindTimeout, Cause: ctx.Err()}
	case r := <-result:
		if failure, ok := errors.AsType[*hubError](r.Err); ok {
			return cacheEntry{}, failure
		}
		return r.Val.(cacheEntry), nil
	}
}

// beginWork registers new work unless the client is closed. The caller must
// call c.work.Done after a true result.
func (c *Client) beginWork() bool {
	c.closing.RLock()
	defer c.closing.RUnlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.work.Add(1)
	return true
}
