package kubeclient

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiportforward "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/tools/portforward"
	spdytransport "k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"dstack/internal/dstack"
)

// DialPod opens a connection to a TCP port of a pod through the API server: one upgraded connection for each, so that a slow
// reader or a refused port disturbs no other. ctx limits the opening. A port without a listener fails at the first Read, not
// here. The connection has no CloseWrite: the end of what is sent would not reach the pod. A deadline that passes ends it.
func (c *Client) DialPod(ctx context.Context, pod string, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("a pod has no port %d", port)}
	}
	var conn net.Conn
	err := c.openStream(ctx, c.podPath(pod, "portforward"), nil, func(u *url.URL, kind streamKind) error {
		carrier, err := c.openCarrier(ctx, u, kind)
		if err != nil {
			return err
		}
		conn, err = newPodConn(ctx, carrier, podAddr{c.namespace + "/" + pod, port})
		return err
	})
	if err != nil {
		return nil, c.newError(err, request{verb: "connect to", word: Pods.Word, name: pod, needs: "pods/portforward"})
	}
	return conn, nil
}

// openCarrier opens the connection that carries the streams of a port.
func (c *Client) openCarrier(ctx context.Context, u *url.URL, kind streamKind) (httpstream.Connection, error) {
	if kind == webSocket {
		return c.openWebSocket(ctx, u)
	}
	return c.openSPDY(ctx, u)
}

func (c *Client) openWebSocket(ctx context.Context, u *url.URL) (httpstream.Connection, error) {
	transport, holder, err := websocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	conn, err := websocket.Negotiate(transport, holder, req, apiportforward.WebsocketsSPDYTunnelingPortForwardV1)
	if err != nil {
		return nil, err
	}
	return streamspdy.NewClientConnectionWithPings(portforward.NewTunnelingConnection("client", conn), portforward.PingPeriod)
}

func (c *Client) openSPDY(ctx context.Context, u *url.URL) (httpstream.Connection, error) {
	transport, upgrader, err := spdytransport.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	carrier, _, err := spdytransport.NegotiateStreaming(upgrader, &http.Client{Transport: transport}, req, portforward.PortForwardProtocolV1Name)
	return carrier, err
}

// openStreams opens the two streams of a connection to a port. Nothing is written to that for errors.
func openStreams(carrier httpstream.Connection, port int) (data, failures httpstream.Stream, err error) {
	header := http.Header{}
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	header.Set(corev1.PortHeader, strconv.Itoa(port))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	if failures, err = carrier.CreateStream(header); err != nil {
		return nil, nil, err
	}
	if err = failures.Close(); err != nil {
		return nil, nil, err
	}
	header.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err = carrier.CreateStream(header)
	return data, failures, err
}
