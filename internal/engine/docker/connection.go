package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"dstack/internal/dstack"
)

// Remote is the Docker Engine of another machine. Containers are reached at their own addresses in the network of that
// machine, through the host's entry in the dial.Dialer.
type Remote struct {
	// HostID is the host of the containers' endpoints, as the dial.Dialer knows it.
	HostID string
	// Dial opens a connection to the engine's API, such as one to its socket that SSH forwards. Several goroutines call it at
	// once. An error of type *dstack.Error is shown to the user as it is.
	Dial func(ctx context.Context) (net.Conn, error)
	// DialStreams is Dial for what may carry much data or stay open for long: uploads, logs, pulls, and the ends of containers
	// that are being stopped. Nil: Dial.
	DialStreams func(ctx context.Context) (net.Conn, error)
	// MaxConns limits the connections of short calls, for a way to the engine that has a process for each of them; 0: no
	// limit. Streams have further ones: of logs, pulls, the ends of containers that are being stopped, and commands.
	MaxConns int
}

// About is what the Docker Engine reports about itself.
type About struct {
	ID         string // identifies the engine
	Version    string // such as 28.1.1
	APIVersion string // the newest that it has, such as 1.49
	System     string // such as Debian GNU/Linux 13 (trixie)
	CPUs       int
	MemoryMiB  int64
	Root       string // the folder of its images and containers
	arch       string // as in image manifests, such as amd64
	isRootless bool
	isDesktop  bool // Docker Desktop: it runs in a virtual machine
}

// Ping returns what the Docker Engine at host reports about itself. An empty host is
// the same as the docker command's. An error means that no usable engine answers.
func Ping(ctx context.Context, host string) (About, error) {
	docker, err := newClient(host)
	if err != nil {
		return About{}, err
	}
	defer docker.Close()
	return fetchAbout(ctx, docker, newUnreachableError)
}

// PingRemote returns what the Docker Engine of another machine reports about itself. An error means that no usable engine
// answers: of kind Unsupported if it does, and is too old.
func PingRemote(ctx context.Context, r Remote) (About, error) {
	docker, err := newRemoteClient(r, r.MaxConns, maxAnswer)
	if err != nil {
		return About{}, err
	}
	defer docker.Close()
	return fetchAbout(ctx, docker, newLostHostError)
}

// Ping reports whether the engine answers, by the cheapest call that it has.
func (e *Engine) Ping(ctx context.Context) error {
	if _, err := e.docker.Ping(ctx, client.PingOptions{}); err != nil {
		return e.newUnreachableError(err)
	}
	return nil
}

func newClient(host string) (*client.Client, error) {
	options := []client.Opt{client.FromEnv}
	if host == "" {
		host = findSocket(os.Getenv, pathExists)
	}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	docker, err := client.New(options...)
	if err != nil {
		return nil, newUnreachableError(err)
	}
	at, err := url.Parse(docker.DaemonHost())
	if err == nil && at.Scheme != "unix" && at.Scheme != "npipe" && !isLoopback(at.Hostname()) {
		_ = docker.Close()
		return nil, &dstack.Error{
			Kind:    dstack.Unsupported,
			Message: "the Docker engine at " + docker.DaemonHost() + " is on another machine",
			Hint:    "unset DOCKER_HOST, so that the engine of this machine is used",
		}
	}
	return docker, nil
}

// Idle connections to the engine of another machine. Each may be a process there.
const (
	maxIdleConns    = 2
	idleConnTimeout = 30 * time.Second
)

// maxAnswer limits the answer to a short call, in bytes: a host may belong to anyone, and answer without end.
const maxAnswer = 64 << 20

// newRemoteClient returns a client without anything of this process's environment. maxConns and maxAnswer are 0 without a
// limit.
func newRemoteClient(r Remote, maxConns int, maxAnswer int64) (*client.Client, error) {
	transport := &http.Transport{
		MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: maxIdleConns, IdleConnTimeout: idleConnTimeout,
		Protocols: new(http.Protocols), // the default has HTTP/2, with which the client takes the transport for one of HTTPS
	}
	transport.Protocols.SetHTTP1(true)
	return client.New(
		client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
		client.WithHost(client.DefaultDockerHost), // names no address, as the next option dials
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := r.Dial(ctx)
			if err != nil {
				return nil, hideText(err)
			}
			return &remoteConn{Conn: conn, maxAnswer: maxAnswer}, nil
		}),
	)
}

// remoteConn is a connection to the engine of another machine.
type remoteConn struct {
	net.Conn
	maxAnswer int64        // that may be read after a request; 0: no limit
	answer    atomic.Int64 // read since the last Write
}

// Read reads from the connection. It fails when the answer is too long.
func (c *remoteConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if read := c.answer.Add(int64(n)); c.maxAnswer > 0 && read > c.maxAnswer {
		return 0, hideText(&dstack.Error{
			Kind: dstack.TooLarge, Message: fmt.Sprintf("the Docker engine of the host answers with more than %d MiB", c.maxAnswer>>20),
			Hint: "see what runs on the host, and that it is the one that you mean",
		})
	}
	return n, hideText(err)
}

// Write writes to the connection. A request begins with it.
func (c *remoteConn) Write(p []byte) (int, error) {
	c.answer.Store(0)
	return c.Conn.Write(p)
}

// CloseWrite ends the input of a command, whose output goes on.
func (c *remoteConn) CloseWrite() error {
	if half, ok := c.Conn.(client.CloseWriter); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// hiddenText is an error that the client cannot read: it replaces errors with texts such as "dial unix" by its own, about an
// engine of this machine.
type hiddenText struct{ err error }

// Error says nothing about the reason.
func (e hiddenText) Error() string { return "the connection to the host failed" }

// Unwrap returns the reason.
func (e hiddenText) Unwrap() error { return e.err }

func hideText(err error) error {
	if _, ok := errors.AsType[*dstack.Error](err); ok {
		return hiddenText{err}
	}
	return err
}

// findSocket returns the address of this user's Docker socket; empty means the client's
// default. Docker Desktop, Colima, OrbStack and rootless engines have sockets of their
// own, which the docker command finds by its context and the client does not.
func findSocket(env func(string) string, exists func(string) bool) string {
	if env("DOCKER_HOST") != "" || exists("/var/run/docker.sock") {
		return ""
	}
	for _, socket := range [][2]string{
		{env("XDG_RUNTIME_DIR"), "docker.sock"},
		{env("HOME"), ".docker/run/docker.sock"},
		{env("HOME"), ".orbstack/run/docker.sock"},
		{env("HOME"), ".colima/default/docker.sock"},
	} {
		if path := filepath.Join(socket[0], socket[1]); socket[0] != "" && exists(path) {
			return "unix://" + path
		}
	}
	return ""
}

func pathExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// fetchAbout also makes the client use the newest version of the API that both sides have.
func fetchAbout(ctx context.Context, docker *client.Client, unreachable func(error) error) (About, error) {
	ping, err := docker.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if tooOld := checkAPIVersion(ping.APIVersion); tooOld != nil {
		return About{}, tooOld
	}
	if err != nil {
		return About{}, unreachable(err)
	}
	got, err := docker.Info(ctx, client.InfoOptions{})
	if err != nil {
		return About{}, unreachable(err)
	}
	i := got.Info
	if i.OSType != "linux" {
		return About{}, &dstack.Error{
			Kind:    dstack.Unsupported,
			Message: "the Docker engine runs " + i.OSType + " containers",
			Hint:    "switch it to Linux containers",
		}
	}
	return About{
		ID: i.ID, Version: i.ServerVersion, APIVersion: ping.APIVersion, System: i.OperatingSystem,
		CPUs: i.NCPU, MemoryMiB: i.MemTotal >> 20, Root: i.DockerRootDir, arch: imageArchs[i.Architecture],
		isRootless: slices.Contains(i.SecurityOptions, "name=rootless"),
		isDesktop:  strings.Contains(i.OperatingSystem, "Docker Desktop"),
	}, nil
}

// imageArchs maps the kernel's names of architectures to those of images.
var imageArchs = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}

// checkAPIVersion returns an error if an engine's API is older than the oldest that the client speaks. An empty version is
// unknown.
func checkAPIVersion(version string) error {
	if version == "" || !versions.LessThan(version, client.MinAPIVersion) {
		return nil
	}
	return &dstack.Error{
		Kind:    dstack.Unsupported,
		Message: fmt.Sprintf("the Docker engine is too old: its API is %s, and dstack needs %s", version, client.MinAPIVersion),
		Hint:    "update Docker to version 19.03 or newer",
	}
}

// newUnreachableError returns the error for an engine of this machine that does not answer.
func newUnreachableError(err error) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: "the Docker engine does not answer",
		Hint:  "start Docker, and see that this user may use it (docker version), or choose engine: process in the server's config.yml",
		Cause: err,
	}
}

// newLostHostError returns the error for an engine of another machine that does not answer. What Remote.Dial says about the
// connection is kept, except for its kind: however a host became unreachable, what runs there is not changed by it.
func newLostHostError(err error) error {
	lost := &dstack.Error{
		Kind: dstack.Unavailable, Message: "the Docker engine of the host does not answer",
		Hint: "see that the host runs, and Docker on it (docker version)", Cause: err,
	}
	if reason, ok := errors.AsType[*dstack.Error](err); ok {
		lost.Message, lost.Hint = reason.Message, cmp.Or(reason.Hint, lost.Hint)
	}
	return lost
}

// newUnreachableError returns the error for the engine, which does not answer.
func (e *Engine) newUnreachableError(err error) error {
	if e.opts.Remote != nil {
		return newLostHostError(err)
	}
	return newUnreachableError(err)
}

// isConnectionLost reports whether a call failed because the engine was not reached, or its connection broke. Docker's own
// errors have the same texts for the connections that it makes, to registries for example, but not these types.
func isConnectionLost(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	for _, broken := range []error{io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return client.IsErrConnectionFailed(err)
}
