package server

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

// attachedLogs is an HTTP server for attached clients. It listens on no port: dial is the only way to it. At /logs_ws
// there is a WebSocket with the logs of one attempt, as the runner of dstack 0.18.10 has it: one binary message for each
// line, from the first line on, until the attempt has ended.
type attachedLogs struct {
	server *Server
	conns  chan net.Conn
	closed chan struct{} // closed when the HTTP server has ended

	trailingTime time.Duration // for the last output of an attempt that has ended

	mu       sync.Mutex
	stopping bool           // no further stream begins
	streams  sync.WaitGroup // http.Server.Close does not know connections that have become a WebSocket
}

// attachedJob is the attempt whose logs a connection reads.
type attachedJob struct {
	run     dstack.RunID
	attempt dstack.AttemptID
}

func newAttachedLogs(s *Server) *attachedLogs {
	return &attachedLogs{server: s, conns: make(chan net.Conn), closed: make(chan struct{}), trailingTime: maxTrailingTime}
}

// attachedConn is a connection that was opened for an attempt.
type attachedConn struct {
	net.Conn
	job attachedJob
}

// dial opens a connection for the logs of an attempt.
func (l *attachedLogs) dial(ctx context.Context, job attachedJob) (net.Conn, error) {
	client, server := net.Pipe()
	var err error
	select {
	case l.conns <- attachedConn{server, job}:
		return client, nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = client.Close(), server.Close()
	return nil, &dstack.Error{Kind: dstack.Unavailable, Cause: err, Message: "the server cannot send logs now"}
}

// logListener passes the connections of dial to an http.Server.
type logListener struct {
	*attachedLogs
	closing chan struct{}
	close   func()
}

func newLogListener(l *attachedLogs) logListener {
	closing := make(chan struct{})
	return logListener{l, closing, sync.OnceFunc(func() { close(closing) })}
}

func (l logListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closing:
		return nil, net.ErrClosed
	}
}

func (l logListener) Close() error {
	l.close()
	return nil
}

func (l logListener) Addr() net.Addr { return logAddr{} }

// logAddr is the address of a logListener.
type logAddr struct{}

func (logAddr) Network() string { return "pipe" }
func (logAddr) String() string  { return "attached logs" }

// Limits of the HTTP server for logs.
const (
	maxLogsHeaderTime  = 10 * time.Second
	maxLogsHeaderBytes = 16 << 10
)

type attachedJobKey struct{}

// LogsTask serves the logs of attached clients until ctx ends. It runs once.
func (j *SSHJobs) LogsTask() loop.Task { return loop.Task{Name: "attached logs", Run: j.logs.serve} }

func (l *attachedLogs) serve(ctx context.Context) error {
	defer close(l.closed)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs_ws", l.serveStream)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: maxLogsHeaderTime, IdleTimeout: maxLogsHeaderTime, MaxHeaderBytes: maxLogsHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, attachedJobKey{}, conn.(attachedConn).job)
		},
		ErrorLog: slog.NewLogLogger(l.server.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(newLogListener(l))
	l.endStreams()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// beginStream counts a stream until streams.Done. It returns false if the server stops.
func (l *attachedLogs) beginStream() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopping {
		l.streams.Add(1)
	}
	return !l.stopping
}

// endStreams waits until the streams have ended.
func (l *attachedLogs) endStreams() {
	l.mu.Lock()
	l.stopping = true
	l.mu.Unlock()
	l.streams.Wait()
}

// serveStream streams the logs of the attempt that the connection was opened for. The client's forwarded port is open to
// every page in its browser: hence only pages of localhost may read it, also if a name of theirs leads there.
func (l *attachedLogs) serveStream(w http.ResponseWriter, r *http.Request) {
	if !l.beginStream() {
		panic(http.ErrAbortHandler)
	}
	defer l.streams.Done()
	if !route.IsLoopback(r.Host) {
		http.Error(w, "the host must be localhost", http.StatusForbidden)
		return
	}
	job := r.Context().Value(attachedJobKey{}).(attachedJob) // of ConnContext
	conn, err := websocket.Accept(w, r, nil)                 // refuses other origins than the host
	if err != nil {
		l.server.log.Debug("a WebSocket for logs was not opened", "err", err)
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	ctx := conn.CloseRead(r.Context()) // the client sends nothing
	err = l.sendLogs(ctx, conn, job)
	if ctx.Err() != nil {
		return // the client has disconnected, or the server stops
	}
	if err != nil {
		l.server.log.Warn("a log stream failed", "run", job.run, "err", err)
		_ = writeLogMessage(ctx, conn, []byte(newLossEntry(err).Error)) // the stream ends either way
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
}

// sendLogs sends the lines of an attempt until they end.
func (l *attachedLogs) sendLogs(ctx context.Context, conn *websocket.Conn, job attachedJob) error {
	run, err := l.server.store.RunOfAttempt(ctx, job.attempt)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel()
	watcher.Go(func() {
		defer cancel()
		l.waitForEnd(ctx, job)
	})
	key := logs.Key{Project: run.Project, Run: run.ID, RunName: run.Name, Attempt: job.attempt}
	for line, err := range l.server.output.Follow(ctx, key, time.Time{}) {
		if err != nil {
			return err
		}
		if writeLogMessage(ctx, conn, line.Text) != nil {
			return nil // the client has disconnected
		}
	}
	return nil
}

// writeLogMessage sends a line with its line break, because clients print messages as they are.
func writeLogMessage(ctx context.Context, conn *websocket.Conn, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, maxLineTime)
	defer cancel()
	return conn.Write(ctx, websocket.MessageBinary, append(bytes.Clone(text), '\n'))
}

// waitForEnd waits until an attempt has ended and its last output has had time to arrive, or ctx ends. The stream of its
// logs usually ends earlier by itself.
func (l *attachedLogs) waitForEnd(ctx context.Context, job attachedJob) {
	for {
		changed := l.server.broadcast.Changed()
		found, err := l.server.store.RunDetails(ctx, job.run)
		if err == nil && (len(found) == 0 || hasAttemptEnded(found[0], job.attempt)) {
			_ = loop.Sleep(ctx, l.trailingTime) // returns early when ctx ends
			return
		}
		if again, _ := waitForChange(ctx, changed, nil); !again {
			return // ctx has ended
		}
	}
}

// hasAttemptEnded reports whether nothing of an attempt runs any more.
func hasAttemptEnded(details store.RunDetails, attempt dstack.AttemptID) bool {
	for _, r := range details.Replicas {
		if r.Attempt == attempt {
			return r.Status.IsFinished() || details.Reports[attempt].State.IsOver()
		}
	}
	return true // another attempt has followed
}
