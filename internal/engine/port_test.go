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

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

func TestCheckPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if got := engine.CheckPort(t.Context(), address, false); got != engine.PortAccepted {
		t.Errorf("a listener: %v", got)
	}
	if got := engine.CheckPort(t.Context(), address, true); got != engine.PortAccepted {
		t.Errorf("a quiet listener behind a proxy: %v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := engine.CheckPort(t.Context(), address, false); got != engine.PortRefused {
		t.Errorf("no listener: %v", got)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if got := engine.CheckPort(canceled, address, false); got != engine.PortSlow {
		t.Errorf("a canceled context: %v", got)
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
	if got := engine.CheckPort(t.Context(), l.Addr().String(), true); got != engine.PortRefused {
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
	} {
		r := engine.NewRefusedReport("a", c.err, now)
		if r.Error != c.message || r.Permanent != c.permanent || r.State != dstack.AttemptRefused {
			t.Errorf("the report of %v is %+v", c.err, r)
		}
	}
}
