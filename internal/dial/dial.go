// Package dial opens connections to replicas and machines: directly, or
// through the machine whose network an endpoint belongs to. The gateway, the
// probes and the engines share one Dialer.
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

// keepAlive finds a peer that vanished without closing within 35 seconds.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}

// HostDialer connects to an address as one machine sees it, for example
// through an SSH connection to that machine. It may be called at any time and
// by many at once; a returned connection belongs to the caller.
type HostDialer func(ctx context.Context, address string) (net.Conn, error)

// Dialer connects to endpoints. The zero value connects to endpoints without
// a host; AddHost adds the others. All methods may be called at once.
type Dialer struct {
	mu    sync.RWMutex
	hosts map[string]HostDialer
}

// AddHost makes the endpoints of a host reachable, or replaces how they are
// reached. Open connections are not affected.
func (d *Dialer) AddHost(host string, dial HostDialer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hosts == nil {
		d.hosts = map[string]HostDialer{}
	}
	d.hosts[host] = dial
}

// RemoveHost makes the endpoints of a host unreachable. An unknown host is
// ignored.
func (d *Dialer) RemoveHost(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.hosts, host)
}

// Dial opens a TCP connection to an endpoint. It fails with kind Unavailable
// when the dialer does not know the endpoint's host, or no address is given.
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

// DialContext is Dial for http.Transport: addr is the host of a URL that
// URLHost made.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.Dial(ctx, parseURLHost(addr))
}

// hostSuffix marks the URL hosts of endpoints that have a host.
const hostSuffix = ".endpoint"

// URLHost returns what stands for an endpoint in a URL, so that an
// http.Transport keeps the connections of equal addresses on different hosts
// apart. Without a host it is the address itself. Requests must set their own
// Host header.
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

// parseURLHost is the inverse of URLHost.
func parseURLHost(addr string) dstack.Endpoint {
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
