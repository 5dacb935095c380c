package podpath

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/decide/traffic"
	"dstack/internal/loop"
)

// podConn is an open connection to a pod.
type podConn struct {
	net.Conn
	path    *Path
	uid     types.UID // empty: the pod is not known
	address netip.Addr
	way     traffic.Way
	forget  func()
}

// track returns a connection that closeGone closes when its pod is gone.
func (p *Path) track(conn net.Conn, d podDial, way traffic.Way) net.Conn {
	tracked := &podConn{Conn: conn, path: p, address: d.address, way: way}
	tracked.forget = sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, tracked)
		delete(p.goneSince, tracked)
	})
	if d.pod != nil {
		tracked.uid = d.pod.uid
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[tracked] = struct{}{}
	return tracked
}

// Close closes the connection.
func (c *podConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// CloseWrite ends the stream to the pod, where the way can do so. Through the API server, the pod does not see it.
func (c *podConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

const (
	// goneGrace is for what has arrived already from a pod that is gone.
	goneGrace = 2 * time.Second
	// goneInterval is how often connections are compared with the pods although nothing changed.
	goneInterval = time.Minute
)

// closeGone closes the connections to pods that are gone. They do not end by themselves: neither does a forwarder notice the end of its
// pod, nor does an address refuse that no pod has.
func (p *Path) closeGone(ctx context.Context) error {
	for {
		changed := p.options.Pods.Changed()
		wait := p.closeConnsOfGone(time.Now())
		if err := loop.SleepUntil(ctx, wait, changed); err != nil {
			return err
		}
	}
}

// closeConnsOfGone closes the connections whose pod has been gone for goneGrace. It returns when to look again.
func (p *Path) closeConnsOfGone(now time.Time) (wait time.Duration) {
	wait = goneInterval
	var toClose []*podConn
	p.mu.Lock()
	index := p.readIndex()
	live := map[types.UID]*podFacts{}
	for _, pod := range index.byAddress {
		live[pod.uid] = pod
	}
	for conn := range p.conns {
		if conn.uid == "" || isAlive(conn, index.byAddress[conn.address], live[conn.uid]) {
			delete(p.goneSince, conn)
			continue
		}
		since, isKnown := p.goneSince[conn]
		switch {
		case !isKnown:
			p.goneSince[conn] = now
			wait = min(wait, goneGrace)
		case now.Sub(since) >= goneGrace:
			toClose = append(toClose, conn)
		default:
			wait = min(wait, goneGrace-now.Sub(since))
		}
	}
	for uid := range p.failures {
		if live[uid] == nil {
			delete(p.failures, uid)
		}
	}
	p.services.keep(live)
	p.mu.Unlock()
	for _, conn := range toClose {
		_ = conn.Close() // the pod is gone
	}
	return wait
}

// isAlive reports whether a connection leads to its pod. A pod may have got another address, when its node came back. The node of a lost
// pod may serve on, and a connection to its address notices when it does not; one through the API server does not notice.
func isAlive(conn *podConn, atAddress, pod *podFacts) bool {
	switch {
	case pod == nil:
		return false
	case conn.way == traffic.PortForward:
		return !pod.isLost
	default:
		return atAddress != nil && atAddress.uid == conn.uid
	}
}
