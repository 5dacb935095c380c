package gatewaylink

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"sync"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/decide/traffic"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/sshclient"
)

// hostDialers reach the replicas on other machines: directly on the own host and in the own cluster, otherwise through an SSH
// connection to the host, or else through the server. It is safe for concurrent use.
type hostDialers struct {
	dialer         *dial.Dialer
	through        throughServer
	limits         *sshclient.LoginLimiter
	podAuthorities []string // of the cluster whose pod this process runs in; none: it runs in no pod
	log            *slog.Logger

	mu     sync.Mutex
	known  map[string]*hostDialer // by host
	unused []*hostDialer          // replaced, or without targets; they may have connections still
	isOver bool
}

// throughServer connects to an address in the network of a host through the server.
type throughServer func(ctx context.Context, host, address string) (net.Conn, error)

// hostDialer reaches one host.
type hostDialer struct {
	host    api.GatewayHost
	client  *sshclient.Client // nil: there is no login
	jump    *sshclient.Client
	isOwn   bool         // this process runs on it
	cluster *clusterPods // of the cluster that this process runs in; nil: the host is none
}

func newHostDialers(o Options, through throughServer) *hostDialers {
	return &hostDialers{dialer: o.Dialer, through: through, limits: sshclient.NewLoginLimiter(), podAuthorities: o.PodAuthorities, log: o.Log,
		known: map[string]*hostDialer{}}
}

// update makes the hosts of all targets reachable. own is the host on which this process runs.
func (d *hostDialers) update(hosts map[string]api.GatewayHost, routes []route.Route, own string) {
	wanted := map[string]api.GatewayHost{}
	maps.Copy(wanted, hosts)
	for _, r := range routes {
		for _, target := range r.Ready {
			if _, ok := wanted[target.Host]; !ok && target.Host != "" {
				wanted[target.Host] = api.GatewayHost{ID: target.Host}
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOver {
		return
	}
	for name, present := range d.known {
		host, ok := wanted[name]
		if ok && present.isOwn == (name == own) && isSameHost(present.host, host) {
			continue
		}
		d.unused = append(d.unused, present)
		delete(d.known, name)
		d.dialer.RemoveHost(name)
	}
	for name, host := range wanted {
		if d.known[name] == nil {
			added := d.newHostDialer(host, name == own)
			d.known[name] = added
			d.dialer.AddHost(name, func(ctx context.Context, address string) (net.Conn, error) { return d.dial(ctx, name, added, address) })
		}
	}
}

// isSameHost reports whether two hosts have the same logins.
func isSameHost(a, b api.GatewayHost) bool { return reflect.DeepEqual(a, b) }

func (d *hostDialers) newHostDialer(host api.GatewayHost, isOwn bool) *hostDialer {
	added := &hostDialer{host: host, isOwn: isOwn}
	if traffic.IsSameCluster(host.Authorities, d.podAuthorities) {
		added.cluster = newClusterPods(host.ID, d.through)
		return added
	}
	if isOwn || host.Login.PrivateKey == "" {
		return added
	}
	if host.Jump != nil {
		added.jump = sshclient.New(sshclient.Options{Login: *host.Jump, Limits: d.limits, Log: d.log, Pin: refuseUnpinned})
	}
	added.client = sshclient.New(sshclient.Options{Login: host.Login, Jump: added.jump, Limits: d.limits, Log: d.log, Pin: refuseUnpinned})
	added.client.SetBusy(true)
	return added
}

// refuseUnpinned stops a login at a host whose key the server has not seen: the server pins keys.
func refuseUnpinned(context.Context, string) error {
	return &dstack.Error{Kind: dstack.Unavailable, Message: "the server has not pinned the key of this host yet"}
}

func (d *hostDialers) dial(ctx context.Context, name string, h *hostDialer, address string) (net.Conn, error) {
	switch {
	case h.cluster != nil:
		return h.cluster.dial(ctx, address)
	case h.isOwn:
		dialer := net.Dialer{Timeout: dialTimeout}
		return dialer.DialContext(ctx, "tcp", address)
	case h.client == nil:
		return d.through(ctx, name, address)
	}
	conn, err := h.client.DialNow(ctx, address)
	if err == nil || ctx.Err() != nil || sshclient.StepOf(err) == "" { // the host answers, and refuses the connection
		return conn, err
	}
	conn, otherErr := d.through(ctx, name, address)
	if otherErr != nil {
		return nil, err
	}
	return conn, nil
}

// closeUnused closes the connections to hosts that are not used any more, once nothing uses them.
func (d *hostDialers) closeUnused(context.Context) (time.Duration, error) {
	d.mu.Lock()
	var idle, busy []*hostDialer
	for _, h := range d.unused {
		if h.client != nil && h.client.State().Channels > 0 {
			busy = append(busy, h)
		} else {
			idle = append(idle, h)
		}
	}
	d.unused = busy
	d.mu.Unlock()
	return unusedInterval, closeDialers(idle)
}

const unusedInterval = 10 * time.Second

func (d *hostDialers) close() error {
	d.mu.Lock()
	d.isOver = true
	all := d.unused
	for _, h := range d.known {
		all = append(all, h)
	}
	d.mu.Unlock()
	return closeDialers(all)
}

func closeDialers(all []*hostDialer) error {
	var errs []error
	for _, h := range all {
		if h.client != nil {
			errs = append(errs, h.client.Close())
		}
		if h.jump != nil {
			errs = append(errs, h.jump.Close())
		}
	}
	return errors.Join(errs...)
}
