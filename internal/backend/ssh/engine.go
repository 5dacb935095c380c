package ssh

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"time"

	"dstack/internal/decide/host"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/docker"
)

// dialDocker connects to the Docker Engine.
func (l *link) dialDocker(ctx context.Context) (net.Conn, error) { return l.dialEngine(ctx, false) }

// dialStreams connects to the Docker Engine apart from the streams of replicas, which would wait
// behind uploads and the logs of all replicas.
func (l *link) dialStreams(ctx context.Context) (net.Conn, error) { return l.dialEngine(ctx, true) }

func (l *link) dialEngine(ctx context.Context, isBulk bool) (net.Conn, error) {
	l.mu.Lock()
	client, way, check := l.client, l.way, l.host.Check
	why := cmp.Or(host.ExplainUnusable(l.host), "it is being checked")
	l.mu.Unlock()
	if way == nil {
		if err := client.State().Err; err != nil {
			return nil, err
		}
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the Docker engine is not reached: " + why, Hint: check.Hint}
	}
	if isBulk {
		client = client.Bulk()
	}
	return way.dial(ctx, client)
}

// usableEngine returns the engine, unless the host may not be used: two entries that are the
// same machine would stop each other's replicas. isFinal is false if a check that is about to
// end may change the answer.
func (l *link) usableEngine() (eng engine.Engine, isFinal bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	check := l.host.Check
	isSameMachine := check.Status == dstack.HostFailed && check.Step == dstack.HostStepIdentity
	switch {
	case l.engine != nil && !isSameMachine:
		return watchedEngine{l.engine, l}, true, nil
	case !isSameMachine && (l.isUntried || l.isChecking) && (check.Status == dstack.HostReady || check.Status == dstack.HostUnreachable):
		return nil, false, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the host %s was not reached yet", l.host.Name)}
	default:
		why := cmp.Or(host.ExplainUnusable(l.host), "its Docker engine was not reached yet")
		return nil, true, &dstack.Error{Kind: dstack.Unavailable, Message: "the host " + l.host.Name + " cannot be used: " + why, Hint: check.Hint}
	}
}

// watchedEngine is the engine of a host. It tells the connection whether the host has
// replicas, so that their loss is noticed soon, and causes a check when the engine fails.
type watchedEngine struct {
	*docker.Engine
	link *link
}

var (
	_ engine.Executor = watchedEngine{}
	_ engine.Volumes  = watchedEngine{}
)

// ListReports returns the reports of the engine.
func (e watchedEngine) ListReports(ctx context.Context) ([]dstack.Report, error) {
	reports, err := e.Engine.ListReports(ctx)
	e.link.mu.Lock()
	client := e.link.client
	e.link.isSuspect = err != nil && ctx.Err() == nil
	if err == nil {
		e.link.answeredAt = time.Now()
	}
	e.link.mu.Unlock()
	if err == nil {
		client.SetBusy(len(reports) > 0)
	}
	return reports, err
}

// The engine of a host without replicas is asked from time to time whether it answers, between
// two checks: nothing else calls it. That of a host with replicas answers all the time.
const (
	enginePingInterval = 10 * time.Second
	enginePingTimeout  = 5 * time.Second
)

// beginPing reports whether the engine is to be pinged now, and if so, marks the ping as begun. A
// host that is not ready, or not connected, is the matter of its checks.
func (l *link) beginPing(now time.Time) (*docker.Engine, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	latest := l.answeredAt
	if l.host.Check.CheckedAt.After(latest) {
		latest = l.host.Check.CheckedAt
	}
	if l.engine == nil || l.isPinging || l.isChecking || l.host.Check.Status != dstack.HostReady ||
		now.Sub(latest) < l.b.pingInterval || !l.client.State().IsConnected {
		return nil, false
	}
	l.isPinging = true
	return l.engine, true
}

// runPing pings the engine of a host. If it does not answer, the host is checked at once.
func (b *Backend) runPing(ctx context.Context, l *link, eng *docker.Engine) {
	ping, cancel := context.WithTimeout(ctx, enginePingTimeout)
	defer cancel()
	err := eng.Ping(ping)
	l.mu.Lock()
	l.isPinging, l.answeredAt = false, time.Now()
	l.isSuspect = l.isSuspect || err != nil && ctx.Err() == nil
	l.mu.Unlock()
	if err != nil {
		b.wake.Signal()
	}
}
