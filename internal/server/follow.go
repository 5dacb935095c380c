package server

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

const (
	maxTrailingOutput = 10 * time.Second // that output may take to arrive once a run has finished
	maxLineTime       = time.Minute      // that a client may take for one line
)

// logFollower streams a run's output: first what there is, by time, then what
// comes, by attempt.
type logFollower struct {
	s     *Server
	in    api.FollowLogs
	run   dstack.RunID
	out   *lineWriter
	since map[dstack.AttemptID]time.Time // the newest line sent of each attempt
}

// attemptSource is one attempt whose output is followed.
type attemptSource struct {
	key     logs.Key
	replica int
	present bool
}

// followLogs ends when its client does, when there is no more, or, following,
// when the run has finished and all of its output was sent.
func (s *Server) followLogs(c *request) error {
	in, err := decodeBody[api.FollowLogs](c)
	if err != nil {
		return err
	}
	w, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return err
	}
	f := &logFollower{s: s, in: in, run: w.Run.ID, out: newLineWriter(c.w), since: map[dstack.AttemptID]time.Time{}}
	sources := f.listSources(w)
	if in.CurrentOnly {
		sources = slices.DeleteFunc(sources, func(src attemptSource) bool {
			if !src.present {
				f.since[src.key.Attempt] = skipped
			}
			return !src.present
		})
	}
	err = f.sendHistory(c.ctx, sources)
	if err == nil && in.Follow {
		err = f.followLive(c.ctx)
	}
	if c.ctx.Err() != nil {
		// The client is gone, or the server is going: cut, so that nobody takes
		// it for the end of the output.
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		s.log.Warn("a stream of output broke", "run", in.RunName, "err", err)
		_ = f.out.writeAndFlush(api.LogEntry{Error: "output was lost: " + wire.BuildErrorView(err).Message}) // it breaks off either way
	}
	f.out.clearDeadline()
	return nil
}

// skipped stands for attempts that are not wanted.
var skipped = time.Unix(1<<40, 0)

// listSources is a run's attempts, by replica and then by age.
func (f *logFollower) listSources(w store.RunDetails) []attemptSource {
	var all []attemptSource
	for _, r := range w.Replicas {
		if f.in.Replica != nil && *f.in.Replica != r.Num {
			continue
		}
		add := func(id dstack.AttemptID, present bool) {
			key := logs.Key{Project: w.Run.Project, Run: w.Run.ID, RunName: w.Run.Name, Attempt: id}
			all = append(all, attemptSource{key: key, replica: r.Num, present: present})
		}
		for _, past := range r.PastAttempts {
			if past.ID != r.Attempt {
				add(past.ID, false)
			}
		}
		if r.Attempt != "" {
			add(r.Attempt, !r.Status.IsFinished() || w.Run.Status.IsFinished())
		}
	}
	return all
}

// resumeTime is where an attempt's output is gone on with.
func (f *logFollower) resumeTime(id dstack.AttemptID) time.Time {
	if sent, ok := f.since[id]; ok {
		return sent
	}
	if seen, ok := f.in.After[id]; ok {
		return seen
	}
	return orZero(f.in.StartTime)
}

func (f *logFollower) newEntry(src attemptSource, line dstack.LogLine) api.LogEntry {
	return api.LogEntry{Timestamp: line.At.UTC(), Replica: src.replica, Attempt: src.key.Attempt, Stream: line.Stream, Message: line.Text}
}

// sendHistory sends what there is, the lines of all replicas in one order.
func (f *logFollower) sendHistory(ctx context.Context, sources []attemptSource) error {
	var heads []*mergeHead
	defer func() {
		for _, h := range heads {
			h.stop()
		}
	}()
	for _, chain := range groupByReplica(sources) {
		h := newMergeHead(f.readReplica(ctx, chain))
		heads = append(heads, h)
		if err := h.advance(); err != nil {
			return err
		}
	}
	for {
		first := earliestHead(heads)
		if first == nil {
			return f.out.flush()
		}
		if err := f.out.writeEntry(first.entry); err != nil {
			return err
		}
		f.since[first.entry.Attempt] = first.entry.Timestamp
		if err := first.advance(); err != nil {
			return err
		}
	}
}

func groupByReplica(sources []attemptSource) [][]attemptSource {
	var chains [][]attemptSource
	index := map[int]int{}
	for _, src := range sources {
		i, ok := index[src.replica]
		if !ok {
			i = len(chains)
			index[src.replica] = i
			chains = append(chains, nil)
		}
		chains[i] = append(chains[i], src)
	}
	return chains
}

// readReplica is the output of one replica's attempts, one after the other.
func (f *logFollower) readReplica(ctx context.Context, sources []attemptSource) iter.Seq2[api.LogEntry, error] {
	return func(yield func(api.LogEntry, error) bool) {
		for _, src := range sources {
			for line, err := range f.s.logs.Read(ctx, src.key, f.resumeTime(src.key.Attempt), time.Time{}) {
				if !yield(f.newEntry(src, line), err) {
					return
				}
			}
		}
	}
}

// mergeHead is the next line of one replica.
type mergeHead struct {
	next  func() (api.LogEntry, error, bool)
	stop  func()
	entry api.LogEntry
	ended bool
}

func newMergeHead(lines iter.Seq2[api.LogEntry, error]) *mergeHead {
	next, stop := iter.Pull2(lines)
	return &mergeHead{next: next, stop: stop}
}

func (h *mergeHead) advance() error {
	entry, err, ok := h.next()
	h.entry, h.ended = entry, !ok
	return err
}

func earliestHead(heads []*mergeHead) *mergeHead {
	var first *mergeHead
	for _, h := range heads {
		if !h.ended && (first == nil || h.entry.Timestamp.Before(first.entry.Timestamp)) {
			first = h
		}
	}
	return first
}

// followLive sends what comes, of the attempts there are and of those to come.
func (f *logFollower) followLive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	lines, ended := make(chan api.LogEntry), make(chan struct{}, 1)
	followed, open := map[dstack.AttemptID]bool{}, 0
	defer func() {
		cancel()
		_ = group.Wait() // they end with ctx; their errors were sent
	}()
	var over <-chan time.Time // set once the run has finished
	for {
		news := f.s.broadcast.Changed()
		found, err := f.s.store.RunDetails(ctx, f.run)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, src := range f.listSources(found[0]) {
			if from := f.resumeTime(src.key.Attempt); !followed[src.key.Attempt] && from != skipped {
				followed[src.key.Attempt] = true
				open++
				group.Go(func() error { return f.copyAttempt(ctx, src, from, lines, ended) })
			}
		}
		if finished := found[0].Run.Status.IsFinished(); finished && open == 0 {
			return nil
		} else if finished && over == nil {
			over = time.After(maxTrailingOutput)
		}
		stop, err := f.forwardLines(ctx, lines, ended, news, over, &open)
		if stop || err != nil {
			return err
		}
	}
}

// forwardLines sends lines until it is time to look at the run again.
func (f *logFollower) forwardLines(ctx context.Context, lines <-chan api.LogEntry, ended <-chan struct{}, news <-chan struct{}, over <-chan time.Time, open *int) (stop bool, err error) {
	again := time.NewTimer(recheckInterval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case entry := <-lines:
			if entry.Error == "" {
				f.since[entry.Attempt] = entry.Timestamp
			}
			if err := f.out.writeAndFlush(entry); err != nil {
				return true, err
			}
		case <-ended:
			*open--
			return false, nil
		case <-over:
			return true, nil
		case <-news:
			return false, nil
		case <-again.C:
			return false, nil
		}
	}
}

// copyAttempt passes one attempt's lines on until there are no more.
func (f *logFollower) copyAttempt(ctx context.Context, src attemptSource, from time.Time, lines chan<- api.LogEntry, ended chan<- struct{}) error {
	pass := func(entry api.LogEntry) bool {
		select {
		case lines <- entry:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for line, err := range f.s.logs.Follow(ctx, src.key, from) {
		entry := f.newEntry(src, line)
		if err != nil {
			entry = api.LogEntry{Timestamp: now(), Replica: src.replica, Attempt: src.key.Attempt, Error: "output was lost: " + wire.BuildErrorView(err).Message}
		}
		if ctx.Err() != nil || !pass(entry) || err != nil {
			break
		}
	}
	select {
	case ended <- struct{}{}:
	case <-ctx.Done():
	}
	return nil
}

// lineWriter writes one JSON document a line.
type lineWriter struct {
	control *http.ResponseController
	encoder *json.Encoder
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	lw := &lineWriter{control: http.NewResponseController(w), encoder: json.NewEncoder(w)}
	lw.encoder.SetEscapeHTML(false)
	_ = lw.flush() // the first write tells of a client that is gone
	return lw
}

func (lw *lineWriter) writeEntry(entry api.LogEntry) error {
	_ = lw.control.SetWriteDeadline(time.Now().Add(maxLineTime)) // where it can be set
	return lw.encoder.Encode(entry)
}

// clearDeadline frees the connection for what comes after.
func (lw *lineWriter) clearDeadline() { _ = lw.control.SetWriteDeadline(time.Time{}) }

func (lw *lineWriter) flush() error { return lw.control.Flush() }

// writeAndFlush writes a line and sees it off at once.
func (lw *lineWriter) writeAndFlush(entry api.LogEntry) error {
	if err := lw.writeEntry(entry); err != nil {
		return err
	}
	return lw.flush()
}
