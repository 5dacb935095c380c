package gatewaylink

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// connectThroughServer opens a connection to a target of the route table through the server. The server connects to
// targets of the gateway only.
func (l *Link) connectThroughServer(ctx context.Context, host, address string) (net.Conn, error) {
	if host == serverHost {
		host = ""
	}
	used := l.servers.currentServer()
	conn, err := used.dial(ctx)
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the server, through which the replica is reached, does not answer", Cause: err}
	}
	upgraded, err := upgradeConn(ctx, conn, used, l.options.Identity.Credential, host, address)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return upgraded, nil
}

// upgradeConn asks the server to connect to a target.
func upgradeConn(ctx context.Context, conn net.Conn, used *server, credential, host, address string) (net.Conn, error) {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(dialTimeout + connectGrace)); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+used.address+api.PathGatewayConnect+"?"+url.Values{"host": {host}, "address": {address}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+credential)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", api.UpgradeConnect)
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // only for the cause
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the server cannot connect to the replica at %s", address),
			Cause: fmt.Errorf("status %d: %s", response.StatusCode, text)}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &upgradedConn{Conn: conn, reader: reader}, nil
}

const connectGrace = 5 * time.Second

// upgradedConn is a connection through the server.
type upgradedConn struct {
	net.Conn
	reader *bufio.Reader // may have the first bytes
}

func (c *upgradedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// CloseWrite ends the stream to the replica.
func (c *upgradedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
