package ssh

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"dstack/internal/decide/host"
	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/sshclient"
)

// dockerWay is a way to the Docker Engine of a host.
type dockerWay struct {
	access  dstack.DockerAccess
	socket  string // with DockerSocket
	command string // otherwise
}

// dial connects to the Docker Engine.
func (w *dockerWay) dial(ctx context.Context, client *sshclient.Client) (net.Conn, error) {
	if w.access == dstack.DockerSocket {
		return client.Dial(ctx, "unix", w.socket)
	}
	return client.Pipe(ctx, w.command)
}

// maxStdioConns limits the connections of short calls where each is a session of the SSH
// server, of which it allows ten.
const maxStdioConns = 4

// remote returns the engine of a host as package docker opens it.
func (w *dockerWay) remote(hostID string, dial, dialStreams func(ctx context.Context) (net.Conn, error)) docker.Remote {
	r := docker.Remote{HostID: hostID, Dial: dial, DialStreams: dialStreams}
	if w.access != dstack.DockerSocket {
		r.MaxConns = maxStdioConns
	}
	return r
}

// login is what the login shell of a host says about Docker.
type login struct {
	user          string   // who logged in
	docker        string   // path of the docker command; empty: it is not in the PATH
	sockets       []string // sockets of Docker Engines that exist, the likeliest first
	prefersRemote bool     // DOCKER_HOST names something else than a socket, which only the docker command reaches
}

// loginScript prints the facts of a login, one a line.
const loginScript = `
PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/snap/bin"
docker=$(command -v docker) && echo "docker=$docker"
case $DOCKER_HOST in ""|unix://*) ;; *) echo "remote=yes" ;; esac
for s in "${DOCKER_HOST#unix://}" /var/run/docker.sock "$XDG_RUNTIME_DIR/docker.sock" "/run/user/$(id -u)/docker.sock" "$HOME/.docker/run/docker.sock"; do
  [ -S "$s" ] && echo "socket=$s"
done
echo "end=yes"
`

// parseLogin reads the output of loginScript. It reports whether the output is whole.
func parseLogin(output string) (l login, isWhole bool) {
	for line := range strings.Lines(output) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "docker":
			l.docker = value
		case "socket":
			l.sockets = append(l.sockets, value)
		case "remote":
			l.prefersRemote = true
		case "end":
			isWhole = true
		}
	}
	return l, isWhole
}

// listWays returns the ways to try, in order: sockets are the fastest, and leave no
// processes on the host.
func (l login) listWays() []dockerWay {
	var ways []dockerWay
	for _, path := range l.sockets {
		if !l.prefersRemote {
			ways = append(ways, dockerWay{access: dstack.DockerSocket, socket: path})
		}
	}
	if l.docker == "" {
		return ways
	}
	command := quote(l.docker) + " system dial-stdio"
	return append(ways,
		dockerWay{access: dstack.DockerStdio, command: command},
		dockerWay{access: dstack.DockerSudoStdio, command: "sudo -n " + command},
	)
}

// quote quotes a word for a shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// pingTimeout limits one try of a way.
const pingTimeout = 10 * time.Second

// findDocker returns the first way that leads to a Docker Engine, and what the engine says
// about itself. known is the way that worked last; nil: none.
func findDocker(ctx context.Context, client *sshclient.Client, l login, known *dockerWay) (*dockerWay, docker.About, *host.Failure) {
	if known != nil {
		if about, err := pingDocker(ctx, client, *known); err == nil {
			return known, about, nil
		}
	}
	attempts := host.DockerAttempts{User: l.user, HasCommand: l.docker != "", HasSocket: len(l.sockets) > 0}
	for _, way := range l.listWays() {
		about, err := pingDocker(ctx, client, way)
		if err == nil {
			return &way, about, nil
		}
		if failure := failureOf(err); sshclient.StepOf(err) != "" && failure.Step != dstack.HostStepDocker {
			return nil, about, &failure // the connection is lost
		}
		if dstack.KindOf(err) == dstack.Unsupported && sshclient.StepOf(err) == "" {
			failure := failureOf(err)
			failure.Step = dstack.HostStepDocker
			return nil, about, &failure // an engine answers, and is too old
		}
		switch said := describeAttempt(err); way.access {
		case dstack.DockerSocket:
			attempts.Socket = said
		case dstack.DockerStdio:
			attempts.Stdio = said
		case dstack.DockerSudoStdio:
			attempts.Sudo = said
		}
	}
	failure := host.ExplainDocker(attempts)
	return nil, docker.About{}, &failure
}

// exitWait is how long pingDocker waits for what a failed command printed.
const exitWait = 2 * time.Second

// pingDocker asks the Docker Engine about itself. The error has an *sshclient.ExitError in its
// chain if the command of the way failed: Docker's client replaces some errors by its own.
func pingDocker(ctx context.Context, client *sshclient.Client, way dockerWay) (docker.About, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	exits := make(chan *sshclient.ExitError, 1)
	about, err := docker.PingRemote(ctx, way.remote("", func(ctx context.Context) (net.Conn, error) {
		conn, err := way.dial(ctx, client)
		if err != nil || way.access == dstack.DockerSocket {
			return conn, err
		}
		return exitConn{conn, exits}, nil
	}, nil))
	if err == nil || way.access == dstack.DockerSocket || sshclient.StepOf(err) != "" {
		return about, err
	}
	select {
	case exit := <-exits:
		return about, errors.Join(err, exit)
	case <-time.After(exitWait):
		return about, err
	}
}

// exitConn is a connection through a command. It reports how the command failed.
type exitConn struct {
	net.Conn
	exits chan *sshclient.ExitError
}

// Read reads what the command prints.
func (c exitConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if exit, ok := errors.AsType[*sshclient.ExitError](err); ok {
		select {
		case c.exits <- exit:
		default:
		}
	}
	return n, err
}

// describeAttempt returns what a failed way printed, or else its error.
func describeAttempt(err error) string {
	if exit, ok := errors.AsType[*sshclient.ExitError](err); ok && strings.TrimSpace(exit.Stderr) != "" {
		return exit.Stderr
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

// failureOf returns an error of the SSH client as a failed step.
func failureOf(err error) host.Failure {
	f := host.Failure{Step: sshclient.StepOf(err), Kind: dstack.KindOf(err), Message: err.Error()}
	if f.Step == "" {
		f.Step = dstack.HostStepConnect
	}
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		f.Message, f.Hint = e.Message, e.Hint
	}
	if f.Kind == dstack.Internal { // such as a deadline
		f.Kind = dstack.Unavailable
	}
	return f
}
