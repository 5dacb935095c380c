package gatewaylink

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// Something between the pods drops what is sent to an address that the server reaches. Further connections do not wait for it.
func TestClusterPods_SilentAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	through, isAway := 0, false
	pods := newClusterPods("kubernetes", func(ctx context.Context, host, _ string) (net.Conn, error) {
		through++
		if isAway || host != "kubernetes" {
			return nil, errors.New("the server is away")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	pods.dialTimeout = time.Nanosecond // no address answers so soon
	conn, err := pods.dial(t.Context(), "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if through != 1 || !pods.isSilent("127.0.0.1:1", time.Now()) || pods.isSilent("127.0.0.1:2", time.Now()) {
		t.Errorf("through the server %d times, silent %v", through, pods.silent)
	}
	if pods.isSilent("127.0.0.1:1", time.Now().Add(silentTime)) || len(pods.silent) != 0 {
		t.Error("an address is silent for ever")
	}
	isAway = true
	if _, err := pods.dial(t.Context(), "127.0.0.1:3"); err == nil || err.Error() == "the server is away" {
		t.Errorf("the pod's own failure is the one to report: %v", err)
	}
}

func TestClusterPods_RefusedPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	pods := newClusterPods("kubernetes", func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("asked the server") })
	if _, err := pods.dial(t.Context(), l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}
