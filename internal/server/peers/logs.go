package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
)

const (
	lineKeepAlive  = 2 * time.Second // between two empty lines of a stream
	maxLineSilence = 8 * time.Second // after that, the other server is taken for frozen
	followPause    = 300 * time.Millisecond
	maxLineJSON    = 1 << 20
)

// logsRequest asks for the output of an attempt.
type logsRequest struct {
	Key    logs.Key  `json:"key"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Follow bool      `json:"follow"`
	Lines  int       `json:"lines"` // of pathLogTail
}

// logState is how much output of an attempt a server has.
type logState struct {
	Last       time.Time `json:"last"` // zero: none
	IsFinished bool      `json:"finished"`
}

// logTail is the result of logs.Store.FindTail.
type logTail struct {
	Start time.Time `json:"start"`
	Found int       `json:"found"`
}

// logMessage is one line of a stream: a line of output, an error, or the end. An empty message keeps the stream open.
type logMessage struct {
	Line  *dstack.LogLine `json:"line,omitempty"`
	Error string          `json:"error,omitempty"`
	IsEnd bool            `json:"end,omitempty"`
}

// Logs reads the output of attempts, on whichever server it lies. It has the methods of *logs.Store for reading.
type Logs struct {
	local     *logs.Store
	directory *Directory
	// findServer returns the server that copies the output of an attempt now; empty: none, or it is not known.
	findServer func(ctx context.Context, attempt dstack.AttemptID) (dstack.ServerID, error)
}

// NewLogs returns a reader of all servers' output.
func NewLogs(local *logs.Store, d *Directory, findServer func(context.Context, dstack.AttemptID) (dstack.ServerID, error)) *Logs {
	return &Logs{local: local, directory: d, findServer: findServer}
}

// source is where the output of an attempt is read; nil: here.
type source = *dstack.Server

// choose returns the server that has most of an attempt's output, except those in failed. An error means that the server that
// should have it cannot be asked.
func (l *Logs) choose(ctx context.Context, k logs.Key, failed map[dstack.ServerID]bool) (source, error) {
	own := l.localState(k)
	if own.IsFinished {
		return nil, nil
	}
	writer, err := l.findServer(ctx, k.Attempt)
	if err != nil {
		return nil, err
	}
	if writer == l.directory.Self() {
		return nil, nil
	}
	others := l.directory.others()
	states := l.listStates(ctx, others, k)
	best, chosen := own, source(nil)
	for i, state := range states {
		s := others[i]
		if state == nil || failed[s.ID] {
			continue
		}
		isMore := state.IsFinished && !best.IsFinished || state.IsFinished == best.IsFinished && state.Last.After(best.Last)
		if isMore || best.Last.IsZero() && !best.IsFinished && s.ID == writer {
			best, chosen = *state, &others[i]
		}
	}
	if chosen == nil && best.Last.IsZero() && writer != "" {
		_, err := l.directory.find(writer)
		return nil, err
	}
	return chosen, nil
}

func (l *Logs) localState(k logs.Key) logState {
	return logState{Last: l.local.Last(k), IsFinished: l.local.Finished(k)}
}

// listStates asks servers what they have of an attempt's output; nil: the server does not answer.
func (l *Logs) listStates(ctx context.Context, servers []dstack.Server, k logs.Key) []*logState {
	states := make([]*logState, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		asking.Go(func() {
			var state logState
			if l.directory.call(ctx, s, pathLogStates, logsRequest{Key: k}, &state) == nil {
				states[i] = &state
			}
		})
	}
	asking.Wait()
	return states
}

// Read is logs.Store.Read for the output of all servers.
func (l *Logs) Read(ctx context.Context, k logs.Key, since, until time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		failed := map[dstack.ServerID]bool{}
		for {
			from, err := l.choose(ctx, k, failed)
			if err != nil {
				yield(dstack.LogLine{}, err)
				return
			}
			goOn := func(line dstack.LogLine, err error) bool {
				if err == nil {
					since = line.At
				}
				return yield(line, err)
			}
			if from == nil {
				for line, err := range l.local.Read(ctx, k, since, until) {
					if !goOn(line, err) {
						return
					}
				}
				return
			}
			isStopped, err := l.readRemote(ctx, *from, logsRequest{Key: k, Since: since, Until: until}, goOn)
			if isStopped || err == nil {
				return
			}
			if ctx.Err() != nil || len(failed) > len(l.directory.others()) {
				yield(dstack.LogLine{}, err)
				return
			}
			failed[from.ID] = true
		}
	}
}

// Follow is logs.Store.Follow for the output of all servers. It goes on with another server when one stops.
func (l *Logs) Follow(ctx context.Context, k logs.Key, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		goOn := func(line dstack.LogLine, err error) bool {
			if err == nil {
				since = line.At
			}
			return yield(line, err)
		}
		for {
			from, err := l.choose(ctx, k, nil)
			if err == nil && from == nil {
				if isStopped := l.followLocal(ctx, k, since, goOn); isStopped {
					return
				}
				continue
			}
			if err == nil {
				isStopped, err := l.readRemote(ctx, *from, logsRequest{Key: k, Since: since, Follow: true}, goOn)
				if isStopped || err == nil {
					return
				}
				l.directory.log.Info("output is followed on another server", "attempt", k.Attempt, "err", err)
			}
			if loop.Sleep(ctx, followPause) != nil {
				return
			}
		}
	}
}

// recheckInterval is how often a follower of this server's own output checks whether another server has more.
const recheckInterval = 5 * time.Second

// followLocal follows the output on this server. isStopped is false if another server may have more, after it went on with the
// machine.
func (l *Logs) followLocal(ctx context.Context, k logs.Key, since time.Time, yield func(dstack.LogLine, error) bool) (isStopped bool) {
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	var checking sync.WaitGroup
	defer checking.Wait()
	defer cancel()
	checking.Go(func() {
		defer cancel()
		for loop.Sleep(following, recheckInterval) == nil {
			if from, err := l.choose(following, k, nil); err == nil && from != nil {
				return
			}
		}
	})
	for line, err := range l.local.Follow(following, k, since) {
		if !yield(line, err) {
			return true
		}
	}
	return following.Err() == nil || ctx.Err() != nil
}

// FindTail is logs.Store.FindTail for the output of all servers.
func (l *Logs) FindTail(ctx context.Context, k logs.Key, since, until time.Time, n int) (start time.Time, found int, err error) {
	from, err := l.choose(ctx, k, nil)
	if err != nil {
		return since, 0, nil //nolint:nilerr // Read tells it
	}
	if from == nil {
		return l.local.FindTail(ctx, k, since, until, n)
	}
	var tail logTail
	err = l.directory.call(ctx, *from, pathLogTail, logsRequest{Key: k, Since: since, Until: until, Lines: n}, &tail)
	return tail.Start, tail.Found, err
}

// RemoveElsewhere deletes the output of a run, or of all runs of a project if run is empty, on the other servers. One that does
// not answer keeps it until its limit.
func (l *Logs) RemoveElsewhere(ctx context.Context, project, run string) {
	var asking sync.WaitGroup
	for _, s := range l.directory.others() {
		asking.Go(func() {
			var done struct{}
			if err := l.directory.call(ctx, s, pathRemoveLogs, logs.Key{Project: project, RunName: run}, &done); err != nil {
				l.directory.log.Info("output is not removed on another server", "server", s.ID, "project", project, "run", run, "err", err)
			}
		})
	}
	asking.Wait()
}

// readRemote yields the lines of another server. It returns an error if that server stops before the end, and isStopped if the
// caller wants no more.
func (l *Logs) readRemote(
	ctx context.Context, from dstack.Server, ask logsRequest, yield func(dstack.LogLine, error) bool,
) (isStopped bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxLineSilence, func() { cancel(errors.New("it sends nothing any more")) })
	defer silence.Stop()
	response, err := l.directory.post(ctx, from, pathLogLines, ask)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLineJSON)
	for lines.Scan() {
		silence.Reset(maxLineSilence)
		var m logMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return false, newPeerError(from, err)
		}
		switch {
		case m.IsEnd:
			return false, nil
		case m.Error != "":
			return !yield(dstack.LogLine{}, &dstack.Error{Kind: dstack.Unavailable, Message: m.Error}), nil
		case m.Line != nil:
			if !yield(*m.Line, nil) {
				return true, nil
			}
		}
	}
	cause := context.Cause(ctx)
	if cause == nil {
		if cause = lines.Err(); cause == nil {
			cause = errors.New("the connection has ended")
		}
	}
	return false, newPeerError(from, cause)
}

func (h *Handler) listLogStates(w http.ResponseWriter, r *http.Request) {
	in, ok := decode[logsRequest](w, r)
	if ok {
		h.answer(w, logState{Last: h.output.Last(in.Key), IsFinished: h.output.Finished(in.Key)})
	}
}

func (h *Handler) findTail(w http.ResponseWriter, r *http.Request) {
	in, ok := decode[logsRequest](w, r)
	if !ok {
		return
	}
	start, found, err := h.output.FindTail(r.Context(), in.Key, in.Since, in.Until, in.Lines)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	h.answer(w, logTail{start, found})
}

func (h *Handler) removeLogs(w http.ResponseWriter, r *http.Request) {
	in, ok := decode[logs.Key](w, r)
	if !ok {
		return
	}
	remove := func() error { return h.output.Remove(in.Project, in.RunName) }
	if in.RunName == "" {
		remove = func() error { return h.output.RemoveProject(in.Project) }
	}
	if err := remove(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	h.answer(w, struct{}{})
}

// sendLines sends the stored output of an attempt, and with Follow also what is added.
func (h *Handler) sendLines(w http.ResponseWriter, r *http.Request) {
	in, ok := decode[logsRequest](w, r)
	if !ok {
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if stopping, ok := ctx.Value(stoppingKey{}).(context.Context); ok {
		defer context.AfterFunc(stopping, cancel)()
	}
	out := &lineSender{encoder: json.NewEncoder(w), control: control}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	_ = control.Flush() // a server that is gone shows in the next write
	var alive sync.WaitGroup
	defer alive.Wait()
	defer cancel()
	alive.Go(func() {
		for loop.Sleep(ctx, lineKeepAlive) == nil {
			if out.send(logMessage{}) != nil {
				cancel()
			}
		}
	})
	lines := h.output.Read(ctx, in.Key, in.Since, in.Until)
	if in.Follow {
		lines = h.output.Follow(ctx, in.Key, in.Since)
	}
	for line, err := range lines {
		m := logMessage{Line: &line}
		if err != nil {
			m = logMessage{Error: err.Error()}
		}
		if out.send(m) != nil {
			return
		}
	}
	if ctx.Err() == nil {
		_ = out.send(logMessage{IsEnd: true}) // without it, the other server asks again
	}
}

// lineSender sends messages, by two goroutines.
type lineSender struct {
	mu      sync.Mutex
	encoder *json.Encoder
	control *http.ResponseController
}

func (s *lineSender) send(m logMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.control.SetWriteDeadline(time.Now().Add(maxLineSilence)) // not every writer supports deadlines
	if err := s.encoder.Encode(m); err != nil {
		return err
	}
	return s.control.Flush()
}
