package server

import (
	"context"
	"fmt"

	"github.com/coder/websocket"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// maxArgumentBytes is how long an argument of a command may be: the kernel refuses longer
// ones.
const maxArgumentBytes = 128<<10 - 1

// readRequest reads the first message.
func (x *execCall) readRequest() error {
	ctx, cancel := context.WithTimeout(x.ctx, maxRequestTime)
	defer cancel()
	kind, text, err := x.conn.Read(ctx)
	if err != nil {
		return err
	}
	const expected = "the first message must be an ExecRequest"
	if kind != websocket.MessageText {
		return &dstack.Error{Kind: dstack.Invalid, Message: expected}
	}
	if x.request, err = wire.Decode[api.ExecRequest](text); err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: expected + ": " + err.Error()}
	}
	return checkExecRequest(x.request)
}

// checkExecRequest refuses what no program can be started with.
func checkExecRequest(r api.ExecRequest) error {
	for i, argument := range r.Command {
		if len(argument) > maxArgumentBytes {
			return &dstack.Error{Kind: dstack.Invalid, Hint: "pass long texts through standard input",
				Message: fmt.Sprintf("argument %d of the command has %d bytes, the limit is %d", i, len(argument), maxArgumentBytes)}
		}
	}
	return nil
}
