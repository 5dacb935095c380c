package gateway

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// maxKeptConns is how many connections to one replica are kept.
const maxKeptConns = 1024

// replicaPool keeps connections to replicas between requests. A request that opens a connection takes one that another
// request gives back meanwhile, if that is sooner.
type replicaPool struct {
	dialer *replicaDialer

	mu       sync.Mutex
	replicas map[string]*replicaConns
	timer    *time.Timer // closes what was kept for too long; nil: it never ran
	isClosed bool
}

// replicaConns has the connections of one replica, and the requests that wait for one.
type replicaConns struct {
	kept    []*keptConn // the one given back last at the end
	waiting []*connWait // in the order in which they came
}

// connWait is a request that opens a connection.
type connWait struct {
	conn   *keptConn // given by another request; nil: none
	cancel context.CancelFunc
}

func newReplicaPool(dialer *replicaDialer) *replicaPool {
	return &replicaPool{dialer: dialer, replicas: map[string]*replicaConns{}}
}

// get returns a kept connection, or a new one. Its error is a dialError, or that of ctx.
func (p *replicaPool) get(ctx context.Context, address string) (*keptConn, error) {
	for {
		conn := p.takeKept(address)
		if conn == nil {
			var err error
			if conn, err = p.open(ctx, address); err != nil {
				return nil, err
			}
		}
		if !conn.isKept || conn.isQuiet() {
			return conn, nil
		}
		conn.close()
	}
}

// takeKept removes the connection from the pool that was given back last.
func (p *replicaPool) takeKept(address string) *keptConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.replicas[address]
	if r == nil || len(r.kept) == 0 {
		return nil
	}
	last := len(r.kept) - 1
	conn := r.kept[last]
	r.kept[last] = nil
	r.kept = r.kept[:last]
	return conn
}

// open opens a connection, unless another request gives one back before it is established.
func (p *replicaPool) open(ctx context.Context, address string) (*keptConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &connWait{cancel: cancel}
	p.mu.Lock()
	r := p.replicas[address]
	if r == nil {
		r = &replicaConns{}
		p.replicas[address] = r
	}
	r.waiting = append(r.waiting, w)
	p.mu.Unlock()

	opened, place, err := p.dialer.open(ctx, address)

	p.mu.Lock()
	if i := slices.Index(r.waiting, w); i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
	}
	p.forgetEmpty(address, r)
	p.mu.Unlock()
	switch {
	case w.conn == nil && err != nil:
		return nil, err
	case w.conn == nil:
		return newKeptConn(p, address, opened, place), nil
	case err == nil:
		p.put(newKeptConn(p, address, opened, place))
	}
	return w.conn, nil
}

// put gives a connection back that can serve another request.
func (p *replicaPool) put(conn *keptConn) {
	conn.keptAt, conn.isKept = time.Now(), true
	if !p.handOn(conn) {
		conn.close()
	}
}

// handOn gives a connection to the request that waits longest, or keeps it. It returns false if there is no place for it.
func (p *replicaPool) handOn(conn *keptConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.replicas[conn.address]
	if r == nil {
		r = &replicaConns{}
		p.replicas[conn.address] = r
	}
	if len(r.waiting) > 0 {
		w := r.waiting[0]
		r.waiting = slices.Delete(r.waiting, 0, 1)
		w.conn = conn
		w.cancel()
		return true
	}
	if p.isClosed || len(r.kept) >= maxKeptConns {
		return false
	}
	if r.kept = append(r.kept, conn); p.timer == nil {
		p.timer = time.AfterFunc(replicaIdleTimeout, p.closeIdle)
	}
	return true
}

// closeIdle closes what was kept for too long, and runs again while there is more.
func (p *replicaPool) closeIdle() {
	for _, conn := range p.removeIdle(time.Now().Add(-replicaIdleTimeout)) {
		conn.close()
	}
}

func (p *replicaPool) removeIdle(keptBefore time.Time) (idle []*keptConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	isEmpty := true
	for address, r := range p.replicas {
		old := 0 // they are in the order in which they were given back
		for old < len(r.kept) && !r.kept[old].keptAt.After(keptBefore) {
			old++
		}
		idle = append(idle, r.kept[:old]...)
		r.kept = slices.Delete(r.kept, 0, old)
		isEmpty = isEmpty && len(r.kept) == 0
		p.forgetEmpty(address, r)
	}
	switch {
	case isEmpty:
		p.timer = nil
	case p.timer != nil:
		p.timer.Reset(replicaIdleTimeout / 2)
	}
	return idle
}

// forgetEmpty forgets a replica without connections. The caller holds the lock.
func (p *replicaPool) forgetEmpty(address string, r *replicaConns) {
	if len(r.kept) == 0 && len(r.waiting) == 0 && p.replicas[address] == r {
		delete(p.replicas, address)
	}
}

// close closes the kept connections, and keeps none from now on.
func (p *replicaPool) close() {
	p.mu.Lock()
	p.isClosed = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, conn := range p.removeIdle(time.Now()) {
		conn.close()
	}
}

var _ net.Error = (*unacceptedError)(nil)

// unacceptedError says that a new connection was established, and nothing that was sent over it was acknowledged: it is
// in no listen queue. The replica got nothing of the request.
type unacceptedError struct{}

func (*unacceptedError) Error() string   { return "the replica accepts no connections in time" }
func (*unacceptedError) Timeout() bool   { return true }
func (*unacceptedError) Temporary() bool { return true }
