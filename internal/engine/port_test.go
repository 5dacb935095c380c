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

func TestCall(t *testing.T) {
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
		t.Errorf("nobody: %v", got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := engine.CheckPort(gone, address, false); got != engine.PortSlow {
		t.Errorf("our own end: %v", got)
	}
}

// Docker's port proxy accepts, tries the container, and hangs up.
func TestCall_IsNotFooledByAProxy(t *testing.T) {
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
		t.Errorf("a proxy without anything behind: %v", got)
	}
	_ = l.Close()
	serving.Wait()
}

func TestStamps_GrowStrictly(t *testing.T) {
	var s engine.MonotonicClock
	at := time.Date(2026, 11, 23, 12, 0, 0, 1999, time.UTC)
	first := s.Next(at)
	if want := at.Truncate(time.Microsecond); !first.Equal(want) {
		t.Errorf("%v, want %v", first, want)
	}
	if second := s.Next(at.Add(-time.Hour)); second.Sub(first) != time.Microsecond {
		t.Errorf("%v after %v", second, first)
	}
}

func TestRefusal(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		err       error
		says      string
		permanent bool
	}{
		{&dstack.Error{Kind: dstack.Conflict, Message: "port taken", Hint: "free it"}, "port taken; free it", true},
		{&dstack.Error{Kind: dstack.Unavailable, Message: "no network"}, "no network", false},
		{fmt.Errorf("write x: %w", syscall.ENOSPC), "the disk of the server's folder is full; free some space there", false},
		{errors.New("odd"), "odd", false},
	} {
		r := engine.NewRefusedReport("a", c.err, now)
		if r.Error != c.says || r.Permanent != c.permanent || r.State != dstack.AttemptRefused {
			t.Errorf("%v became %+v", c.err, r)
		}
	}
}
