package docker

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// inspection is the result of the last inspection of a container. It is valid as long as
// the container's state and networks stay the same.
type inspection struct {
	state    container.ContainerState
	networks string // see networkKey
	report   dstack.Report
}

// networkKey identifies the network endpoints of a container. Docker creates new ones at
// each start, so the key shows that a container was restarted by hand and has a new
// address.
func networkKey(c container.Summary) string {
	var ids []string
	if c.NetworkSettings != nil {
		for _, n := range c.NetworkSettings.Networks {
			if n != nil {
				ids = append(ids, n.EndpointID)
			}
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// minAbandonedAge is the age at which a container that was created and not started
// counts as left over from a server that was killed.
const minAbandonedAge = time.Minute

func (e *Engine) labelFilter(attempt dstack.AttemptID) client.Filters {
	f := client.Filters{}.Add("label", labelInstallation+"="+string(e.opts.Installation))
	if attempt != "" {
		f = f.Add("label", labelAttempt+"="+string(attempt))
	}
	return f
}

// findContainer returns the container of an attempt; nil if there is none.
func (e *Engine) findContainer(ctx context.Context, id dstack.AttemptID) (*container.Summary, error) {
	if id == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelFilter(id)})
	if err != nil {
		return nil, e.newUnreachableError(err)
	}
	if len(got.Items) == 0 {
		return nil, nil
	}
	return &got.Items[0], nil
}

// ListReports implements engine.Engine. It lists the containers and inspects only those
// whose state has changed.
func (e *Engine) ListReports(ctx context.Context) ([]dstack.Report, error) {
	reports := e.reportsWithoutContainer() // before the list, so that no attempt is missed in between
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelFilter("")})
	if err != nil {
		return nil, e.newUnreachableError(err)
	}
	listed := map[string]bool{}
	for _, c := range got.Items {
		listed[c.ID] = true
		id := dstack.AttemptID(c.Labels[labelAttempt])
		if r, ok := reports[id]; ok && !r.State.IsOver() && c.State != container.StateRunning && c.State != container.StatePaused {
			continue // the startup reports it, also while a failing start passes through other states
		}
		if c.State == container.StateCreated {
			if err := e.removeIfAbandoned(ctx, c, id); err != nil {
				return nil, err
			}
			continue
		}
		r, err := e.inspectContainer(ctx, c, id)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, e.newUnreachableError(err)
		}
		reports[id] = r
	}
	e.forgetRemoved(listed)
	return e.checkPorts(ctx, reports), nil
}

// reportsWithoutContainer returns the reports of attempts that are starting up and of
// attempts that ended without a container.
func (e *Engine) reportsWithoutContainer() map[dstack.AttemptID]dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	reports := map[dstack.AttemptID]dstack.Report{}
	for id, s := range e.startups {
		reports[id] = s.report(id)
	}
	for id, r := range e.endedReports {
		reports[id] = r
	}
	return reports
}

// removeIfAbandoned removes a container that was created long ago, was never started
// and does not belong to a startup of this server.
func (e *Engine) removeIfAbandoned(ctx context.Context, c container.Summary, id dstack.AttemptID) error {
	if e.findStartup(id) != nil || time.Since(time.Unix(c.Created, 0)) < minAbandonedAge {
		return nil
	}
	_, err := e.docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		return e.newUnreachableError(err)
	}
	return nil
}

// inspectContainer returns the report of a container. It asks Docker only if the state
// or the networks of the container have changed since the last inspection.
func (e *Engine) inspectContainer(ctx context.Context, c container.Summary, id dstack.AttemptID) (dstack.Report, error) {
	e.mu.Lock()
	last, ok := e.inspections[c.ID]
	e.mu.Unlock()
	if ok && last.state == c.State && last.networks == networkKey(c) {
		return last.report, nil
	}
	got, err := e.docker.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil {
		return dstack.Report{}, err
	}
	report := dstack.Report{Attempt: id, State: dstack.AttemptRunning}
	state := got.Container.State
	if state == nil {
		return report, nil
	}
	report.StartedAt = parseTime(state.StartedAt)
	if state.Running {
		report.Endpoint = e.findEndpoint(got.Container)
		e.noteProcess(id, c.ID, state.Pid)
	} else {
		report.State = dstack.AttemptExited
		report.ExitCode, report.OOM, report.Error = state.ExitCode, state.OOMKilled, limitError(state.Error)
		report.EndedAt = parseTime(state.FinishedAt)
		report.LastOutput = e.readLastLines(ctx, c.ID)
		report = refusedIfNotExecuted(report, c.Image)
	}
	consistent := state.Running == (c.State == container.StateRunning || c.State == container.StatePaused)
	if consistent && (report.Address != "" || !state.Running) {
		e.mu.Lock()
		e.inspections[c.ID] = inspection{state: c.State, networks: networkKey(c), report: report}
		e.mu.Unlock()
	}
	return report, nil
}

// refusedIfNotExecuted turns the report of an exited attempt into a refusal if the init
// program could not execute the command. Only the init program's output shows that.
func refusedIfNotExecuted(r dstack.Report, image string) dstack.Report {
	n := len(r.LastOutput)
	if r.ExitCode != 126 && r.ExitCode != 127 || n == 0 || !isInitFailure(r.LastOutput[n-1]) {
		return r
	}
	refusal := engine.NewRefusedReport(r.Attempt, translateError(errors.New(r.LastOutput[n-1]), startErrors, image), r.EndedAt)
	refusal.StartedAt, refusal.LastOutput = r.StartedAt, r.LastOutput
	return refusal
}

// maxErrorBytes is how much of a container's error a report has. It is stored.
const maxErrorBytes = 4 << 10

func limitError(text string) string {
	if len(text) <= maxErrorBytes {
		return text
	}
	return strings.ToValidUTF8(text[:maxErrorBytes], "") + "…"
}

// parseTime parses a time of Docker's API, which uses the year 1 for no time.
func parseTime(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() < 2000 {
		return time.Time{}
	}
	return at.UTC()
}

// findEndpoint returns the endpoint at which a running container's port is reached; its
// address is empty if the container is not connected to a network yet.
func (e *Engine) findEndpoint(c container.InspectResponse) dstack.Endpoint {
	endpoint := dstack.Endpoint{Address: findAddress(c)}
	if e.opts.Remote != nil {
		endpoint.Host = e.opts.Remote.HostID
	}
	return endpoint
}

// findAddress returns the host:port of a running container's port, as seen from its machine.
func findAddress(c container.InspectResponse) string {
	if c.Config == nil || c.NetworkSettings == nil {
		return ""
	}
	port := c.Config.Labels[labelPort]
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return ""
	}
	for exposed, bindings := range c.NetworkSettings.Ports {
		if exposed.Port() == port && len(bindings) > 0 && bindings[0].HostPort != "" {
			return net.JoinHostPort("127.0.0.1", bindings[0].HostPort)
		}
	}
	for _, n := range c.NetworkSettings.Networks {
		if n != nil && n.IPAddress.IsValid() {
			return net.JoinHostPort(n.IPAddress.String(), port)
		}
	}
	return ""
}

// forgetRemoved deletes the inspections of containers that are not in the list.
func (e *Engine) forgetRemoved(listed map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.inspections {
		if !listed[id] {
			delete(e.inspections, id)
		}
	}
	for id, s := range e.sockets {
		if !listed[s.container] {
			delete(e.sockets, id)
		}
	}
}

// checkPorts sets Ready in the reports of running containers. All ports are checked at
// the same time.
func (e *Engine) checkPorts(ctx context.Context, reports map[dstack.AttemptID]dstack.Report) []dstack.Report {
	now := time.Now().UTC()
	out := make([]dstack.Report, 0, len(reports))
	for _, r := range reports {
		r.At = now
		out = append(out, r)
	}
	var checks sync.WaitGroup
	for i := range out {
		if out[i].State == dstack.AttemptRunning && out[i].Address != "" {
			checks.Go(func() {
				out[i].Ready = e.checkPort(ctx, out[i])
				e.readListeners(ctx, &out[i])
			})
		}
	}
	checks.Wait()
	return out
}

// checkPort reports whether a container's port accepts connections. If the port is
// slow, the result of the last check stands.
func (e *Engine) checkPort(ctx context.Context, r dstack.Report) bool {
	host, _, _ := net.SplitHostPort(r.Address)
	state := engine.CheckPort(ctx, e.opts.Dialer, r.Endpoint, host == "127.0.0.1")
	e.mu.Lock()
	defer e.mu.Unlock()
	if state != engine.PortSlow {
		e.portOpen[r.Attempt] = state == engine.PortAccepted
	}
	return e.portOpen[r.Attempt]
}
