package kubernetes_test

import (
	"context"
	"net"
)

func directDial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}
