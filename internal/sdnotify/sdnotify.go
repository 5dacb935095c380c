// Package sdnotify tells systemd, or another supervisor with its protocol, what a service does: see sd_notify(3).
package sdnotify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dstack/internal/loop"
)

// States that a service tells its supervisor.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	watchdog = "WATCHDOG=1"
)

// Status returns the state that is shown to people, in one line.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// MainPID returns the state that makes another process the main one of the service.
func MainPID(pid int) string { return fmt.Sprintf("MAINPID=%d", pid) }

// Reloading returns the state of a service that replaces its process or its configuration. Ready ends it.
func Reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond))
}

// Supervisor is what started this process. Its zero value is none, which takes every message.
type Supervisor struct {
	socket   string
	watchdog time.Duration
}

// FromEnvironment returns the supervisor that the environment names, if there is one.
func FromEnvironment() Supervisor {
	s := Supervisor{socket: os.Getenv("NOTIFY_SOCKET")}
	pid := os.Getenv("WATCHDOG_PID")
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 &&
		(pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(usec) * time.Microsecond
	}
	return s
}

// Environment returns the variables of an environment without those that concern this process alone, for the process that
// replaces it.
func Environment(environment []string) (kept []string) {
	for _, v := range environment {
		if !strings.HasPrefix(v, "WATCHDOG_PID=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// Notify sends states in one message, which counts as a whole. Without a supervisor, it does nothing.
func (s Supervisor) Notify(states ...string) error {
	if s.socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"}) // @ begins an abstract name
	if err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	return nil
}

// Tasks returns the task that says that this process is alive, as often as the supervisor wants to know, if it does.
func (s Supervisor) Tasks() []loop.Task {
	if s.socket == "" || s.watchdog == 0 {
		return nil
	}
	return []loop.Task{loop.Repeat("watchdog", nil, func(context.Context) (time.Duration, error) {
		return s.watchdog / 3, s.Notify(watchdog)
	})}
}
