package gatewaylink

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// podDialTimeout limits a connection to a pod of the own cluster. The address of a pod that is gone neither refuses nor answers.
	podDialTimeout = 1500 * time.Millisecond
	// silentTime is how long an address that did not answer, while the server reached it, is reached through the server.
	silentTime = time.Minute
)

// clusterPods reaches the pods of the cluster that this process runs in: at their addresses, or through the server where something
// between the pods drops what is sent. It is safe for concurrent use.
type clusterPods struct {
	name        string
	through     throughServer
	dialTimeout time.Duration // podDialTimeout

	mu     sync.Mutex
	silent map[string]time.Time // when an address did not answer last
}

func newClusterPods(name string, through throughServer) *clusterPods {
	return &clusterPods{name: name, through: through, dialTimeout: podDialTimeout, silent: map[string]time.Time{}}
}

// dial connects to a pod. A port that refuses is the pod's answer.
func (c *clusterPods) dial(ctx context.Context, address string) (net.Conn, error) {
	if c.isSilent(address, time.Now()) {
		return c.through(ctx, c.name, address)
	}
	dialer := net.Dialer{Timeout: c.dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil {
		return conn, err
	}
	conn, otherErr := c.through(ctx, c.name, address)
	if otherErr != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent[address] = time.Now()
	return conn, nil
}

// isSilent reports whether an address did not answer a short time ago. It forgets what is older.
func (c *clusterPods) isSilent(address string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for known, at := range c.silent {
		if now.Sub(at) >= silentTime {
			delete(c.silent, known)
		}
	}
	_, ok := c.silent[address]
	return ok
}
