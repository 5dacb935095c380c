package gateway

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
)

// replicaIdleTimeout is how long a connection to a replica is kept. It is less
// than what common servers wait before they close theirs (2s and 5s), so that a
// request rarely meets a connection that is being closed.
const replicaIdleTimeout = 1500 * time.Millisecond

// continueTimeout is how long the gateway waits for a replica to ask for a body
// that the client holds back (Expect: 100-continue), before it sends the body
// anyway. Many servers never ask. The rest ask or refuse at once.
const continueTimeout = 100 * time.Millisecond

// dialError says that no connection was established, so nothing was sent.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// isDialError reports whether a replica got nothing of a request. A connection through the API server of a cluster is opened before the
// pod is connected to, and the refusal of the pod's port comes with the first Read.
func isDialError(err error) bool {
	_, ok := errors.AsType[*dialError](err)
	return ok || errors.Is(err, syscall.ECONNREFUSED)
}

func newTransport(l Limits, dialer *replicaDialer) *http.Transport {
	return &http.Transport{
		Proxy: nil, // no proxy of the environment stands between the gateway and replicas
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return dialer.dial(ctx, address)
		},
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        replicaIdleTimeout,
		DisableCompression:     true,
		ResponseHeaderTimeout:  l.ResponseTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// newReplicaRequest makes a request of the gateway's own to the replica that
// serves p. Its Host header is the replica's address, which is not always what
// its URL has.
func (p *proxyRequest) newReplicaRequest(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	return newEndpointRequest(ctx, p.replica().target.Endpoint, method, path, body)
}

func newEndpointRequest(ctx context.Context, endpoint dstack.Endpoint, method, path string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+dial.URLHost(endpoint)+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = endpoint.Address
	return req, nil
}
