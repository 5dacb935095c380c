package docker

import (
	"bytes"
	"os"
	"strconv"
	"time"

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

// readListeners sets Listening in the report of a running container whose port is closed.
// It reads the sockets in the container's network namespace, if the container's processes
// are visible to this process, and not at every report.
func (e *Engine) readListeners(r *dstack.Report) {
	e.mu.Lock()
	s, ok := e.sockets[r.Attempt]
	e.mu.Unlock()
	if r.Ready || !ok || !e.isLocal {
		return
	}
	if now := time.Now(); engine.MayReadListeners(r.StartedAt, s.readAt, now, r.Ready) {
		s.listening, s.readAt = nil, now
		if isProcessOf(s.pid, s.container) {
			s.listening, _ = engine.ListenersOfNamespace(s.pid)
		}
		e.mu.Lock()
		if e.sockets[r.Attempt].container == s.container {
			e.sockets[r.Attempt] = s
		}
		e.mu.Unlock()
	}
	r.Listening = s.listening
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
