package sshserver

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestLoginLimiter(t *testing.T) {
	l := newLoginLimiter()
	now := time.Unix(1_700_000_000, 0)
	a, b := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32")
	takeAll := func(address netip.Prefix) (n int) {
		for l.take(address, now) {
			n++
		}
		return n
	}
	if n := takeAll(a); n != loginBurst {
		t.Errorf("%d connections at first, want %d", n, loginBurst)
	}
	if n := takeAll(b); n != loginBurst {
		t.Errorf("another address has %d", n)
	}
	now = now.Add(3 * loginInterval)
	if n := takeAll(a); n != 3 {
		t.Errorf("%d after three intervals", n)
	}
	l.giveBack(a, now)
	if n := takeAll(a); n != 1 {
		t.Errorf("%d after a successful login", n)
	}
	now = now.Add(-time.Hour) // the clock was set back
	if n := takeAll(a); n != 0 {
		t.Errorf("%d after the clock was set back", n)
	}
	now = now.Add(2 * time.Hour)
	if n := takeAll(a); n != loginBurst {
		t.Errorf("%d after an hour", n)
	}
	c := netip.MustParsePrefix("10.0.0.3/32")
	l.take(c, now)
	l.giveBack(c, now)
	if _, remembered := l.buckets[c]; remembered {
		t.Error("an address that has its whole burst is remembered")
	}
}

func TestLoginLimiter_RemembersNotTooMany(t *testing.T) {
	l := newLoginLimiter()
	now := time.Unix(1_700_000_000, 0)
	for i := range 3 * maxAddresses {
		address := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		l.take(address, now.Add(time.Duration(i)*time.Millisecond))
		if len(l.buckets) > maxAddresses {
			t.Fatalf("it remembers %d addresses", len(l.buckets))
		}
	}
}

// addressedConn is a connection from an address.
type addressedConn struct {
	net.Conn
	from net.Addr
}

func (c addressedConn) RemoteAddr() net.Addr { return c.from }

func TestAddressOf(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1:5000":                    "10.0.0.1/32",
		"[::ffff:10.0.0.1]:5000":           "10.0.0.1/32",
		"[2001:db8:1:2:3:4:5:6]:5000":      "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1]:5000":      "2001:db8:1:2::/64",
		"[fe80::1%eth0]:5000":              "fe80::/64",
		"[2001:db8:1:3:3:4:5:6%eth0]:5000": "2001:db8:1:3::/64",
	} {
		conn := addressedConn{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text))}
		if got := addressOf(conn).String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := addressOf(addressedConn{from: &net.UnixAddr{Name: "x"}}); got != (netip.Prefix{}) {
		t.Errorf("a connection without an IP address has %s", got)
	}
}
