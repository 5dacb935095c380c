package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Chosen ports are in this range. It is below the ports that Linux and macOS give to
// outgoing connections, and below the node ports of Kubernetes.
const (
	minChosenPort = 20000
	maxChosenPort = 29999
)

// reservePort waits until the attempt's port is free, or chooses it if the
// specification asks for that. It returns the specification with the port, and writes
// it to order.json, which reserves the port for as long as the attempt runs.
func (e *Engine) reservePort(ctx context.Context, dir folder, p *preparation) (dstack.AttemptSpec, error) {
	s := p.spec
	if !s.ChoosePort {
		if err := waitForFreePort(ctx, e.opts.Dialer, s.Port, p.setProgress); err != nil {
			return s, err
		}
		return s, writeOrder(dir, s)
	}
	e.choosing.Lock()
	defer e.choosing.Unlock()
	port, err := e.choosePort()
	if err != nil {
		return s, err
	}
	s.Port, s.Env = port, maps.Clone(s.Env)
	if s.Env == nil {
		s.Env = map[string]string{}
	}
	s.Env[dstack.PortVariable] = strconv.Itoa(port)
	return s, writeOrder(dir, s)
}

// writeOrder writes the specification without its secrets, which must not be on disk.
func writeOrder(dir folder, s dstack.AttemptSpec) error {
	s.Env, s.Auth, s.Script, s.Argv = nil, nil, "", nil
	return dir.writeJSON("order.json", s)
}

// choosePort returns a free port that no attempt of the engine has. The caller holds
// e.choosing. It begins at a random port, so that the engines of several servers do not
// choose the same one, and a port is not used again soon after its attempt has ended.
func (e *Engine) choosePort() (int, error) {
	reserved := e.listReservedPorts()
	const count = maxChosenPort - minChosenPort + 1
	start := rand.IntN(count)
	for i := range count {
		port := minChosenPort + (start+i)%count
		if !reserved[port] && tryListen(port) == nil {
			return port, nil
		}
	}
	return 0, &dstack.Error{
		Kind:    dstack.Unavailable,
		Message: fmt.Sprintf("no port from %d to %d is free on this machine", minChosenPort, maxChosenPort),
		Hint:    "stop what listens there",
	}
}

// listReservedPorts returns the ports of all attempts that have not ended, as their
// folders tell: also those of attempts that an earlier server has started.
func (e *Engine) listReservedPorts() map[int]bool {
	reserved := map[int]bool{}
	dirs, _ := os.ReadDir(e.opts.Dir)
	for _, d := range dirs {
		var s dstack.AttemptSpec
		dir := e.folderOf(dstack.AttemptID(d.Name()))
		if dir.hasFile("exit.json") {
			continue
		}
		if found, err := dir.readJSON("order.json", &s); err == nil && found {
			reserved[s.Port] = true
		}
	}
	return reserved
}

// Times of the wait for a port that another process is about to release. heldPortTimeout
// is longer than the minute for which a closed connection holds its port; tests change it.
const (
	portTimeout          = 300 * time.Millisecond
	portPollInterval     = 20 * time.Millisecond
	heldPortPollInterval = 500 * time.Millisecond
)

var heldPortTimeout = 75 * time.Second

// waitForFreePort returns an error if the port is in use, because its listener would be
// mistaken for the replica. The error is permanent (Conflict) if a process listens on
// the port. If only a connection, possibly a closed one in TIME_WAIT, uses the port,
// waitForFreePort says so through setProgress and waits; after heldPortTimeout, it
// returns a temporary error (Unavailable).
func waitForFreePort(ctx context.Context, dialer *dial.Dialer, port int, setProgress func(string)) error {
	start := time.Now()
	for interval := portPollInterval; ; {
		err := tryListen(port)
		if err == nil {
			setProgress("")
			return nil
		}
		if waited := time.Since(start); waited >= portTimeout {
			switch {
			case mayHaveListener(ctx, dialer, port):
				return newPortInUseError(port, err)
			case waited >= heldPortTimeout:
				return newPortHeldError(port, err)
			}
			setProgress(fmt.Sprintf("port %d of this machine is still held by a connection; waiting for its end, "+
				"a minute at most", port))
			interval = heldPortPollInterval
		}
		poll := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			poll.Stop()
			return ctx.Err()
		case <-poll.C:
		}
	}
}

func newPortInUseError(port int, cause error) error {
	return &dstack.Error{
		Kind:    dstack.Conflict,
		Message: fmt.Sprintf("port %d is already in use on this machine", port),
		Hint: "stop what listens there, give the service another port, or write `port: auto` and let it listen " +
			"on $PORT",
		Cause: cause,
	}
}

func newPortHeldError(port int, cause error) error {
	return &dstack.Error{
		Kind:    dstack.Unavailable,
		Message: fmt.Sprintf("port %d of this machine is still held by a connection", port),
		Hint:    "end the program that has this connection, or give the service another port",
		Cause:   cause,
	}
}

// mayHaveListener reports whether a process listens on a port, or may do so. A listener on
// another address than 127.0.0.1 and ::1 is found where the system lists its sockets.
func mayHaveListener(ctx context.Context, dialer *dial.Dialer, port int) bool {
	if engine.HasListener(port) {
		return true
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		endpoint := dstack.Endpoint{Address: net.JoinHostPort(host, strconv.Itoa(port))}
		if engine.CheckPort(ctx, dialer, endpoint, false) != engine.PortRefused {
			return true
		}
	}
	return false
}

// tryListen returns an error if a port is in use on any of the machine's addresses.
func tryListen(port int) error {
	defer blockForks()()
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
		} else if errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return nil
}
