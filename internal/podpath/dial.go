package podpath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
)

const (
	// directTimeout limits a connection to the address of a pod. A pod that is gone neither refuses nor answers.
	directTimeout = 1500 * time.Millisecond
	// otherDelay is how long the address of a pod may take before the API server is asked beside it.
	otherDelay = 300 * time.Millisecond
	// forwardTimeout limits a connection through the API server.
	forwardTimeout = 4 * time.Second
)

// Dial connects to host:port, where host is the address of a pod. It is a dial.HostDialer. The error of a port without a
// listener is ECONNREFUSED; through the API server it comes with the first Read.
func (p *Path) Dial(ctx context.Context, address string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(host)
	port, portErr := strconv.Atoi(portText)
	if err != nil || portErr != nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is no address of a pod", address)}
	}
	pod, err := p.findPod(ctx, ip)
	if err != nil {
		return nil, err
	}
	choice := p.choose(pod, ip, time.Now())
	d := podDial{path: p, pod: pod, address: ip, port: port}
	if choice.Other != "" && pod != nil {
		return d.dialEither(ctx, choice)
	}
	return d.dialBy(ctx, choice.Way)
}

// podDial is one connection that is being opened.
type podDial struct {
	path    *Path
	pod     *podFacts // nil: the pods were never listed
	address netip.Addr
	port    int
}

// dialBy connects by one way.
func (d podDial) dialBy(ctx context.Context, way traffic.Way) (net.Conn, error) {
	if d.pod == nil && way != traffic.Direct {
		return nil, &dstack.Error{Kind: dstack.Unavailable,
			Message: fmt.Sprintf("the pods of the cluster %q are not known yet: its API server has not answered since the start", d.path.options.Cluster)}
	}
	var conn net.Conn
	var err error
	switch way {
	case traffic.Direct:
		conn, err = dialAddress(ctx, netip.AddrPortFrom(d.address, uint16(d.port)).String())
	case traffic.PortForward:
		limited, cancel := context.WithTimeout(ctx, forwardTimeout)
		defer cancel()
		if conn, err = d.path.options.Forwarder.DialPod(limited, d.pod.name, d.port); err == nil {
			conn = newForwardedConn(conn)
		}
	case traffic.NodePort, traffic.LoadBalancer:
		conn, err = d.path.services.dial(ctx, d.pod, d.port, way)
	default:
		err = &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("there is no way %q to the pods of a cluster", way)}
	}
	if err != nil {
		return nil, err
	}
	return d.path.track(conn, d, way), nil
}

// dialAddress connects to an address at once or not at all.
func dialAddress(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: directTimeout, KeepAliveConfig: keepAlive, Control: limitUnacknowledged}
	return dialer.DialContext(ctx, "tcp", address)
}

// keepAlive detects within 35 seconds that an idle connection leads nowhere.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}

// dialResult is what one of two ways led to.
type dialResult struct {
	way  traffic.Way
	conn net.Conn
	err  error
}

// dialEither connects by choice.Way, and by choice.Other too once that has failed or taken long. A port that refuses is the pod's
// answer by both ways.
func (d podDial) dialEither(ctx context.Context, choice traffic.Choice) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan dialResult, 2)
	var dials sync.WaitGroup
	begin := func(way traffic.Way) {
		dials.Go(func() {
			conn, err := d.dialBy(ctx, way)
			results <- dialResult{way, conn, err}
		})
	}
	defer func() { // what the slower way still opens is closed
		cancel()
		dials.Wait()
		for len(results) > 0 {
			if late := <-results; late.conn != nil {
				_ = late.conn.Close()
			}
		}
	}()
	begin(choice.Way)
	delay := time.NewTimer(otherDelay)
	defer delay.Stop()
	isOtherBegun, pending := false, 1
	var firstErr error
	for {
		select {
		case <-delay.C:
		case r := <-results:
			pending--
			switch {
			case r.err == nil && r.way == choice.Other:
				d.path.markDirectFailed(d.pod, time.Now())
				return r.conn, nil
			case r.err == nil:
				return r.conn, nil
			case errors.Is(r.err, syscall.ECONNREFUSED), ctx.Err() != nil:
				return nil, r.err
			case firstErr == nil || r.way == choice.Way:
				firstErr = r.err
			}
		}
		if !isOtherBegun {
			isOtherBegun = true
			pending++
			begin(choice.Other)
		}
		if pending == 0 {
			return nil, firstErr
		}
	}
}
