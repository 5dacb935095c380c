package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

const (
	maxTrailingTime = 10 * time.Second // wait for the last output of a finished run
	maxLineTime     = time.Minute      // time for a client to receive one line
)

// logStream streams the logs of a run: first the stored lines of all replicas,
// ordered by time, then new lines as they are written.
type logStream struct {
	server  *Server
	call    *apiCall
	request api.FollowLogs
	run     dstack.RunID
	lines   *lineWriter
	sent    map[dstack.AttemptID]time.Time // time of the last line sent of each attempt
}

// attemptSource is an attempt whose logs are streamed.
type attemptSource struct {
	key     logs.Key
	replica int
	current bool // it has not ended, or ended last in a run that has ended
}

// followLogs streams the logs of a run. The stream ends after the stored lines
// or, with Follow, once the run has finished and all of its output was sent.
func (s *Server) followLogs(c *apiCall) error {
	in, err := decodeBody[api.FollowLogs](c)
	if err != nil {
		return err
	}
	details, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return err
	}
	if err := checkReplica(in, details); err != nil {
		return err
	}
	f := &logStream{server: s, call: c, request: in, run: details.Run.ID, lines: newLineWriter(c.w),
		sent: map[dstack.AttemptID]time.Time{}}
	sources := f.listSources(details)
	if in.CurrentOnly {
		sources = slices.DeleteFunc(sources, func(src attemptSource) bool {
			if !src.current {
				f.sent[src.key.Attempt] = skipAttempt
			}
			return !src.current
		})
	}
	defer c.endWhenStopping()()
	if err = f.applyTail(c.ctx, sources); err == nil {
		err = f.sendHistory(c.ctx, sources)
	}
	if err == nil && in.Follow {
		err = f.followLive(c.ctx)
	}
	if c.ctx.Err() != nil {
		// The client has disconnected or the server is stopping. Abort the
		// connection, so that no client takes this for the end of the logs.
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		s.log.Warn("a log stream failed", "run", in.RunName, "err", err)
		_ = f.lines.writeAndFlush(newLossEntry(err)) // the stream ends either way
	}
	f.lines.clearDeadline()
	return nil
}

// checkReplica returns an error of kind NotFound if the run does not have the
// replica of a request. A request with Follow may name a replica that the run
// may still get.
func checkReplica(in api.FollowLogs, details store.RunDetails) error {
	if in.Replica == nil || in.Follow && *in.Replica < details.Run.Spec.Configuration.Replicas.Max {
		return nil
	}
	for _, r := range details.Replicas {
		if r.Num == *in.Replica {
			return nil
		}
	}
	return newNoReplicaError(details, *in.Replica)
}

// newNoReplicaError returns the error that a run does not have a replica.
func newNoReplicaError(details store.RunDetails, num int) error {
	existing := map[int]bool{}
	for _, r := range details.Replicas {
		existing[r.Num] = true
	}
	nums := make([]string, 0, len(existing))
	for _, num := range slices.Sorted(maps.Keys(existing)) {
		nums = append(nums, "replica "+strconv.Itoa(num))
	}
	name := details.Run.Name
	return &dstack.Error{Kind: dstack.NotFound, Hint: "list the replicas: dstack ps " + name,
		Message: fmt.Sprintf("%s has no replica %d; there is: %s", name, num, cmp.Or(strings.Join(nums, ", "), "none"))}
}

// newLossEntry returns the entry that reports that output cannot be read.
func newLossEntry(err error) api.LogEntry {
	return api.LogEntry{Error: "output was lost: " + wire.BuildErrorView(err).Message}
}

// skipAttempt in logStream.sent excludes an attempt. It is later than any line.
var skipAttempt = time.Unix(1<<40, 0)

// listSources lists the attempts of a run that the request asks for, by replica
// and then oldest first.
func (f *logStream) listSources(details store.RunDetails) []attemptSource {
	var all []attemptSource
	for _, r := range details.Replicas {
		if f.request.Replica != nil && *f.request.Replica != r.Num {
			continue
		}
		add := func(id dstack.AttemptID, current bool) {
			key := logs.Key{Project: details.Run.Project, Run: details.Run.ID, RunName: details.Run.Name, Attempt: id}
			all = append(all, attemptSource{key: key, replica: r.Num, current: current})
		}
		for _, past := range r.PastAttempts {
			if past.ID != r.Attempt {
				add(past.ID, false)
			}
		}
		if r.Attempt != "" {
			add(r.Attempt, !r.Status.IsFinished() || details.Run.Status.IsFinished())
		}
	}
	return all
}

// findResumeTime returns the time after which an attempt's lines are to be
// sent.
func (f *logStream) findResumeTime(id dstack.AttemptID) time.Time {
	if sent, ok := f.sent[id]; ok {
		return sent
	}
	if received, ok := f.request.After[id]; ok {
		return received
	}
	return orZero(f.request.StartTime)
}

func (f *logStream) newEntry(src attemptSource, line dstack.LogLine) api.LogEntry {
	return api.LogEntry{Timestamp: line.At.UTC(), Replica: src.replica, Attempt: src.key.Attempt,
		Stream: line.Stream, Message: line.Text}
}

// sendHistory sends the stored lines of all replicas, merged by time.
func (f *logStream) sendHistory(ctx context.Context, sources []attemptSource) error {
	var heads []*mergeHead
	defer func() {
		for _, h := range heads {
			h.stop()
		}
	}()
	for _, chain := range groupByReplica(sources) {
		h := newMergeHead(f.readReplica(ctx, chain))
		heads = append(heads, h)
		if err := h.readNext(); err != nil {
			return err
		}
	}
	for {
		first := findEarliest(heads)
		if first == nil {
			return f.lines.flush()
		}
		if err := f.lines.writeEntry(first.entry); err != nil {
			return err
		}
		f.sent[first.entry.Attempt] = first.entry.Timestamp
		if err := first.readNext(); err != nil {
			return err
		}
	}
}

// groupByReplica splits sources into one list per replica. It keeps their
// order.
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

// readReplica yields the stored lines of one replica's attempts, one attempt
// after the other.
func (f *logStream) readReplica(ctx context.Context, sources []attemptSource) iter.Seq2[api.LogEntry, error] {
	return func(yield func(api.LogEntry, error) bool) {
		for _, src := range sources {
			for line, err := range f.server.output.Read(ctx, src.key, f.findResumeTime(src.key.Attempt), time.Time{}) {
				if !yield(f.newEntry(src, line), err) {
					return
				}
			}
		}
	}
}

// mergeHead is the next line of one replica in a merge.
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

func (h *mergeHead) readNext() error {
	entry, err, ok := h.next()
	h.entry, h.ended = entry, !ok
	return err
}

// findEarliest returns the head with the earliest line, nil if all have ended.
func findEarliest(heads []*mergeHead) *mergeHead {
	var first *mergeHead
	for _, h := range heads {
		if !h.ended && (first == nil || h.entry.Timestamp.Before(first.entry.Timestamp)) {
			first = h
		}
	}
	return first
}

// liveLines receives the new lines of all attempts of a run.
type liveLines struct {
	entries chan api.LogEntry
	ended   chan struct{} // one value for each attempt whose lines have ended
	open    int           // attempts whose lines have not ended
}

// followLive sends new lines of the run's attempts, including attempts that
// start later.
func (f *logStream) followLive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	live := &liveLines{entries: make(chan api.LogEntry), ended: make(chan struct{}, 1)}
	followed := map[dstack.AttemptID]bool{}
	defer func() {
		cancel()
		_ = group.Wait() // copyAttempt returns no errors
	}()
	var deadline <-chan time.Time // set once the run has finished
	for {
		changed := f.server.broadcast.Changed()
		f.server.abortUnlessAuthorized(f.call)
		found, err := f.server.store.RunDetails(ctx, f.run)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, src := range f.listSources(found[0]) {
			if from := f.findResumeTime(src.key.Attempt); !followed[src.key.Attempt] && from != skipAttempt {
				followed[src.key.Attempt] = true
				live.open++
				group.Go(func() error { return f.copyAttempt(ctx, src, from, live) })
			}
		}
		if finished := found[0].Run.Status.IsFinished(); finished && live.open == 0 {
			return nil
		} else if finished && deadline == nil {
			deadline = time.After(maxTrailingTime)
		}
		if err := f.lines.keepAlive(); err != nil {
			return err
		}
		stop, err := f.forwardLines(ctx, live, changed, deadline)
		if stop || err != nil {
			return err
		}
	}
}

// forwardLines sends live lines until the run must be read again: something
// changed, an attempt ended, or recheckInterval has passed. stop reports that
// the stream is over.
func (f *logStream) forwardLines(
	ctx context.Context, live *liveLines, changed <-chan struct{}, deadline <-chan time.Time,
) (stop bool, err error) {
	recheck := time.NewTimer(recheckInterval)
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case entry := <-live.entries:
			if entry.Error == "" {
				f.sent[entry.Attempt] = entry.Timestamp
			}
			if err := f.lines.writeAndFlush(entry); err != nil {
				return true, err
			}
		case <-live.ended:
			live.open--
			return false, nil
		case <-deadline:
			return true, nil
		case <-changed:
			return false, nil
		case <-recheck.C:
			return false, nil
		}
	}
}

// copyAttempt copies the lines of one attempt to live until they end or ctx is
// done.
func (f *logStream) copyAttempt(ctx context.Context, src attemptSource, from time.Time, live *liveLines) error {
	send := func(entry api.LogEntry) bool {
		select {
		case live.entries <- entry:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for line, err := range f.server.output.Follow(ctx, src.key, from) {
		entry := f.newEntry(src, line)
		if err != nil {
			entry = newLossEntry(err)
			entry.Timestamp, entry.Replica, entry.Attempt = now(), src.replica, src.key.Attempt
		}
		if ctx.Err() != nil || !send(entry) || err != nil {
			break
		}
	}
	select {
	case live.ended <- struct{}{}:
	case <-ctx.Done():
	}
	return nil
}

// lineWriter writes a response of one JSON document per line.
type lineWriter struct {
	control *http.ResponseController
	encoder *json.Encoder
	out     io.Writer
	sentAt  time.Time // when something was last sent
}

// newLineWriter sends the header of the response.
func newLineWriter(w http.ResponseWriter) *lineWriter {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	lw := &lineWriter{control: http.NewResponseController(w), encoder: json.NewEncoder(w), out: w, sentAt: time.Now()}
	lw.encoder.SetEscapeHTML(false)
	_ = lw.flush() // a disconnected client is detected on the next write
	return lw
}

// writeEntry writes a line, which may stay in the buffer until the next flush.
func (lw *lineWriter) writeEntry(entry api.LogEntry) error {
	_ = lw.control.SetWriteDeadline(time.Now().Add(maxLineTime)) // not every writer supports deadlines
	lw.sentAt = time.Now()
	return lw.encoder.Encode(entry)
}

// keepAlive sends an empty line if nothing was sent for a while, which shows the client that the server answers.
func (lw *lineWriter) keepAlive() error {
	if time.Since(lw.sentAt) < api.StreamKeepAlive {
		return nil
	}
	lw.sentAt = time.Now()
	_ = lw.control.SetWriteDeadline(time.Now().Add(maxLineTime)) // not every writer supports deadlines
	if _, err := io.WriteString(lw.out, "\n"); err != nil {
		return err
	}
	return lw.flush()
}

// clearDeadline lifts the write deadline for the next response on the
// connection.
func (lw *lineWriter) clearDeadline() { _ = lw.control.SetWriteDeadline(time.Time{}) }

func (lw *lineWriter) flush() error { return lw.control.Flush() }

func (lw *lineWriter) writeAndFlush(entry api.LogEntry) error {
	if err := lw.writeEntry(entry); err != nil {
		return err
	}
	return lw.flush()
}
