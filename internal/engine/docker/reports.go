package docker

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// inspection is a container as it was last looked at closely.
type inspection struct {
	state    container.ContainerState
	networks string // see joined
	report   dstack.Report
}

// networkKey names a container's connections to networks, which are new each time
// it starts. One that was restarted by hand has another address.
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

// minAbandonedAge is how old a container must be that was made and never started,
// before it counts as left behind by a server that was killed.
const minAbandonedAge = time.Minute

func (e *Engine) labelFilter(attempt dstack.AttemptID) client.Filters {
	f := client.Filters{}.Add("label", labelInstallation+"="+string(e.opts.Installation))
	if attempt != "" {
		f = f.Add("label", labelAttempt+"="+string(attempt))
	}
	return f
}

// findContainer returns an attempt's container; nil when there is none.
func (e *Engine) findContainer(ctx context.Context, id dstack.AttemptID) (*container.Summary, error) {
	if id == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelFilter(id)})
	if err != nil {
		return nil, newUnreachableError(err)
	}
	if len(got.Items) == 0 {
		return nil, nil
	}
	return &got.Items[0], nil
}

// Running is described at engine.Engine. It costs one list, and a close look
// at each container whose state has changed.
func (e *Engine) Running(ctx context.Context) ([]dstack.Report, error) {
	reports := e.reportsWithoutContainer() // before the list: what is begun meanwhile is in one of them
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelFilter("")})
	if err != nil {
		return nil, newUnreachableError(err)
	}
	alive := map[string]bool{}
	for _, c := range got.Items {
		alive[c.ID] = true
		id := dstack.AttemptID(c.Labels[labelAttempt])
		if r, ok := reports[id]; ok && !r.State.IsOver() && c.State != container.StateRunning && c.State != container.StatePaused {
			continue // a start that fails passes through other states
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
			return nil, newUnreachableError(err)
		}
		reports[id] = r
	}
	e.forgetRemoved(alive)
	return e.checkPorts(ctx, reports), nil
}

// reportsWithoutContainer returns what no container tells: attempts at their beginning,
// and those that ended there.
func (e *Engine) reportsWithoutContainer() map[dstack.AttemptID]dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	reports := map[dstack.AttemptID]dstack.Report{}
	for id, b := range e.startups {
		reports[id] = b.report(id)
	}
	for id, r := range e.endedReports {
		reports[id] = r
	}
	return reports
}

// removeIfAbandoned removes a container that was made and never started, if nobody is
// about to.
func (e *Engine) removeIfAbandoned(ctx context.Context, c container.Summary, id dstack.AttemptID) error {
	if e.findStartup(id) != nil || time.Since(time.Unix(c.Created, 0)) < minAbandonedAge {
		return nil
	}
	_, err := e.docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		return newUnreachableError(err)
	}
	return nil
}

func (e *Engine) inspectContainer(ctx context.Context, c container.Summary, id dstack.AttemptID) (dstack.Report, error) {
	e.mu.Lock()
	was, ok := e.inspections[c.ID]
	e.mu.Unlock()
	if ok && was.state == c.State && was.networks == networkKey(c) {
		return was.report, nil
	}
	got, err := e.docker.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil {
		return dstack.Report{}, err
	}
	now := inspection{state: c.State, networks: networkKey(c), report: dstack.Report{Attempt: id, State: dstack.AttemptRunning}}
	state := got.Container.State
	if state == nil {
		return now.report, nil
	}
	now.report.StartedAt = parseTime(state.StartedAt)
	if state.Running {
		now.report.Address = e.findAddress(got.Container)
	} else {
		now.report.State = dstack.AttemptExited
		now.report.ExitCode, now.report.OOM, now.report.Error = state.ExitCode, state.OOMKilled, state.Error
		now.report.EndedAt = parseTime(state.FinishedAt)
		now.report.LastOutput = e.readLastLines(ctx, c.ID)
		now.report = refusedIfNotExecuted(now.report, c.Image)
	}
	settled := state.Running == (c.State == container.StateRunning || c.State == container.StatePaused)
	if settled && (now.report.Address != "" || !state.Running) {
		e.mu.Lock()
		e.inspections[c.ID] = now
		e.mu.Unlock()
	}
	return now.report, nil
}

// refusedIfNotExecuted tells a command that cannot be run from one that ended: started by
// the init program, the former shows only in what that says.
func refusedIfNotExecuted(r dstack.Report, image string) dstack.Report {
	n := len(r.LastOutput)
	if r.ExitCode != 126 && r.ExitCode != 127 || n == 0 || !strings.HasPrefix(r.LastOutput[n-1], "[FATAL tini") {
		return r
	}
	no := engine.NewRefusedReport(r.Attempt, translateError(errors.New(r.LastOutput[n-1]), startErrors, image), r.EndedAt)
	no.StartedAt, no.LastOutput = r.StartedAt, r.LastOutput
	return no
}

func parseTime(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() < 2000 {
		return time.Time{}
	}
	return at.UTC()
}

// findAddress is where a running container's port is reached; empty when it is
// not connected yet.
func (e *Engine) findAddress(c container.InspectResponse) string {
	port := c.Config.Labels[labelPort]
	if c.NetworkSettings == nil {
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

// forgetRemoved drops what is known of containers that are gone.
func (e *Engine) forgetRemoved(listed map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.inspections {
		if !listed[id] {
			delete(e.inspections, id)
		}
	}
}

// checkPorts asks every running container's port whether it answers.
func (e *Engine) checkPorts(ctx context.Context, reports map[dstack.AttemptID]dstack.Report) []dstack.Report {
	now := time.Now().UTC()
	out := make([]dstack.Report, 0, len(reports))
	for _, r := range reports {
		r.At = now
		out = append(out, r)
	}
	var calls sync.WaitGroup
	for i := range out {
		if out[i].State == dstack.AttemptRunning && out[i].Address != "" {
			calls.Go(func() { out[i].Ready = e.checkPort(ctx, out[i]) })
		}
	}
	calls.Wait()
	return out
}

// checkPort calls a container's port. One that is only slow to answer stays what
// it was.
func (e *Engine) checkPort(ctx context.Context, r dstack.Report) bool {
	host, _, _ := net.SplitHostPort(r.Address)
	got := engine.CheckPort(ctx, r.Address, host == "127.0.0.1")
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.portOpen[r.Attempt]
	if got != engine.PortSlow {
		was = got == engine.PortAccepted
		e.portOpen[r.Attempt] = was
	}
	return was
}
