package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// sinceOverlap is how much earlier than requested the output is read. engine.MonotonicClock may move the time of a line, and
// gives it the same time again only if it has seen the lines before it.
const sinceOverlap = time.Second

// maxLineBytes is the length at which lines are split.
const maxLineBytes = 32 << 10

// Pauses before the output of a running attempt is read again.
const (
	minLogPause = 300 * time.Millisecond
	maxLogPause = 5 * time.Second
)

// Limits on the last lines of a report.
const (
	lastLines        = 10
	maxLastLineBytes = 2 << 10
)

// Logs implements engine.Engine. It goes on after a lost connection, and ends with the output that was kept of a pod that was
// deleted.
func (e *Engine) Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		name, err := e.waitUntilStarted(ctx, id)
		r := &logFollower{Engine: e, id: id, pod: name, last: since, yield: func(l dstack.LogLine) bool { return yield(l, nil) }}
		if err == nil && name != "" {
			err = r.follow(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, errReaderStopped) {
			return
		}
		if err == nil || errors.Is(err, errOutputLost) {
			if kept := r.findKept(); kept != nil {
				err = r.yieldKept(ctx, kept)
			}
		}
		if err != nil && !errors.Is(err, errReaderStopped) && ctx.Err() == nil {
			yield(dstack.LogLine{}, fmt.Errorf("cannot read the pod's output: %w", err))
		}
	}
}

// waitUntilStarted waits until the command of an attempt has begun or ended, and returns its pod; empty: it has none.
func (e *Engine) waitUntilStarted(ctx context.Context, id dstack.AttemptID) (pod string, err error) {
	if id == "" {
		return "", nil
	}
	if err := e.waitUntilListed(ctx); err != nil {
		return "", err
	}
	for {
		if s := e.findStartup(id); s != nil {
			select {
			case <-s.done:
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		index := e.refresh()
		found := index.byAttempt[kubeclient.LabelValue(string(id))]
		if found == nil || isRunning(found) || isOver(found) {
			if found == nil {
				return "", nil
			}
			return found.Name, nil
		}
		if err := loop.SleepUntil(ctx, maxObservePause, index.changed); err != nil {
			return "", err
		}
	}
}

var errReaderStopped = errors.New("the reader has stopped")

// logFollower yields the output of an attempt after a time.
type logFollower struct {
	*Engine
	id    dstack.AttemptID
	pod   string
	last  time.Time // of the last line that was yielded, or the time after which lines are wanted
	yield func(dstack.LogLine) bool
}

// follow yields the output until the pod has ended, or is gone.
func (r *logFollower) follow(ctx context.Context) error {
	pause := minLogPause
	for {
		before := r.last
		err := r.readOnce(ctx)
		if errors.Is(err, errReaderStopped) || ctx.Err() != nil {
			return err
		}
		pod := r.refresh().byAttempt[kubeclient.LabelValue(string(r.id))]
		switch meaning := kubeclient.MeaningOf(err); {
		case pod == nil, meaning == kubeclient.NotFound, err == nil && isOver(pod):
			return nil
		case err == nil, kubeclient.IsAway(err), meaning == kubeclient.ContainerWaits, meaning == kubeclient.NodeUnreachable:
		case errors.Is(err, errOutputLost), isOver(pod):
			return err
		}
		if pause = min(2*pause, maxLogPause); r.last.After(before) {
			pause = minLogPause
		}
		if err := loop.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// readOnce yields what one request returns.
func (r *logFollower) readOnce(ctx context.Context) error {
	request := kubeclient.LogRequest{Pod: r.pod, Container: mainContainer, Follow: true}
	if !r.last.IsZero() {
		request.Since = r.last.Add(-sinceOverlap)
	}
	stream, err := r.client.OpenLogs(ctx, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	return readLines(stream, r.last, func(l dstack.LogLine) bool {
		r.last = l.At
		return r.yield(l)
	})
}

// findKept returns the output that was kept of the attempt; nil: none.
func (r *logFollower) findKept() *keptOutput {
	index := r.refresh()
	r.mu.Lock()
	defer r.mu.Unlock()
	if pod := index.byAttempt[kubeclient.LabelValue(string(r.id))]; pod != nil && r.tracked[pod.UID] != nil {
		return r.tracked[pod.UID].kept
	}
	return r.ended[r.id].kept
}

// yieldKept yields the lines of kept output that were not yielded yet.
func (r *logFollower) yieldKept(ctx context.Context, kept *keptOutput) error {
	select {
	case <-kept.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, l := range kept.all() {
		if l.At.After(r.last) && !r.yield(l) {
			return errReaderStopped
		}
	}
	return nil
}

var errOutputLost = errors.New("the node has deleted the output")

// readLines reads output in which each line begins with its time, and yields the lines after a time.
func readLines(stream io.Reader, since time.Time, yield func(dstack.LogLine) bool) error {
	lines := bufio.NewReaderSize(stream, maxLineBytes)
	var clock engine.MonotonicClock
	at, isContinued := time.Time{}, false
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			text := line
			if !isContinued {
				var ok bool
				if at, text, ok = cutTime(line); !ok {
					return fmt.Errorf("%w: %.200s", errOutputLost, bytes.TrimSpace(line))
				}
			}
			isContinued = errors.Is(err, bufio.ErrBufferFull)
			text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
			l := dstack.LogLine{At: clock.Next(at), Stream: "stdout", Text: bytes.Clone(text)}
			if l.At.After(since) && !yield(l) {
				return errReaderStopped
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// cutTime returns the time at the beginning of a line, and the text after it.
func cutTime(line []byte) (at time.Time, text []byte, ok bool) {
	stamp, text, _ := bytes.Cut(line, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(bytes.TrimSpace(stamp)))
	return at, text, err == nil
}

// fetchLastLines returns the last lines of a pod's output.
func (c *Cluster) fetchLastLines(ctx context.Context, pod string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.client.OpenLogs(ctx, kubeclient.LogRequest{Pod: pod, Container: mainContainer, TailLines: lastLines})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var lines []dstack.LogLine
	err = readLines(stream, time.Time{}, func(l dstack.LogLine) bool {
		lines = append(lines, l)
		return true
	})
	return lastTexts(lines), err
}

// lastTexts returns the texts of the last lines.
func lastTexts(lines []dstack.LogLine) []string {
	var texts []string
	for _, l := range lines[max(0, len(lines)-lastLines):] {
		texts = append(texts, string(l.Text[:min(len(l.Text), maxLastLineBytes)]))
	}
	return texts
}
