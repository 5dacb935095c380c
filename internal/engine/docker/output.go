package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// overlap is read again before since: the engine's times are finer than ours,
// and lines of one microsecond were moved apart.
const overlap = 5 * time.Second

// Logs yields an attempt's output: see engine.Engine.
func (e *Engine) Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		c, err := e.find(ctx, id)
		if err != nil {
			yield(dstack.LogLine{}, err)
			return
		}
		if c == nil {
			return
		}
		o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: true}
		if !since.IsZero() {
			from := since.Add(-overlap)
			o.Since = fmt.Sprintf("%d.%09d", from.Unix(), from.Nanosecond())
		}
		stream, err := e.api.ContainerLogs(ctx, c.ID, o)
		if err != nil {
			yield(dstack.LogLine{}, fmt.Errorf("cannot read the output of the container %s: %w", c.ID, err))
			return
		}
		defer stream.Close()
		s := &splitter{since: since, yield: yield}
		_, err = stdcopy.StdCopy(s.stream("stdout"), s.stream("stderr"), stream)
		if err != nil && !errors.Is(err, errEnough) && ctx.Err() == nil {
			yield(dstack.LogLine{}, fmt.Errorf("the output of the container %s broke off: %w", c.ID, err))
		}
	}
}

var errEnough = errors.New("nobody reads on")

// splitter cuts both streams into lines with their times.
type splitter struct {
	since  time.Time
	stamps engine.Stamps
	yield  func(dstack.LogLine, error) bool
}

func (s *splitter) stream(name string) *lines { return &lines{splitter: s, name: name} }

// lines is one stream; a line may come in several writes.
type lines struct {
	*splitter
	name string
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.rest = rest
		stamp, text, _ := bytes.Cut(line, []byte(" "))
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err != nil {
			return 0, fmt.Errorf("a line has no time: %w", err)
		}
		at = l.stamps.Next(at)
		if !at.After(l.since) {
			continue
		}
		if !l.yield(dstack.LogLine{At: at, Stream: l.name, Text: bytes.Clone(text)}, nil) {
			return 0, errEnough
		}
	}
}

// lastWords are the last lines of an ended container, both streams.
func (e *Engine) lastWords(ctx context.Context, id string) []string {
	stream, err := e.api.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(lastLines)})
	if err != nil {
		return nil
	}
	defer stream.Close()
	var all bytes.Buffer
	if _, err := stdcopy.StdCopy(&all, &all, stream); err != nil {
		return nil
	}
	text := strings.TrimRight(all.String(), "\n")
	if text == "" {
		return nil
	}
	words := strings.Split(text, "\n")
	return words[max(len(words)-lastLines, 0):]
}
