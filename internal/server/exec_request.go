package server

import (
	"context"
	"fmt"
	"strings"

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
		switch {
		case strings.ContainsRune(argument, 0):
			return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("argument %d of the command has a zero byte", i),
				Hint: "pass binary data through standard input"}
		case len(argument) > maxArgumentBytes:
			return &dstack.Error{Kind: dstack.Invalid, Hint: "pass long texts through standard input",
				Message: fmt.Sprintf("argument %d of the command has %d bytes, the limit is %d", i, len(argument), maxArgumentBytes)}
		}
	}
	if r.Terminal != nil && strings.ContainsRune(r.Terminal.Type, 0) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "the type of the terminal has a zero byte"}
	}
	return nil
}
