package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"dstack/internal/dstack"
)

// PathExec is a WebSocket, opened with GET, that runs a command in a replica:
//
//   - The first message is an ExecRequest. All texts are JSON.
//   - The client's other texts are ExecInput; its binary messages are the command's input, of
//     which at most ExecWindow bytes may be on the way.
//   - The server's texts are ExecUpdate; the last one has Exit. Its binary messages are output:
//     one byte for the stream, ExecStdout or ExecStderr, and the bytes written.
//
// The command ends when the connection does.
const PathExec = ProjectPrefix + "/runs/exec"

// ExecWindow is how many bytes of input a client may send beyond those that the command has
// consumed (ExecUpdate.Consumed).
const ExecWindow = 256 << 10

// The first byte of a message with output.
const (
	ExecStdout = 1
	ExecStderr = 2
)

// maxExecMessageBytes bounds one message, in both directions.
const maxExecMessageBytes = 1 << 20

// maxCommandBytes bounds a command with its arguments, as JSON. A server closes the connection
// of a longer message.
const maxCommandBytes = ExecWindow

// commandSize returns the size of a command as JSON.
func commandSize(command []string) int {
	text, err := json.Marshal(command)
	if err != nil {
		return 0 // sending it reports that
	}
	return len(text)
}

// ExecRequest is the first message of runs/exec.
type ExecRequest struct {
	RunName  string        `json:"run_name"`
	Replica  *int          `json:"replica,omitempty"`  // nil: the ready one with the lowest number
	Command  []string      `json:"command,omitempty"`  // empty: an interactive shell
	Terminal *ExecTerminal `json:"terminal,omitempty"` // nil: the command gets pipes
}

// ExecTerminal is the terminal that the command gets.
type ExecTerminal struct {
	Type string   `json:"type,omitempty"` // the value of TERM
	Size ExecSize `json:"size"`
}

// ExecSize is the size of a terminal in characters; zero: unknown.
type ExecSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// ExecInput is a message of the client after the first.
type ExecInput struct {
	Resize *ExecSize `json:"resize,omitempty"` // the terminal has a new size
	End    bool      `json:"end,omitempty"`    // the input has ended
}

// ExecUpdate is a message of the server. One field is set.
type ExecUpdate struct {
	Started  *ExecStarted `json:"started,omitempty"`
	Consumed int          `json:"consumed,omitempty"` // bytes of input that the command has read since the last such message
	Exit     *ExecExit    `json:"exit,omitempty"`
}

// ExecStarted says where the command runs.
type ExecStarted struct {
	Replica int              `json:"replica"`
	Attempt dstack.AttemptID `json:"attempt"`
}

// ExecExit says how the command ended. With an Error it did not run to its end; ExitCode is
// then 126 or 127 if it could not be started.
type ExecExit struct {
	ExitCode int        `json:"exit_code"`
	Error    *ErrorView `json:"error,omitempty"`
}

// ExecStreams are the streams of the command for Client.Exec.
type ExecStreams struct {
	Stdin          io.Reader // nil: none. Exec may leave one Read of it waiting.
	Stdout, Stderr io.Writer
	Resizes        <-chan ExecSize   // nil: the size does not change
	Started        func(ExecStarted) // nil: not needed
}

// Exec runs a command in a replica until its end, and returns its exit code. The command
// ends, too, when ctx does, and when the connection breaks.
func (c *Client) Exec(ctx context.Context, project string, ask ExecRequest, streams ExecStreams) (int, error) {
	if size := commandSize(ask.Command); size > maxCommandBytes {
		return 0, &dstack.Error{Kind: dstack.Invalid,
			Message: fmt.Sprintf("the command has %d bytes, the limit is %d", size, maxCommandBytes),
			Hint:    "pass long texts on the standard input: dstack exec RUN -- sh -s < script.sh"}
	}
	conn, err := c.openWebSocket(ctx, projectPath(PathExec, project))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxExecMessageBytes)
	s := &execSession{client: c, conn: conn, streams: streams, credit: ExecWindow, more: make(chan struct{}, 1)}
	if err := s.send(ctx, ask); err != nil {
		return 0, s.brokenError(ctx, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var resizing sync.WaitGroup
	defer resizing.Wait()
	defer cancel()
	if streams.Resizes != nil {
		resizing.Go(func() { s.sendResizes(ctx) })
	}
	go s.sendInput(ctx) // may wait in Stdin after the end
	return s.receive(ctx)
}

// openWebSocket opens a WebSocket to the server.
func (c *Client) openWebSocket(ctx context.Context, path string) (*websocket.Conn, error) {
	if err := c.chooseServer(ctx); err != nil {
		return nil, err
	}
	// A WebSocket needs HTTP/1.1, which the usual transport does not ask for.
	transport, ok := c.http.Transport.(*http.Transport)
	if !ok {
		transport = &http.Transport{}
	}
	transport = transport.Clone()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	transport.Protocols, transport.ForceAttemptHTTP2 = protocols, false
	if transport.TLSClientConfig != nil {
		transport.TLSClientConfig.NextProtos = nil
	}
	header := http.Header{"User-Agent": {"dstack"}}
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	conn, response, err := websocket.Dial(ctx, c.base().String()+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: c.http.CheckRedirect}, HTTPHeader: header,
	})
	if err == nil {
		return conn, nil
	}
	if response == nil {
		return nil, c.unreachableError(ctx, err)
	}
	if response.Request == nil {
		at, _ := url.Parse(c.base().String() + path)
		response.Request = &http.Request{URL: at}
	}
	if response.StatusCode == http.StatusNotFound || response.StatusCode/100 == 2 {
		return nil, c.translateUpgradeFailure(response)
	}
	return nil, c.responseError(response)
}

// translateUpgradeFailure returns the error for a server that has no such call, or a proxy
// that does not pass WebSockets on.
func (c *Client) translateUpgradeFailure(response *http.Response) error {
	if response.StatusCode/100 == 2 {
		return c.unexpectedResponseError(errors.New("it did not open a WebSocket"))
	}
	err := c.responseError(response)
	if known, ok := errors.AsType[*dstack.Error](err); ok && strings.Contains(known.Message, "has no path") {
		return &dstack.Error{Kind: dstack.Unsupported, Cause: err,
			Message: "the dstack server at " + c.base().String() + " is too old for this command", Hint: "update the server"}
	}
	return err
}

// execSession is the client's end of one WebSocket of runs/exec.
type execSession struct {
	client  *Client
	conn    *websocket.Conn
	streams ExecStreams

	mu     sync.Mutex
	credit int           // bytes of input that may be sent
	more   chan struct{} // receives a value when credit grows
}

func (s *execSession) send(ctx context.Context, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return s.conn.Write(ctx, websocket.MessageText, text)
}

// sendInput sends the input as far as the window allows, and then its end. Its errors show in
// receive.
func (s *execSession) sendInput(ctx context.Context) {
	if s.streams.Stdin != nil {
		buffer := make([]byte, 32<<10)
		for {
			n, err := s.streams.Stdin.Read(buffer)
			if s.sendPieces(ctx, buffer[:n]) != nil {
				return
			}
			if err != nil {
				break
			}
		}
	}
	_ = s.send(ctx, ExecInput{End: true})
}

func (s *execSession) sendPieces(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		n, err := s.takeCredit(ctx, len(data))
		if err != nil {
			return err
		}
		if err := s.conn.Write(ctx, websocket.MessageBinary, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// takeCredit waits until input may be sent, and returns how much, at most limit.
func (s *execSession) takeCredit(ctx context.Context, limit int) (int, error) {
	for {
		s.mu.Lock()
		n := min(limit, s.credit)
		s.credit -= n
		s.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (s *execSession) addCredit(n int) {
	s.mu.Lock()
	s.credit += n
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *execSession) sendResizes(ctx context.Context) {
	for {
		select {
		case size, open := <-s.streams.Resizes:
			if !open || s.send(ctx, ExecInput{Resize: &size}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// receive writes the output until the command has ended.
func (s *execSession) receive(ctx context.Context) (int, error) {
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			return 0, s.brokenError(ctx, err)
		}
		if kind == websocket.MessageBinary {
			if err := s.writeOutput(data); err != nil {
				return 0, err
			}
			continue
		}
		var update ExecUpdate
		if err := json.Unmarshal(data, &update); err != nil {
			return 0, s.client.unexpectedResponseError(err)
		}
		switch {
		case update.Exit != nil && update.Exit.Error != nil:
			view := update.Exit.Error
			return update.Exit.ExitCode, &dstack.Error{Kind: view.Kind, Message: view.Message, Hint: view.Hint}
		case update.Exit != nil:
			return update.Exit.ExitCode, nil
		case update.Started != nil && s.streams.Started != nil:
			s.streams.Started(*update.Started)
		}
		s.addCredit(update.Consumed)
	}
}

func (s *execSession) writeOutput(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	out := s.streams.Stdout
	if data[0] == ExecStderr {
		out = s.streams.Stderr
	}
	_, err := out.Write(data[1:])
	return err
}

// brokenError returns the error of a connection that ended before the command.
func (s *execSession) brokenError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &dstack.Error{Kind: dstack.Unavailable, Cause: err,
		Message: "the connection to the dstack server at " + s.client.base().String() + " broke, and the command was ended",
		Hint:    "run it again; a command that must go on belongs in the service"}
}
