package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/server/peers"
)

// mustForward reports whether the replica is on the machine of another server, which runs the command for this one.
func (x *execCall) mustForward(machine dstack.ServerID) bool {
	return x.server.peers != nil && machine != "" && machine != x.server.peers.Self() && !peers.IsForwarded(x.r)
}

// forward lets another server run the command. That server checks again whether the caller may, and tells the client how the
// command ends.
func (x *execCall) forward(machine dstack.ServerID) error {
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-Api-Version", "User-Agent"} {
		if value := x.r.Header.Get(name); value != "" {
			header.Set(name, value)
		}
	}
	other, err := x.server.peers.OpenWebSocket(x.ctx, machine, x.r.URL.RequestURI(), header)
	if err != nil {
		return err
	}
	defer func() { _ = other.CloseNow() }()
	other.SetReadLimit(maxExecInputBytes)
	request, err := json.Marshal(x.request)
	if err != nil {
		return err
	}
	if err := other.Write(x.ctx, websocket.MessageText, request); err != nil {
		return newForwardError(err)
	}
	x.isForwarded = true
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	var both errgroup.Group
	both.Go(func() error {
		defer cancel()
		return copyMessages(ctx, x.conn, other)
	})
	err = copyMessages(ctx, other, x.conn)
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		_ = x.conn.Close(websocket.StatusNormalClosure, "") // the client has the last message
		err = nil
	}
	cancel()
	_ = x.conn.CloseNow()
	_ = both.Wait() // the client has disconnected, or the command has ended
	if ctx.Err() != nil && x.ctx.Err() == nil {
		x.server.log.Debug("a command on another server's machine has ended", "run", x.request.RunName, "err", err)
	}
	return nil
}

func newForwardError(cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Cause: cause, Message: "the server on the replica's machine does not answer",
		Hint: "try again"}
}

// copyMessages copies messages until a connection ends.
func copyMessages(ctx context.Context, from, to *websocket.Conn) error {
	for {
		kind, data, err := from.Read(ctx)
		if err != nil {
			return err
		}
		if err := to.Write(ctx, kind, data); err != nil {
			return errors.Join(errCallerGone, err)
		}
	}
}
