package kubeclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/streaming/pkg/httpstream"
)

// streamKind is how a stream to a pod is upgraded.
type streamKind int

const (
	webSocket streamKind = iota // what API servers since v1.31 speak, and what passes proxies
	spdy                        // what all API servers speak
)

// webSocketRetry is for how long WebSockets are not tried after a proxy on the way refused them.
const webSocketRetry = 10 * time.Minute

// streamChoice remembers that WebSockets do not get through.
type streamChoice struct {
	mu      sync.Mutex
	refused time.Time
}

func (s *streamChoice) prefer(now time.Time) streamKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refused.IsZero() && now.Sub(s.refused) < webSocketRetry {
		return spdy
	}
	return webSocket
}

func (s *streamChoice) noteRefusal(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = now
}

// openStream calls open with a URL, for a WebSocket first. If the upgrade is refused, it asks the API server without one: a
// refusal of what was asked for, such as a missing right, is the error; otherwise something on the way does not let
// WebSockets through, and open is called again for SPDY.
func (c *Client) openStream(ctx context.Context, path string, query url.Values, open func(*url.URL, streamKind) error) error {
	kind := c.streams.prefer(time.Now())
	err := c.tryStream(ctx, path, query, open, kind)
	if kind == spdy || !isUpgradeFailure(err) || MeaningOf(c.newError(err, request{})) == ContainerWaits {
		return err
	}
	c.streams.noteRefusal(time.Now())
	return c.tryStream(ctx, path, query, open, spdy)
}

// tryStream opens a stream of one kind. Its error is an upgrade failure only if nothing else is wrong.
func (c *Client) tryStream(ctx context.Context, path string, query url.Values, open func(*url.URL, streamKind) error, kind streamKind) error {
	err := open(c.newURL(path, query), kind)
	if !isUpgradeFailure(err) {
		return err
	}
	if refusal := c.explainRefusal(ctx, path, query, kind); refusal != nil {
		return refusal
	}
	return err
}

// isUpgradeFailure reports whether the server did not switch protocols. For SPDY there is only a text.
func isUpgradeFailure(err error) bool {
	return err != nil && (httpstream.IsUpgradeFailure(err) || strings.Contains(err.Error(), "unable to upgrade connection"))
}

// explainRefusal asks for a stream without an upgrade, by the same method, and returns why it is refused; nil if only the
// upgrade is missing.
func (c *Client) explainRefusal(ctx context.Context, path string, query url.Values, kind streamKind) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	method := http.MethodGet
	if kind == spdy {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, c.newURL(path, query).String(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if resp.StatusCode == http.StatusOK || isUpgradeRequired(resp.StatusCode, body) {
		return nil
	}
	return newStatusError(resp.StatusCode, body)
}

// isUpgradeRequired reports whether the API server or the kubelet would have served the stream.
func isUpgradeRequired(code int, body []byte) bool {
	if code == http.StatusUpgradeRequired {
		return true
	}
	var refused *apierrors.StatusError
	return errors.As(newStatusError(code, body), &refused) && code == http.StatusBadRequest &&
		containsAny(refused.ErrStatus.Message, "pgrade", "you must specify at least 1")
}
