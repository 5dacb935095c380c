package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/loop"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// Limits of runs/exec.
const (
	maxCommands       = 200              // at the same time, on this server
	maxUserCommands   = 50               // of them, of one user
	maxRequestTime    = 30 * time.Second // for the first message
	maxExitTime       = 5 * time.Second  // to send the last message
	maxExecInputBytes = api.ExecWindow + 64<<10
	maxOutputPiece    = 64 << 10 // of one message
	execKeepAlive     = 15 * time.Second
)

// execAccessInterval is the time between two checks of a caller's access.
const execAccessInterval = 15 * time.Second

// execInReplica runs a command in a replica. Errors before the WebSocket is open are ordinary
// responses; later ones are in the last message.
func (s *Server) execInReplica(c *apiCall) error {
	if !isWebSocketRequest(c.r) {
		c.w.Header().Set("Upgrade", "websocket")
		c.w.Header().Set("Connection", "Upgrade")
		return wire.StatusError{Status: http.StatusUpgradeRequired, Detail: wire.NewDetail("this call needs a WebSocket"),
			Err: &dstack.Error{Kind: dstack.Invalid, Message: "this call needs a WebSocket", Hint: "use: dstack exec RUN"}}
	}
	end, err := s.commands.begin(c.user.ID)
	if err != nil {
		return err
	}
	defer end()
	defer c.endCommandWhenStopping()()
	c.setReadDeadline(0)
	conn, err := websocket.Accept(c.w, c.r, nil)
	if err != nil {
		s.log.Debug("a WebSocket was not opened", "err", err)
		return nil // Accept has answered
	}
	x := &execCall{apiCall: c, server: s, conn: conn, input: newExecInput(), resizes: make(chan engine.TerminalSize, 1)}
	defer x.tasks.Wait()
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxExecInputBytes)
	exit := x.run()
	if x.isForwarded {
		return nil // the other server has sent the last message
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), maxExitTime)
	defer cancel()
	if x.send(ctx, api.ExecUpdate{Exit: &exit}) == nil {
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}
	return nil
}

// isWebSocketRequest reports whether a request opens a WebSocket of the only version in use.
func isWebSocketRequest(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && r.Header.Get("Sec-WebSocket-Version") == "13" &&
		strings.Contains(strings.ToLower(strings.Join(r.Header["Connection"], ",")), "upgrade") &&
		r.ProtoMajor == 1 && r.Header.Get("Sec-WebSocket-Key") != ""
}

// execCall is one call of runs/exec.
type execCall struct {
	*apiCall
	server  *Server
	conn    *websocket.Conn
	request api.ExecRequest
	// onlyAdmins: no container is around the command, so that it has the rights of the server.
	onlyAdmins bool
	// isForwarded: another server runs the command.
	isForwarded bool
	input       *execInput
	resizes     chan engine.TerminalSize
	tasks       sync.WaitGroup // end when the connection is closed
}

// run runs the command to its end.
func (x *execCall) run() api.ExecExit {
	code, err := x.runCommand()
	if err == nil {
		return api.ExecExit{ExitCode: code}
	}
	if x.ctx.Err() != nil {
		err = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping, and the command was ended",
			Hint: "run it again in a moment"}
	}
	if dstack.KindOf(err) == dstack.Internal {
		x.server.log.Warn("a command in a replica failed", "run", x.request.RunName, "err", err)
	}
	view := wire.BuildErrorView(err)
	return api.ExecExit{ExitCode: code, Error: &view}
}

func (x *execCall) runCommand() (int, error) {
	if err := x.readRequest(); err != nil {
		return 0, err
	}
	details, err := x.server.findRunDetails(x.apiCall, x.request.RunName)
	if err != nil {
		return 0, err
	}
	replica, err := chooseExecReplica(details, x.request.Replica)
	if err != nil {
		return 0, err
	}
	if machine := dstack.ServerID(details.Instances[replica.Instance].Host); x.mustForward(machine) {
		return 0, x.forward(machine)
	}
	executor, spec, err := x.findExecutor(details, replica)
	if err != nil {
		return 0, err
	}
	what := "exec: a command"
	if len(x.request.Command) == 0 {
		what = "exec: a shell"
	}
	if err := x.server.store.RecordExec(x.ctx, details.Run, replica.Num, x.user.Name, what, now()); err != nil {
		return 0, err
	}
	x.server.broadcast.Notify()
	x.server.audit(x.apiCall, what, slog.String("run", details.Run.Name), slog.Int("replica", replica.Num))
	started := api.ExecStarted{Replica: replica.Num, Attempt: replica.Attempt}
	if err := x.send(x.ctx, api.ExecUpdate{Started: &started}); err != nil {
		return 0, err
	}
	return x.execute(executor, spec)
}

// chooseExecReplica returns the replica that a command runs in: the one with the given number,
// else the ready one with the lowest number, else the running one with the lowest. It fails
// with NotFound or Conflict.
func chooseExecReplica(details store.RunDetails, num *int) (dstack.Replica, error) {
	const isReady, isRunning, isEnding, notRunning = 0, 1, 2, 3
	rank := func(r dstack.Replica) int {
		switch {
		case details.Reports[r.Attempt].State != dstack.AttemptRunning || r.Status.IsFinished():
			return notRunning
		case r.Status == dstack.ReplicaReady:
			return isReady
		case r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating:
			return isEnding
		}
		return isRunning
	}
	var best *dstack.Replica
	for i := range details.Replicas {
		r := &details.Replicas[i]
		if num != nil && r.Num != *num {
			continue
		}
		if best == nil || rank(*r) < rank(*best) || num != nil && rank(*r) == rank(*best) {
			best = r // of several with the given number, the latest
		}
	}
	name := details.Run.Name
	switch {
	case best == nil && num != nil:
		return dstack.Replica{}, newNoReplicaError(details, *num)
	case best == nil || num == nil && rank(*best) == notRunning:
		return dstack.Replica{}, &dstack.Error{Kind: dstack.Conflict, Message: name + " has no running replica",
			Hint: "see why: dstack events " + name}
	case rank(*best) == notRunning:
		message := name + ": replica " + strconv.Itoa(*num) + " does not run, it is " + string(best.Status)
		if best.Reason != "" {
			message += ": " + string(best.Reason)
		}
		return dstack.Replica{}, &dstack.Error{Kind: dstack.Conflict, Message: message, Hint: "see why: dstack events " + name}
	}
	return *best, nil
}

// findExecutor returns the engine that runs a replica, and what the replica runs.
func (x *execCall) findExecutor(
	details store.RunDetails, replica dstack.Replica,
) (engine.Executor, dstack.AttemptSpec, error) {
	var none dstack.AttemptSpec
	seen, err := x.server.store.InstanceFacts(x.ctx, replica.Instance)
	if err != nil {
		return nil, none, err
	}
	if x.onlyAdmins = !seen.Instance.Offer.Engine.Containers; x.onlyAdmins && !x.isGlobalAdmin() {
		return nil, none, newExecForbiddenError()
	}
	b, err := x.server.backends.Get(seen.Instance.Backend)
	var eng engine.Engine
	if err == nil {
		eng, err = b.Engine(x.ctx, seen.Instance.ID)
	}
	if dstack.KindOf(err) == dstack.NotFound && seen.Instance.Host != "" {
		return nil, none, &dstack.Error{Kind: dstack.Unsupported, Cause: err,
			Message: "replica " + strconv.Itoa(replica.Num) + " of " + details.Run.Name + " runs on " + seen.Instance.Offer.Type +
				", which only the server there can reach",
			Hint: "use that server: dstack config --url"}
	}
	if err != nil {
		return nil, none, err
	}
	executor, ok := eng.(engine.Executor)
	if !ok {
		return nil, none, &dstack.Error{Kind: dstack.Unsupported,
			Message: "the machine of replica " + strconv.Itoa(replica.Num) + " cannot run further commands"}
	}
	for _, placed := range seen.Replicas {
		if placed.Replica.Attempt == replica.Attempt {
			run, err := x.server.store.ResolveSecrets(x.ctx, placed.Run)
			if !x.onlyAdmins && dstack.KindOf(err) == dstack.NotFound {
				run, err = placed.Run, nil // a container has its environment already
			}
			return executor, job.BuildAttemptSpec(run, placed.Replica), err
		}
	}
	return nil, none, engine.NewNotRunningError() // it has been restarted since
}

// newExecForbiddenError returns the error for a user who may not run commands without a
// container around them.
func newExecForbiddenError() error {
	return &dstack.Error{Kind: dstack.Forbidden,
		Message: "only global admins may run commands beside plain processes: they have the rights of the server's own user",
		Hint:    "ask an admin to run it, or to use Docker for the service"}
}

// execute runs the command with the streams of the WebSocket.
func (x *execCall) execute(executor engine.Executor, spec dstack.AttemptSpec) (int, error) {
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer x.input.close()
	defer cancel(nil)
	x.tasks.Go(func() { cancel(x.receive()) })
	x.tasks.Go(func() { x.keepOpen(ctx) })
	x.tasks.Go(func() { x.checkAccess(ctx, cancel) })
	command := engine.Command{
		Argv: x.request.Command, Stdin: execStdin{ctx, x},
		Stdout: execOutput{ctx, x, api.ExecStdout}, Stderr: execOutput{ctx, x, api.ExecStderr},
	}
	if t := x.request.Terminal; t != nil {
		command.Terminal = &engine.Terminal{Type: t.Type, Size: engine.TerminalSize(t.Size), Resizes: x.resizes}
	}
	return executor.Exec(ctx, spec, command)
}

// errCallerGone is the cause of the context after the client has disconnected.
var errCallerGone = &dstack.Error{Kind: dstack.Unavailable, Message: "the client has disconnected"}

// receive receives the client's messages until the connection is closed. Its context has no
// end, because a canceled Read closes the connection before the last message.
func (x *execCall) receive() error {
	for {
		kind, data, err := x.conn.Read(context.WithoutCancel(x.ctx))
		if err != nil {
			x.input.close()
			return errCallerGone
		}
		if kind == websocket.MessageBinary {
			if !x.input.add(data) {
				return &dstack.Error{Kind: dstack.Invalid, Message: "the client has sent more input than it may"}
			}
			continue
		}
		var in api.ExecInput
		if err := json.Unmarshal(data, &in); err != nil {
			return &dstack.Error{Kind: dstack.Invalid, Message: "a message is not an ExecInput", Cause: err}
		}
		if in.End {
			x.input.close()
		}
		if in.Resize != nil {
			x.setSize(engine.TerminalSize(*in.Resize))
		}
	}
}

// setSize replaces a size that the engine has not taken yet.
func (x *execCall) setSize(size engine.TerminalSize) {
	for {
		select {
		case x.resizes <- size:
			return
		default:
		}
		select {
		case <-x.resizes:
		default:
		}
	}
}

// keepOpen sends empty messages, so that proxies keep the connection open. A client whose own
// output is blocked delays them, which does not matter: receive notices a broken connection.
func (x *execCall) keepOpen(ctx context.Context) {
	for loop.Sleep(ctx, execKeepAlive) == nil {
		if x.send(context.WithoutCancel(ctx), api.ExecUpdate{}) != nil {
			return
		}
	}
}

// checkAccess ends the command when its caller may not run it any more.
func (x *execCall) checkAccess(ctx context.Context, cancel context.CancelCauseFunc) {
	for loop.Sleep(ctx, x.server.accessInterval) == nil {
		again := *x.apiCall
		again.ctx = ctx
		err := x.server.authorize(&again)
		if err == nil && x.onlyAdmins && !again.isGlobalAdmin() {
			err = newExecForbiddenError()
		}
		switch dstack.KindOf(err) {
		case dstack.Unauthorized, dstack.Forbidden, dstack.NotFound:
			x.server.audit(x.apiCall, "a command was ended: its caller has lost access")
			cancel(err)
			return
		default: // it may, or that cannot be known now
		}
	}
}

func (x *execCall) send(ctx context.Context, update api.ExecUpdate) error {
	text, err := json.Marshal(update)
	if err != nil {
		return err
	}
	return x.conn.Write(ctx, websocket.MessageText, text)
}

// execOutput sends output to the client.
type execOutput struct {
	ctx    context.Context
	call   *execCall
	stream byte
}

func (o execOutput) Write(p []byte) (int, error) {
	for piece := range slices.Chunk(p, maxOutputPiece) {
		message := append([]byte{o.stream}, piece...)
		if err := o.call.conn.Write(o.ctx, websocket.MessageBinary, message); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// execStdin is the input from the client. It tells the client how much was consumed.
type execStdin struct {
	ctx  context.Context
	call *execCall
}

func (i execStdin) Read(p []byte) (int, error) {
	n, consumed, err := i.call.input.read(p)
	if consumed > 0 {
		_ = i.call.send(i.ctx, api.ExecUpdate{Consumed: consumed}) // receive notices a broken connection
	}
	return n, err
}
