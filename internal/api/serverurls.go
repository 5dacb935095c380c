package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// Bounds of a client that knows several servers: it goes on with another one when one does not answer.
const (
	checkTimeout   = 2 * time.Second  // for the answer to the question whether a server runs
	trustTime      = 3 * time.Second  // after an answer, a server is not asked whether it runs
	sharedTimeout  = 15 * time.Second // of a call that only reads
	sharedPollWait = 5 * time.Second  // pollWait
	maxSilence     = 12 * time.Second // of a stream; servers send something every streamKeepAlive
)

// StreamKeepAlive is how often servers send an empty line in a stream of output.
const StreamKeepAlive = 4 * time.Second

// serverURLs are the URLs of the servers that share a database; any of them answers. Clients with other settings share them.
type serverURLs struct {
	all []*url.URL

	mu         sync.Mutex
	current    int
	answeredAt time.Time // by the current one
}

// SplitURLs returns the URLs in a text: several servers are separated by commas.
func SplitURLs(text string) []string {
	return slices.DeleteFunc(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }), func(s string) bool { return s == "" })
}

// JoinURLs is the opposite of SplitURLs.
func JoinURLs(urls ...string) string { return strings.Join(urls, ",") }

func parseServerURLs(text string) (*serverURLs, error) {
	found := &serverURLs{}
	texts := SplitURLs(text)
	if len(texts) == 0 {
		texts = []string{text}
	}
	for _, one := range texts {
		base, err := parseServerURL(one)
		if err != nil {
			return nil, err
		}
		found.all = append(found.all, base)
	}
	return found, nil
}

func parseServerURL(text string) (*url.URL, error) {
	base, err := url.Parse(strings.TrimRight(text, "/"))
	if err == nil && base.Port() != "" {
		_, err = strconv.ParseUint(base.Port(), 10, 16)
	}
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("%q is not the URL of a dstack server", text),
			Hint:    "write a URL such as http://127.0.0.1:3000"}
	}
	return base, nil
}

// isShared reports whether there are several servers.
func (u *serverURLs) isShared() bool { return len(u.all) > 1 }

// base returns the URL of the server that is used now.
func (c *Client) base() *url.URL {
	c.urls.mu.Lock()
	defer c.urls.mu.Unlock()
	return c.urls.all[c.urls.current]
}

// noteAnswer records that a server has answered.
func (u *serverURLs) noteAnswer(base *url.URL) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all[u.current] == base {
		u.answeredAt = time.Now()
	}
}

// noteFailure makes the next server the current one, if a server that did not answer is it.
func (u *serverURLs) noteFailure(base *url.URL) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all[u.current] == base {
		u.current, u.answeredAt = (u.current+1)%len(u.all), time.Time{}
	}
}

func (u *serverURLs) isTrusted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.isShared() || time.Since(u.answeredAt) < trustTime
}

// chooseServer makes a server that runs the current one. A frozen server accepts connections and does not answer, so each is
// asked first: a call that changes something is sent only once.
func (c *Client) chooseServer(ctx context.Context) error {
	if c.urls.isTrusted() {
		return nil
	}
	var first error
	for range c.urls.all {
		base := c.base()
		err := c.checkServer(ctx, base)
		if err == nil {
			c.urls.noteAnswer(base)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if first == nil {
			first = err
		}
		c.urls.noteFailure(base)
	}
	return c.unreachableError(ctx, first)
}

func (c *Client) checkServer(ctx context.Context, base *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+"/healthcheck", nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

// isNotSent reports whether a call failed before anything was sent.
func isNotSent(err error) bool {
	failure, ok := errors.AsType[*net.OpError](err)
	return ok && failure.Op == "dial"
}

// describeServers names the server or the servers for people.
func (c *Client) describeServers() string {
	if !c.urls.isShared() {
		return "the dstack server at " + c.base().String()
	}
	texts := make([]string, 0, len(c.urls.all))
	for _, u := range c.urls.all {
		texts = append(texts, u.String())
	}
	return "any of the dstack servers at " + strings.Join(texts, ", ")
}

// lostError returns the error of a call that one of several servers did not complete.
func (c *Client) lostError(ctx context.Context, base *url.URL, err error) error {
	if !c.urls.isShared() || ctx.Err() != nil {
		return c.unreachableError(ctx, err)
	}
	c.urls.noteFailure(base)
	return &dstack.Error{Kind: dstack.Unavailable, Cause: noResponseError{err}, Hint: otherwiseHint,
		Message: fmt.Sprintf("the dstack server at %s does not answer any more", base)}
}
