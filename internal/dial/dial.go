// Package dial opens TCP connections to endpoints: directly, or through the host
// whose network the endpoint's address belongs to. The gateway, the probes and
// the engines share one Dialer.
package dial

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// keepAlive detects within 35 seconds that a peer is gone without closing the
// connection.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}

// HostDialer connects to an address (host:port) in the network of one host, for
// example through an SSH connection to that host. Several goroutines may call it
// at once. The caller closes the connection.
type HostDialer func(ctx context.Context, address string) (net.Conn, error)

// Dialer connects to endpoints. The zero value reaches endpoints without a host;
// AddHost adds hosts. Several goroutines may call its methods at once.
type Dialer struct {
	mu    sync.RWMutex
	hosts map[string]HostDialer
}

// AddHost sets the HostDialer for the endpoints of a host. Connections that are
// open already are not affected.
func (d *Dialer) AddHost(host string, dial HostDialer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hosts == nil {
		d.hosts = map[string]HostDialer{}
	}
	d.hosts[host] = dial
}

// RemoveHost removes the HostDialer of a host. It does nothing if there is none.
func (d *Dialer) RemoveHost(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.hosts, host)
}

// Dial opens a TCP connection to an endpoint. The error is of kind Unavailable if
// the endpoint has no address, or a host without a HostDialer.
func (d *Dialer) Dial(ctx context.Context, e dstack.Endpoint) (net.Conn, error) {
	if e.Address == "" {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the endpoint has no address yet"}
	}
	if e.Host == "" {
		dialer := net.Dialer{KeepAliveConfig: keepAlive}
		return dialer.DialContext(ctx, "tcp", e.Address)
	}
	d.mu.RLock()
	dial := d.hosts[e.Host]
	d.mu.RUnlock()
	if dial == nil {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("there is no connection to the host %q", e.Host)}
	}
	return dial(ctx, e.Address)
}

// DialContext is Dial for an http.Transport: addr is the host of a URL, as
// URLHost returns it.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.Dial(ctx, decodeURLHost(addr))
}

// hostSuffix marks the URL host of an endpoint with a host.
const hostSuffix = ".endpoint"

// URLHost returns the host of a URL for an endpoint, such that DialContext of a
// Dialer connects to the endpoint. It differs for equal addresses on different
// hosts, so that an http.Transport does not mix up their idle connections. Without
// a host it is the address. Set the Host header of the request explicitly: the
// default is this text, which means nothing to the replica.
func URLHost(e dstack.Endpoint) string {
	if e.Host == "" {
		return e.Address
	}
	name, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		name, port = e.Address, "0"
	}
	return hex.EncodeToString([]byte(e.Host)) + "." + hex.EncodeToString([]byte(name)) + hostSuffix + ":" + port
}

// IsThroughHost reports whether a URL's host, as URLHost returns it, is of an endpoint with a host.
func IsThroughHost(addr string) bool { return decodeURLHost(addr).Host != "" }

// decodeURLHost is the inverse of URLHost.
func decodeURLHost(addr string) dstack.Endpoint {
	plain := dstack.Endpoint{Address: addr}
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return plain
	}
	encoded, ok := strings.CutSuffix(name, hostSuffix)
	if !ok {
		return plain
	}
	first, second, ok := strings.Cut(encoded, ".")
	host, hostErr := hex.DecodeString(first)
	address, addressErr := hex.DecodeString(second)
	if !ok || hostErr != nil || addressErr != nil || len(host) == 0 {
		return plain
	}
	return dstack.Endpoint{Host: string(host), Address: net.JoinHostPort(string(address), port)}
}
