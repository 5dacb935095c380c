package kubeclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"dstack/internal/dstack"
)

// ExecRequest is a command to run in a container of a pod.
type ExecRequest struct {
	Pod       string
	Container string // empty: the pod's only container
	Argv      []string
	Stdin     io.Reader // nil: none. Give it only to commands that read it: the end of the command waits for a Read
	Stdout    io.Writer // nil: discarded
	Stderr    io.Writer // nil: discarded; unused with a terminal
	Terminal  bool
	Resizes   <-chan TerminalSize // with a terminal; nil: its size does not change
}

// TerminalSize is the size of a terminal in characters.
type TerminalSize struct{ Columns, Rows uint16 }

// Exit codes of commands that cannot be started, as shells use them.
const (
	exitNotExecutable = 126
	exitNoProgram     = 127
)

// Exec runs a command and returns its exit code once it has ended, and its output was written. The error is of kind Invalid,
// with exit code 127 or 126, if the program does not exist or cannot be run. The end of ctx ends Exec, but not the command:
// callers that need its end kill it. A child that keeps the output open keeps Exec from returning.
func (c *Client) Exec(ctx context.Context, e ExecRequest) (exitCode int, err error) {
	query := url.Values{"command": e.Argv, "stdout": {"true"}}
	if e.Container != "" {
		query.Set("container", e.Container)
	}
	if e.Stdin != nil {
		query.Set("stdin", "true")
	}
	if e.Terminal {
		query.Set("tty", "true")
	} else {
		query.Set("stderr", "true")
	}
	err = c.openStream(ctx, c.podPath(e.Pod, "exec"), query, func(u *url.URL, kind streamKind) error {
		run, err := c.newExecutor(u, kind)
		if err != nil {
			return err
		}
		return run.StreamWithContext(ctx, e.streamOptions(ctx))
	})
	return c.readExit(ctx, err, e)
}

func (c *Client) newExecutor(u *url.URL, kind streamKind) (remotecommand.Executor, error) {
	if kind == webSocket {
		return remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, u.String())
	}
	return remotecommand.NewSPDYExecutor(c.config, http.MethodPost, u)
}

func (e ExecRequest) streamOptions(ctx context.Context) remotecommand.StreamOptions {
	options := remotecommand.StreamOptions{Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr, Tty: e.Terminal}
	if options.Stdout == nil {
		options.Stdout = io.Discard
	}
	if e.Terminal {
		options.Stderr = nil
		options.TerminalSizeQueue = sizeQueue{ctx.Done(), e.Resizes}
	} else if options.Stderr == nil {
		options.Stderr = io.Discard
	}
	return options
}

// sizeQueue passes the sizes of a terminal on. Its end leaves the size as it is.
type sizeQueue struct {
	done  <-chan struct{}
	sizes <-chan TerminalSize
}

// Next implements remotecommand.TerminalSizeQueue: it waits for the next size, and returns nil after the last.
func (q sizeQueue) Next() *remotecommand.TerminalSize {
	select {
	case <-q.done:
		return nil
	case size, ok := <-q.sizes:
		if !ok {
			return nil
		}
		return &remotecommand.TerminalSize{Width: size.Columns, Height: size.Rows}
	}
}

// isStreamRefused reports whether an error says that no command was tried: the API server, its policy or a proxy refused the
// request, or the node cannot be reached.
func isStreamRefused(err error) bool {
	meaning, status := classify(err)
	return status != nil && status.Code != http.StatusInternalServerError || meaning == NodeUnreachable
}

// readExit tells the exit code of a command from its failure to start, and both from a failure of the stream.
func (c *Client) readExit(ctx context.Context, err error, e ExecRequest) (int, error) {
	if err == nil {
		return 0, nil
	}
	if exit, ok := errors.AsType[exec.CodeExitError](err); ok {
		return exit.Code, nil
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	program := ""
	if len(e.Argv) > 0 {
		program = e.Argv[0]
	}
	switch text := err.Error(); {
	case isStreamRefused(err): // also in words like these
	case containsAny(text, "executable file not found", "no such file or directory") && strings.Contains(text, "exec"):
		return exitNoProgram, &dstack.Error{Kind: dstack.Invalid, Message: "the pod has no program `" + program + "`", Cause: err}
	case strings.Contains(text, "permission denied") && strings.Contains(text, "exec"):
		return exitNotExecutable, &dstack.Error{Kind: dstack.Invalid, Message: "the pod cannot run `" + program + "`: permission denied", Cause: err}
	}
	return 0, c.newError(err, request{verb: "run a command in", word: Pods.Word, name: e.Pod, needs: "pods/exec"})
}
