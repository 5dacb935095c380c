package sshserver

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// usage counts connections against limits.
type usage struct {
	limits Limits

	mu          sync.Mutex
	connections int
	logins      int // of connections
	channels    int
	users       map[string]userUsage
}

// userUsage counts what one user name has. Each names a job.
type userUsage struct{ connections, channels int }

func newUsage(limits Limits) *usage { return &usage{limits: limits, users: map[string]userUsage{}} }

// change adds to the counts of a user. The caller holds the lock.
func (u *usage) change(name string, by userUsage) {
	now := u.users[name]
	now.connections += by.connections
	now.channels += by.channels
	if now == (userUsage{}) {
		delete(u.users, name)
		return
	}
	u.users[name] = now
}

// beginLogin counts a connection that has not logged in. It returns false if there are too many.
func (u *usage) beginLogin() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.connections >= u.limits.Connections || u.logins >= u.limits.Logins {
		return false
	}
	u.connections++
	u.logins++
	return true
}

func (u *usage) endLogin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.logins--
}

func (u *usage) endConnection() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.connections--
}

// addUser counts a connection of a user. It returns false if there are too many.
func (u *usage) addUser(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.users[name].connections >= u.limits.OfUser {
		return false
	}
	u.change(name, userUsage{connections: 1})
	return true
}

func (u *usage) removeUser(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.change(name, userUsage{connections: -1})
}

// addChannel counts a forwarded connection of a user. It returns false if there are too many.
func (u *usage) addChannel(user string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.channels >= u.limits.AllChannels || u.users[user].channels >= u.limits.Channels {
		return false
	}
	u.channels++
	u.change(user, userUsage{channels: 1})
	return true
}

func (u *usage) removeChannel(user string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.channels--
	u.change(user, userUsage{channels: -1})
}

// A client address may open loginBurst connections without a successful login, and then one every loginInterval.
const (
	loginBurst    = 30
	loginInterval = 2 * time.Second
	maxAddresses  = 10_000 // that a loginLimiter remembers
)

// loginLimiter limits connections by address. Those that log in do not count.
type loginLimiter struct {
	mu      sync.Mutex
	buckets map[netip.Prefix]loginBucket
}

// loginBucket is what an address had left at a time.
type loginBucket struct {
	left float64
	at   time.Time
}

func newLoginLimiter() *loginLimiter { return &loginLimiter{buckets: map[netip.Prefix]loginBucket{}} }

// take counts a connection. It returns false if its address has none left.
func (l *loginLimiter) take(address netip.Prefix, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.leftOf(address, now)
	if left < 1 {
		return false
	}
	l.forgetFull(now)
	l.buckets[address] = loginBucket{left - 1, now}
	return true
}

// giveBack takes back that a connection was counted.
func (l *loginLimiter) giveBack(address netip.Prefix, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if left := l.leftOf(address, now) + 1; left < loginBurst {
		l.buckets[address] = loginBucket{left, now}
	} else {
		delete(l.buckets, address)
	}
}

func (l *loginLimiter) leftOf(address netip.Prefix, now time.Time) float64 {
	b, ok := l.buckets[address]
	if !ok {
		return loginBurst
	}
	return min(loginBurst, b.left+max(0, now.Sub(b.at).Seconds())/loginInterval.Seconds())
}

// forgetFull makes space for another address. If none is full, it forgets all of them, which only lets them try again.
func (l *loginLimiter) forgetFull(now time.Time) {
	if len(l.buckets) < maxAddresses {
		return
	}
	for address := range l.buckets {
		if l.leftOf(address, now) >= loginBurst {
			delete(l.buckets, address)
		}
	}
	if len(l.buckets) >= maxAddresses {
		clear(l.buckets)
	}
}

// addressOf returns the address of a client, and for IPv6 the /64 network that usually belongs to one client. Connections
// without an IP address share the zero value.
func addressOf(conn net.Conn) netip.Prefix {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // bits is never too large
	return prefix
}
