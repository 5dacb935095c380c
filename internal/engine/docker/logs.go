package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// sinceOverlap is how much earlier than requested the log is read. engine.MonotonicClock
// may move the time of a line, and gives it the same time again only if it has seen
// the lines before it.
const sinceOverlap = 50 * time.Millisecond

// Limits on what is read. Docker splits lines at 16 KiB.
const (
	maxFrameBytes = 1 << 20
	maxLineBytes  = 32 << 10
)

// Logs implements engine.Engine.
func (e *Engine) Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		if s := e.findStartup(id); s != nil {
			select {
			case <-s.done:
			case <-ctx.Done():
				return
			}
		}
		found, err := e.findContainer(ctx, id)
		if found == nil || ctx.Err() != nil {
			if err != nil && ctx.Err() == nil {
				yield(dstack.LogLine{}, err)
			}
			return
		}
		options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: true}
		if !since.IsZero() {
			options.Since = since.Add(-sinceOverlap).UTC().Format(time.RFC3339Nano)
		}
		stream, err := e.streams.ContainerLogs(ctx, found.ID, options)
		if err == nil {
			defer stream.Close()
			err = demuxLogs(stream, since, func(l dstack.LogLine) bool { return yield(l, nil) })
		}
		if err != nil && !errors.Is(err, errReaderStopped) && !errdefs.IsNotFound(err) && ctx.Err() == nil {
			if isConnectionLost(err) {
				err = e.newUnreachableError(err)
			}
			yield(dstack.LogLine{}, fmt.Errorf("cannot read the container's output: %w", err))
		}
	}
}

// readLastLines returns the last lines of a container's output; none if they cannot be
// read.
func (e *Engine) readLastLines(ctx context.Context, id string) []string {
	const maxLines, maxLineBytes = 10, 2 << 10
	stream, err := e.docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true, Tail: fmt.Sprint(maxLines),
	})
	if err != nil {
		return nil
	}
	defer stream.Close()
	var last []string
	_ = demuxLogs(stream, time.Time{}, func(l dstack.LogLine) bool {
		if last = append(last, string(l.Text[:min(len(l.Text), maxLineBytes)])); len(last) > maxLines {
			last = last[1:]
		}
		return true
	})
	return last
}

var errReaderStopped = errors.New("the reader has stopped")

// demuxLogs reads Docker's log stream. Each frame belongs to stdout or stderr and holds
// a time and a line, or a part of a long line.
func demuxLogs(r io.Reader, since time.Time, yield func(dstack.LogLine) bool) error {
	frames := bufio.NewReader(r)
	open := map[string]*dstack.LogLine{}
	var clock engine.MonotonicClock
	send := func(l *dstack.LogLine) bool {
		delete(open, l.Stream)
		l.At, l.Text = clock.Next(l.At), bytes.TrimSuffix(l.Text, []byte("\r"))
		return !l.At.After(since) || yield(*l)
	}
	for {
		stream, body, err := readFrame(frames)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		timestamp, text, _ := bytes.Cut(body, []byte(" "))
		at, err := time.Parse(time.RFC3339Nano, string(timestamp))
		if err != nil {
			return fmt.Errorf("a log frame has no time: %w", err)
		}
		l := open[stream]
		if l == nil {
			l = &dstack.LogLine{At: at, Stream: stream}
			open[stream] = l
		}
		text, complete := bytes.CutSuffix(text, []byte("\n"))
		l.Text = append(l.Text, text...)
		if (complete || len(l.Text) >= maxLineBytes) && !send(l) {
			return errReaderStopped
		}
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if l := open[stream]; l != nil && !send(l) {
			return errReaderStopped
		}
	}
	return nil
}

// readFrame reads a frame: 1 byte for the stream, 3 bytes of zero, 4 bytes for the size
// of the body, and the body.
func readFrame(r *bufio.Reader) (stream string, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", nil, err
	}
	size := binary.BigEndian.Uint32(head[4:])
	if size > maxFrameBytes {
		return "", nil, fmt.Errorf("a log frame of %d bytes is too large", size)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return "", nil, err
	}
	switch head[0] {
	case 1:
		return "stdout", body, nil
	case 2:
		return "stderr", body, nil
	default:
		return "", nil, fmt.Errorf("the engine reports: %s", body)
	}
}
