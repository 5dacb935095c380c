package ssh

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"dstack/internal/decide/host"
	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/inventory"
	"dstack/internal/loop"
	"dstack/internal/sshclient"
)

const (
	loginTimeout     = 30 * time.Second // of the first command of a check, which logs in
	checkTimeout     = 2 * time.Minute  // of all others; the tools of GPU drivers may be slow
	saveTimeout      = 10 * time.Second
	minCheckInterval = time.Second
	maxPauseWait     = 5 * time.Second  // how long the check of an applied host waits for a pause between logins
	maxClockSkew     = 10 * time.Minute // between servers that share a database
)

// beginCheck reports whether the host is to be checked now, and if so, marks the check as
// begun. A ready host whose connection broke is checked at once, and so is one that could
// not be reached and is connected again.
func (l *link) beginCheck(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isChecking || now.Sub(l.begunAt) < minCheckInterval {
		return false
	}
	check, state := l.host.Check, l.client.State()
	isBroken := state.Err != nil || !state.SilentSince.IsZero()
	isRefused := check.Status == dstack.HostFailed && (check.Step == dstack.HostStepLogin || check.Step == dstack.HostStepHostKey)
	switch {
	case !now.Before(check.NextAt), check.CheckedAt.Sub(now) > maxClockSkew: // the clock was set back since
	case l.isUntried && !(isRefused && check.AppliedAt.Equal(l.host.AppliedAt)):
	case check.Status == dstack.HostReady && (isBroken || l.isSuspect):
	case check.Status == dstack.HostUnreachable && check.Step == dstack.HostStepConnect && state.IsConnected && !isBroken:
	default:
		return false
	}
	l.isChecking, l.isUntried, l.isSuspect, l.begunAt = true, false, false, now
	return true
}

// runCheck checks a host and saves what follows.
func (b *Backend) runCheck(ctx context.Context, l *link) {
	defer func() {
		if p := recover(); p != nil {
			b.Log.Error("the check of a host panicked", "host", l.id, "panic", p, "stack", string(debug.Stack()))
		}
		l.mu.Lock()
		l.isChecking = false
		l.mu.Unlock()
		b.checked.Notify()
	}()
	l.mu.Lock()
	c := &hostCheck{b: b, link: l, client: l.client, host: l.host, way: l.way}
	l.mu.Unlock()
	result := c.run(ctx)
	if ctx.Err() != nil { // the server stops
		c.closeEngine()
		return
	}
	b.finishCheck(ctx, c, result)
}

// hostCheck is one check of a host.
type hostCheck struct {
	b      *Backend
	link   *link
	client *sshclient.Client
	host   dstack.Host
	way    *dockerWay // the one that worked last; nil: none
	engine *docker.Engine
}

// run makes the steps of a check, until one fails. After the login, it waits for a slot if many
// hosts are being checked; hosts that do not answer hold none.
func (c *hostCheck) run(ctx context.Context) (r host.Result) {
	c.awaitPause(ctx)
	login, warning, failure := c.readLogin(ctx)
	if failure != nil {
		return host.Result{Failure: failure}
	}
	select {
	case c.b.slots <- struct{}{}:
		defer func() { <-c.b.slots }()
	case <-ctx.Done():
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	way, about, failure := findDocker(ctx, c.client, login, c.way)
	c.way = way
	if failure != nil {
		return host.Result{Failure: failure}
	}
	r.Found = dstack.HostFacts{DockerVersion: about.Version, DockerAPI: about.APIVersion, DockerAccess: way.access, EngineID: about.ID}
	if r.Failure = c.readHardware(ctx, about, &r.Found); r.Failure != nil {
		return r
	}
	if warning != "" {
		r.Found.Warnings = append(r.Found.Warnings, warning)
	}
	if r.Failure = c.b.findSameMachine(c.link, r.Found); r.Failure == nil {
		r.Failure = c.openEngine(ctx, about)
	}
	if r.Failure == nil { // last: what runs on the host needs its engine whatever is asked of the host
		r.Failure = host.FindMissing(c.host, r.Found)
	}
	return r
}

// awaitPause waits for the short pause after a host was not reached. Otherwise the check of a host that was mended and then
// applied would find the failure from before. Checks of hosts that were not applied do not wait.
func (c *hostCheck) awaitPause(ctx context.Context) {
	if c.host.Check.AppliedAt.Equal(c.host.AppliedAt) {
		return
	}
	if pause := time.Until(c.client.State().NextTry); pause > 0 && pause <= maxPauseWait {
		_ = loop.Sleep(ctx, pause)
	}
}

// readLogin runs the first command of a check.
func (c *hostCheck) readLogin(ctx context.Context) (l login, warning string, failure *host.Failure) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	out, err := c.client.Run(ctx, "sh -s", strings.NewReader(c.b.loginScript))
	if err != nil {
		f := failureOf(err)
		return l, "", &f
	}
	l, isWhole := parseLogin(string(out.Stdout))
	if !isWhole {
		return l, "", &host.Failure{
			Step: dstack.HostStepShell, Kind: dstack.Unsupported,
			Message: fmt.Sprintf("the login shell of %s does not run commands (exit %d): %s", c.host.Login.User, out.ExitCode, lastLine(out)),
			Hint:    "give the user a shell such as /bin/bash: sudo usermod -s /bin/bash " + c.host.Login.User,
		}
	}
	l.user = c.host.Login.User
	if noise := strings.TrimSpace(out.Noise); noise != "" {
		warning = fmt.Sprintf("the login shell prints %q before the output of commands; ~/.bashrc or ~/.ssh/rc should not", shortenLine(noise))
	}
	return l, warning, nil
}

// readHardware adds to the facts what the host has.
func (c *hostCheck) readHardware(ctx context.Context, about docker.About, found *dstack.HostFacts) *host.Failure {
	out, err := c.client.Run(ctx, "sh -s -- "+quote(about.Root), strings.NewReader(inventory.Script))
	if err != nil {
		f := failureOf(err)
		if ctx.Err() != nil {
			f = host.Failure{
				Step: dstack.HostStepHardware, Kind: dstack.Unavailable, Message: "its hardware is not known within " + checkTimeout.String(),
				Hint: "see which of nproc, df, nvidia-smi, amd-smi and rocm-smi hangs there",
			}
		}
		return &f
	}
	report, err := inventory.Parse(string(out.Stdout))
	if err != nil {
		return &host.Failure{
			Step: dstack.HostStepHardware, Kind: dstack.Unavailable, Message: "its hardware is not known: " + err.Error(),
			Hint: "it has to run Linux, with the usual commands nproc, uname and df",
		}
	}
	found.System, found.MachineID, found.DriverVersion = report.System, report.MachineID, report.DriverVersion
	found.Hardware, found.Warnings = report.Hardware, report.Warnings
	if about.CPUs > 0 && about.MemoryMiB > 0 { // Docker may run in a smaller virtual machine
		found.Hardware.CPUs = min(found.Hardware.CPUs, about.CPUs)
		found.Hardware.MemoryMiB = min(found.Hardware.MemoryMiB, about.MemoryMiB)
	}
	return nil
}

// openEngine opens the engine of the host, unless it is open.
func (c *hostCheck) openEngine(ctx context.Context, about docker.About) *host.Failure {
	c.link.mu.Lock()
	isOpen := c.link.engine != nil && c.link.engineID == about.ID
	c.link.mu.Unlock()
	if isOpen {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	remote := c.way.remote(string(c.link.id), c.link.dialDocker, c.link.dialStreams)
	c.link.mu.Lock()
	if c.link.client == c.client {
		c.link.way = c.way // dialDocker uses it
	}
	c.link.mu.Unlock()
	var err error
	c.engine, err = docker.New(ctx, docker.Options{
		Remote: &remote, Installation: c.b.Installation, MayStart: c.b.MayStart, Code: c.b.Code, Files: c.b.Files, Dialer: c.b.Dialer, Log: c.b.Log,
	})
	if err != nil {
		f := failureOf(err)
		f.Step = dstack.HostStepDocker
		return &f
	}
	return nil
}

func (c *hostCheck) closeEngine() {
	if c.engine != nil {
		c.b.logClosing(c.link.id, c.engine.Close())
	}
}

// findSameMachine returns why the host may not be used because another one, or the server's, is
// the same machine; nil: none is.
func (b *Backend) findSameMachine(l *link, found dstack.HostFacts) *host.Failure {
	if failure := host.FindOwnMachine(found, b.OwnMachines()); failure != nil {
		return failure
	}
	b.mu.Lock()
	hosts := make([]dstack.Host, 0, len(b.links))
	for _, other := range b.links {
		hosts = append(hosts, other.snapshot())
	}
	b.mu.Unlock()
	return host.FindSameMachine(l.snapshot(), found, hosts)
}

// finishCheck decides what follows from a check, and saves it. Nothing follows if the host
// was applied again, or removed, meanwhile.
func (b *Backend) finishCheck(ctx context.Context, c *hostCheck, result host.Result) {
	b.deciding.Lock()
	if result.Failure == nil { // another check may have finished since
		result.Failure = b.findSameMachine(c.link, result.Found)
	}
	before, next, isCurrent := c.link.apply(c, result, time.Now())
	b.deciding.Unlock()
	if !isCurrent || b.findLink(c.link.id) == nil {
		c.closeEngine()
		return
	}
	if text := host.DescribeChange(before, next); text != "" {
		b.Log.Info("a host changed", "fleet", c.host.FleetName, "host", c.host.Name, "change", text)
	}
	save, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := b.Hosts.SaveHostCheck(save, c.link.id, next); err != nil {
		if skipped, ok := b.failures.Admit("save", err.Error(), time.Now()); ok {
			b.Log.Error("the check of a host is not saved", "host", c.host.Name, "err", err, "not_logged", skipped)
		}
	}
	if before.Status != next.Status {
		b.Changed()
	}
}

// apply takes over the result of a check. isCurrent is false if the check was of another
// client or an older configuration of the host.
func (l *link) apply(c *hostCheck, result host.Result, now time.Time) (before, next dstack.HostCheck, isCurrent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.host.Check
	if l.client != c.client || !l.host.AppliedAt.Equal(c.host.AppliedAt) {
		return before, before, false
	}
	next = host.Decide(l.host, result, now)
	l.host.Check = next
	if c.way != nil { // otherwise the engine keeps the one that worked last, and works again as soon as it does
		l.way = c.way
	}
	l.isStale = result.Failure != nil && result.Failure.Step == dstack.HostStepDocker && result.Failure.Kind == dstack.Forbidden
	if hasEngine := result.Failure == nil || result.Failure.Step == dstack.HostStepResources; hasEngine && c.engine != nil {
		if old := l.engine; old != nil { // Docker was installed again
			l.b.work.Go(func() { l.b.logClosing(l.id, old.Close()) })
		}
		l.engine, l.engineID = c.engine, result.Found.EngineID
		c.engine = nil
	}
	if c.engine != nil {
		unused := c.engine
		c.engine = nil
		l.b.work.Go(func() { l.b.logClosing(l.id, unused.Close()) })
	}
	return before, next, true
}

// lastLine returns the last line that a command printed.
func lastLine(out sshclient.Output) string {
	for _, text := range []string{string(out.Stderr), string(out.Stdout), out.Noise} {
		if text = strings.TrimSpace(text); text != "" {
			lines := strings.Split(text, "\n")
			return shortenLine(lines[len(lines)-1])
		}
	}
	return "it printed nothing"
}

// shortenLine returns at most 100 bytes of a text, without a part of a character at its end.
func shortenLine(text string) string {
	if len(text) > 100 {
		return strings.ToValidUTF8(text[:100], "") + "…"
	}
	return text
}
