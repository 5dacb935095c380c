package docker

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// containerSockets is what is known of the sockets of an attempt's container.
type containerSockets struct {
	container string // its ID
	pid       int    // its first process, as the daemon numbers it
	listening []dstack.Listener
	readAt    time.Time
}

// noteProcess records the first process of a running container.
func (e *Engine) noteProcess(id dstack.AttemptID, container string, pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sockets[id]; s.container != container || s.pid != pid {
		e.sockets[id] = containerSockets{container: container, pid: pid}
	}
}

// Limits on reading sockets by a command in the container.
const (
	readCommandInterval = 10 * time.Second
	readCommandTimeout  = 3 * time.Second
	maxSocketsBytes     = 1 << 20
)

// readListeners sets Listening in the report of a running container whose port is closed,
// not at every report.
func (e *Engine) readListeners(ctx context.Context, r *dstack.Report) {
	e.mu.Lock()
	s, ok := e.sockets[r.Attempt]
	e.mu.Unlock()
	if r.Ready || !ok {
		return
	}
	now := time.Now()
	isDue := engine.MayReadListeners(r.StartedAt, s.readAt, now, r.Ready)
	switch {
	case isDue && e.isLocal:
		s.listening, s.readAt = nil, now
		if isProcessOf(s.pid, s.container) {
			s.listening, _ = engine.ListenersOfNamespace(s.pid)
		}
	case isDue && now.Sub(s.readAt) >= readCommandInterval:
		s.listening, s.readAt = e.readListenersInside(ctx, s.container), now
	}
	e.mu.Lock()
	if e.sockets[r.Attempt].container == s.container {
		e.sockets[r.Attempt] = s
	}
	e.mu.Unlock()
	r.Listening = s.listening
}

// readListenersInside reads the sockets with a command in the container, whose processes
// are not visible to this process. Without cat in the image there are none.
func (e *Engine) readListenersInside(ctx context.Context, containerID string) []dstack.Listener {
	ctx, cancel := context.WithTimeout(ctx, readCommandTimeout)
	defer cancel()
	created, err := e.docker.ExecCreate(ctx, containerID, client.ExecCreateOptions{
		AttachStdout: true, User: "0", Cmd: []string{"cat", "/proc/net/tcp", "/proc/net/tcp6"},
	})
	if err != nil {
		return nil
	}
	attached, err := e.docker.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return nil
	}
	defer attached.Close()
	defer context.AfterFunc(ctx, attached.Close)()
	var text bytes.Buffer
	_, _ = stdcopy.StdCopy(&text, io.Discard, io.LimitReader(attached.Reader, maxSocketsBytes))
	return engine.ParseListeners(&text)
}

// isProcessOf reports whether a process of this machine belongs to a container. It is
// false if the daemon numbers processes differently, as in another PID namespace: then
// the number may be that of any process here.
func isProcessOf(pid int, container string) bool {
	if pid <= 0 || container == "" {
		return false
	}
	for _, name := range []string{"cgroup", "mountinfo"} {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + name)
		if err == nil && bytes.Contains(text, []byte(container)) {
			return true
		}
	}
	return false
}
