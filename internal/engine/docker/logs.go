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

// sinceOverlap is how much earlier than asked for the engine's log is read: times
// that were moved to make them grow come out the same again only when those
// before them do.
const sinceOverlap = 50 * time.Millisecond

// The bounds on what is read: Docker splits lines at 16 KiB.
const (
	maxFrameBytes = 1 << 20
	maxLineBytes  = 32 << 10
)

// Logs is described at engine.Engine.
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
		stream, err := e.docker.ContainerLogs(ctx, found.ID, options)
		if err == nil {
			defer stream.Close()
			err = demuxLogs(stream, since, func(l dstack.LogLine) bool { return yield(l, nil) })
		}
		if err != nil && !errors.Is(err, errReaderStopped) && !errdefs.IsNotFound(err) && ctx.Err() == nil {
			yield(dstack.LogLine{}, fmt.Errorf("cannot read the container's output: %w", err))
		}
	}
}

// readLastLines returns the last lines of a container; none when they cannot be read.
func (e *Engine) readLastLines(ctx context.Context, id string) []string {
	const lastLines, lastWidth = 10, 2 << 10
	stream, err := e.docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true, Tail: fmt.Sprint(lastLines),
	})
	if err != nil {
		return nil
	}
	defer stream.Close()
	var last []string
	_ = demuxLogs(stream, time.Time{}, func(l dstack.LogLine) bool {
		if last = append(last, string(l.Text[:min(len(l.Text), lastWidth)])); len(last) > lastLines {
			last = last[1:]
		}
		return true
	})
	return last
}

var errReaderStopped = errors.New("nobody listens any more")

// demuxLogs reads the engine's log stream: frames of one stream each, which hold
// a time and a line, or a piece of a long one.
func demuxLogs(r io.Reader, since time.Time, yield func(dstack.LogLine) bool) error {
	frames := bufio.NewReader(r)
	open := map[string]*dstack.LogLine{}
	var stamps engine.MonotonicClock
	send := func(l *dstack.LogLine) bool {
		delete(open, l.Stream)
		l.At, l.Text = stamps.Next(l.At), bytes.TrimSuffix(l.Text, []byte("\r"))
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
		stamp, text, _ := bytes.Cut(body, []byte(" "))
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err != nil {
			return fmt.Errorf("the engine sends no times with it: %w", err)
		}
		l := open[stream]
		if l == nil {
			l = &dstack.LogLine{At: at, Stream: stream}
			open[stream] = l
		}
		text, whole := bytes.CutSuffix(text, []byte("\n"))
		l.Text = append(l.Text, text...)
		if (whole || len(l.Text) >= maxLineBytes) && !send(l) {
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

func readFrame(r *bufio.Reader) (stream string, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", nil, err
	}
	size := binary.BigEndian.Uint32(head[4:])
	if size > maxFrameBytes {
		return "", nil, fmt.Errorf("a frame of %d bytes", size)
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
		return "", nil, fmt.Errorf("the engine says: %s", body)
	}
}
