package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

func TestCheckPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := dstack.Endpoint{Address: l.Addr().String()}
	var dialer dial.Dialer
	if got := engine.CheckPort(t.Context(), &dialer, address, false); got != engine.PortAccepted {
		t.Errorf("a listener: %v", got)
	}
	if got := engine.CheckPort(t.Context(), &dialer, address, true); got != engine.PortAccepted {
		t.Errorf("a quiet listener behind a proxy: %v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := engine.CheckPort(t.Context(), &dialer, address, false); got != engine.PortRefused {
		t.Errorf("no listener: %v", got)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if got := engine.CheckPort(canceled, &dialer, address, false); got != engine.PortSlow {
		t.Errorf("a canceled context: %v", got)
	}
}

func TestCheckPort_ReplicaOnAnotherHost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dialer dial.Dialer
	for host, dialHost := range map[string]dial.HostDialer{
		"open": func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		},
		"closed": func(context.Context, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED },
		"worded": func(context.Context, string) (net.Conn, error) {
			return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "nothing answers there", Cause: syscall.ECONNREFUSED}
		},
		"slow": func(context.Context, string) (net.Conn, error) { return nil, context.DeadlineExceeded },
	} {
		dialer.AddHost(host, dialHost)
	}
	for host, want := range map[string]engine.PortState{
		"open": engine.PortAccepted, "closed": engine.PortRefused, "worded": engine.PortRefused, "slow": engine.PortSlow, "unknown": engine.PortSlow,
	} {
		endpoint := dstack.Endpoint{Host: host, Address: "10.0.0.5:8000"}
		if got := engine.CheckPort(t.Context(), &dialer, endpoint, false); got != want {
			t.Errorf("a port on the host %q: %v, want %v", host, got, want)
		}
	}
}

// Docker's port proxy accepts a connection, fails to connect to the container, and
// then closes the connection.
func TestCheckPort_ProxyWithoutServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	})
	if got := engine.CheckPort(t.Context(), &dial.Dialer{}, dstack.Endpoint{Address: l.Addr().String()}, true); got != engine.PortRefused {
		t.Errorf("a proxy without a server behind it: %v", got)
	}
	_ = l.Close()
	serving.Wait()
}

func TestMonotonicClock_StrictlyIncreases(t *testing.T) {
	var clock engine.MonotonicClock
	at := time.Date(2026, 11, 23, 12, 0, 0, 1999, time.UTC)
	first := clock.Next(at)
	if want := at.Truncate(time.Microsecond); !first.Equal(want) {
		t.Errorf("%v, want %v", first, want)
	}
	if second := clock.Next(at.Add(-time.Hour)); second.Sub(first) != time.Microsecond {
		t.Errorf("%v after %v", second, first)
	}
}

func TestNewRefusedReport(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		err       error
		message   string
		permanent bool
	}{
		{&dstack.Error{Kind: dstack.Conflict, Message: "port taken", Hint: "free it"}, "port taken; free it", true},
		{&dstack.Error{Kind: dstack.Unavailable, Message: "no network"}, "no network", false},
		{fmt.Errorf("write x: %w", syscall.ENOSPC), "the disk of the server's folder is full; free some space there", false},
		{errors.New("odd"), "odd", false},
		{&dstack.Error{Kind: dstack.NoCapacity, Message: "Docker's disk is full"}, "Docker's disk is full", false},
	} {
		r := engine.NewRefusedReport("a", c.err, now)
		if r.OtherMachine != (dstack.KindOf(c.err) == dstack.NoCapacity) {
			t.Errorf("the report of %v is %+v", c.err, r)
		}
		if r.Error != c.message || r.Permanent != c.permanent || r.State != dstack.AttemptRefused {
			t.Errorf("the report of %v is %+v", c.err, r)
		}
	}
}
