package hub

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const maxRedirects = 5

var errTooLarge = errors.New("larger than the limit")

// response is the result of a request. Only status 200 has a body.
type response struct {
	status int
	header http.Header
	body   []byte
}

// fetchPage reads a page below the hub's address and follows its redirects. It
// sends the token to the hub only, and no longer after a redirect to another
// host.
func (c *Client) fetchPage(ctx context.Context, path, token string, limit int64) (response, error) {
	at := c.base.JoinPath(path)
	for range maxRedirects + 1 {
		if !isSameHost(at, c.base) {
			token = ""
		}
		a, next, err := c.fetchOnce(ctx, at, token, limit)
		if err != nil || next == nil {
			return a, err
		}
		at = next
	}
	return response{}, errors.New("the hub redirects more than 5 times")
}

func (c *Client) fetchOnce(ctx context.Context, at *url.URL, token string, limit int64) (a response, next *url.URL, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return response{}, nil, err
	}
	r.Header.Set("User-Agent", "dstack")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.send(r)
	if err != nil {
		return response{}, nil, err
	}
	defer resp.Body.Close()
	a = response{status: resp.StatusCode, header: resp.Header}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		next, err = c.resolveRedirect(at, resp.Header.Get("Location"))
	case http.StatusOK:
		a.body, err = readLimited(resp, limit)
		return a, nil, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // lets the transport reuse the connection
	return a, next, err
}

// resolveRedirect returns the target of a redirect, or an error if the client
// must not follow it.
func (c *Client) resolveRedirect(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil || location == "" {
		return nil, errors.New("the hub redirects to no address")
	}
	safe := to.Scheme == "https" || to.Scheme == "http" && c.base.Scheme == "http"
	if !safe || to.User != nil || to.Hostname() == "" {
		return nil, errors.New("the hub redirects to an unsafe address")
	}
	to.Host, to.Fragment = strings.ToLower(to.Host), ""
	return to, nil
}

func readLimited(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		return nil, errTooLarge
	}
	return body, err
}
