package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Labels of the containers, images and volumes of gateways. They have none of attempts, so that nothing takes them for those.
const (
	labelGatewayInstallation = "dstack.gateway_installation"
	labelGatewayPlacement    = "dstack.gateway_placement"
	labelGatewayProgram      = "dstack.gateway_program"
	labelGatewayName         = "dstack.gateway"
)

// programPath is the program in the image of a gateway.
const programPath = "/dstack"

// Limits of the container of a gateway.
const (
	maxGatewayPIDs   = 8 << 10
	gatewayStopGrace = time.Minute
	gatewayTempSize  = 64 << 20
)

var _ engine.Gateways = (*Engine)(nil)

// gatewayKey identifies the container of a gateway.
type gatewayKey struct {
	placement dstack.GatewayPlacementID
	program   string
}

// gatewayStartup is the start of a container of a gateway that is under way or has failed.
type gatewayStartup struct {
	progress string
	err      error // nil: it is under way
}

// StartGateway implements engine.Gateways.
func (e *Engine) StartGateway(ctx context.Context, launch engine.GatewayLaunch) error {
	if err := e.checkGatewayMachine(launch.Program); err != nil {
		return err
	}
	key := gatewayKey{launch.Placement, launch.Program.Digest}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.gateways[key]; s != nil && s.err == nil || e.ctx.Err() != nil {
		return nil
	}
	s := &gatewayStartup{progress: "is being started"}
	e.gateways[key] = s
	e.work.Go(func() {
		err := e.recoverPanic(func() error { return e.startGateway(launch, s) })
		e.mu.Lock()
		defer e.mu.Unlock()
		if s.err = err; err == nil {
			delete(e.gateways, key)
		}
	})
	return nil
}

// checkGatewayMachine returns Unsupported if the machine cannot run a gateway.
func (e *Engine) checkGatewayMachine(p engine.Program) error {
	switch {
	case p.OS != "linux":
		return &dstack.Error{Kind: dstack.Unsupported, Message: "the server's program is for " + p.OS + ", and hosts need one for Linux",
			Hint: "run the server on Linux, or join a gateway by hand: dstack gateway token NAME"}
	case e.about.arch != "" && e.about.arch != p.Arch:
		return &dstack.Error{Kind: dstack.Unsupported, Message: fmt.Sprintf("the host is %s, and the server's program is for %s", e.about.arch, p.Arch),
			Hint: "choose another host in `hosts`, or join the gateway by hand: dstack gateway token NAME"}
	case e.about.isRootless:
		return &dstack.Error{Kind: dstack.Unsupported, Message: "the Docker engine of the host runs without root, so nothing in it can listen on the host's ports 80 and 443",
			Hint: "choose another host in `hosts`, or install Docker with root there"}
	}
	return nil
}

func (e *Engine) setGatewayProgress(s *gatewayStartup, progress string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.progress = progress
}

// gatewayStartTimeout limits a start, which may copy the program over a slow network.
const gatewayStartTimeout = 15 * time.Minute

// startGateway brings the program to the machine, and creates and starts the container.
func (e *Engine) startGateway(launch engine.GatewayLaunch, s *gatewayStartup) error {
	ctx, cancel := context.WithTimeout(e.ctx, gatewayStartTimeout)
	defer cancel()
	image, err := e.ensureProgramImage(ctx, launch.Program, func(progress string) { e.setGatewayProgress(s, progress) })
	if err != nil {
		return e.translateGatewayError(err, "copy the program to the host")
	}
	containers, err := e.listGatewayContainers(ctx, launch.Placement)
	if err != nil {
		return e.translateGatewayError(err, "list the containers of the gateway")
	}
	id := ""
	for _, c := range containers {
		if c.Labels[labelGatewayProgram] == launch.Program.Digest {
			id = c.ID
			if c.State == container.StateRunning || c.State == container.StateRestarting {
				return nil
			}
			continue
		}
		if err := e.setRestart(ctx, c.ID, container.RestartPolicyDisabled); err != nil {
			return e.translateGatewayError(err, "prepare the container before")
		}
	}
	if id == "" {
		e.setGatewayProgress(s, "its container is being created")
		created, err := e.docker.ContainerCreate(ctx, e.newGatewayOptions(launch, image))
		if err != nil {
			return e.translateGatewayError(err, "create the container of the gateway")
		}
		id = created.ID
	}
	return e.translateGatewayError(e.runGateway(ctx, id, launch), "start the container of the gateway")
}

// runGateway gives a container a token, and starts it.
func (e *Engine) runGateway(ctx context.Context, id string, launch engine.GatewayLaunch) error {
	token, err := launch.Token(ctx)
	if err != nil {
		return err
	}
	if token != "" {
		if err := e.copyToken(ctx, id, token); err != nil {
			return err
		}
	}
	if err := e.setRestart(ctx, id, container.RestartPolicyAlways); err != nil {
		return err
	}
	_, err = e.docker.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

func (e *Engine) setRestart(ctx context.Context, id string, mode container.RestartPolicyMode) error {
	_, err := e.docker.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{RestartPolicy: &container.RestartPolicy{Name: mode}})
	return err
}

// nameGatewayVolume returns the name of the volume that has the state of a placement's processes.
func nameGatewayVolume(id dstack.GatewayPlacementID) string { return "dstack-gateway-" + string(id) }

// newGatewayOptions returns the options to create the container of a gateway. Its process replaces one of another container
// that has the same volume, if there is one. It has the network of the machine, and of all
// rights of root only that to listen on ports below 1024.
func (e *Engine) newGatewayOptions(launch engine.GatewayLaunch, image string) client.ContainerCreateOptions {
	pids := int64(maxGatewayPIDs)
	labels := e.gatewayLabels(launch.Placement)
	labels[labelGatewayProgram], labels[labelGatewayName] = launch.Program.Digest, launch.Gateway
	grace := int(gatewayStopGrace.Seconds())
	env := make([]string, 0, len(launch.Env))
	for _, name := range slices.Sorted(maps.Keys(launch.Env)) {
		env = append(env, name+"="+launch.Env[name])
	}
	return client.ContainerCreateOptions{
		Name: fmt.Sprintf("dstack-gateway-%s-%s-%s", launch.Gateway, shortID(string(launch.Placement)), shortID(launch.Program.Digest)),
		Config: &container.Config{
			Image: image, User: "0:0", Cmd: []string{programPath, "gateway", "serve", "--take-over"}, Env: env, Labels: labels, StopTimeout: &grace,
		},
		HostConfig: &container.HostConfig{
			NetworkMode: "host", UsernsMode: "host", ReadonlyRootfs: true, CapDrop: []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"},
			SecurityOpt: []string{"no-new-privileges"}, Tmpfs: map[string]string{"/tmp": fmt.Sprintf("size=%d", gatewayTempSize)},
			LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": maxLogSize, "max-file": maxLogFiles}},
			Resources: container.Resources{PidsLimit: &pids},
			Mounts: []mount.Mount{{
				Type: mount.TypeVolume, Source: nameGatewayVolume(launch.Placement), Target: engine.GatewayStateFolder,
				VolumeOptions: &mount.VolumeOptions{Labels: e.gatewayLabels(launch.Placement)},
			}},
		},
	}
}

func shortID(id string) string { return id[:min(8, len(id))] }

func (e *Engine) gatewayLabels(id dstack.GatewayPlacementID) map[string]string {
	return map[string]string{labelGatewayInstallation: string(e.opts.Installation), labelGatewayPlacement: string(id)}
}

// listGatewayContainers lists the containers of one placement, or of all if the ID is empty.
func (e *Engine) listGatewayContainers(ctx context.Context, id dstack.GatewayPlacementID) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	filters := make(client.Filters).Add("label", labelGatewayInstallation+"="+string(e.opts.Installation))
	if id != "" {
		filters.Add("label", labelGatewayPlacement+"="+string(id))
	}
	got, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	return got.Items, err
}

// ListGateways implements engine.Gateways.
func (e *Engine) ListGateways(ctx context.Context) ([]dstack.GatewayContainer, error) {
	found := map[gatewayKey]dstack.GatewayContainer{}
	e.mu.Lock()
	for key, s := range e.gateways { // before the list, so that none is missed in between
		c := dstack.GatewayContainer{Placement: key.placement, Program: key.program, State: dstack.GatewayContainerStarting, Message: s.progress}
		if s.err != nil {
			c.State, c.Message = dstack.GatewayContainerFailed, s.err.Error()
		}
		found[key] = c
	}
	e.mu.Unlock()
	listed, err := e.listGatewayContainers(ctx, "")
	if err != nil {
		return nil, e.newUnreachableError(err)
	}
	for _, c := range listed {
		key := gatewayKey{dstack.GatewayPlacementID(c.Labels[labelGatewayPlacement]), c.Labels[labelGatewayProgram]}
		_, isStarting := found[key]
		if report, isKnown := e.describeGateway(ctx, c, key); isKnown && !(isStarting && report.State != dstack.GatewayContainerRunning) {
			found[key] = report
		}
	}
	return slices.Collect(maps.Values(found)), nil
}

// describeGateway reports a container. isKnown is false for one that is created and not started: the next start finds it.
func (e *Engine) describeGateway(ctx context.Context, c container.Summary, key gatewayKey) (report dstack.GatewayContainer, isKnown bool) {
	report = dstack.GatewayContainer{Placement: key.placement, Program: key.program, State: dstack.GatewayContainerEnded}
	got, err := e.docker.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil || got.Container.State == nil {
		return report, !errdefs.IsNotFound(err)
	}
	state := got.Container.State
	report.StartedAt = parseTime(state.StartedAt)
	switch c.State {
	case container.StateRunning, container.StatePaused:
		report.State = dstack.GatewayContainerRunning
	case container.StateRestarting:
		report.State, report.Message = dstack.GatewayContainerFailed, "its process ends again and again: "+e.readLastWords(ctx, c.ID)
	case container.StateCreated:
		report.State, report.Message = dstack.GatewayContainerFailed, "it was not started: "+state.Error
	default:
		report.Message = fmt.Sprintf("its process ended with exit code %d: %s", state.ExitCode, e.readLastWords(ctx, c.ID))
	}
	report.Message = limitError(strings.TrimSuffix(report.Message, ": "))
	return report, true
}

// RemoveGateway implements engine.Gateways.
func (e *Engine) RemoveGateway(ctx context.Context, id dstack.GatewayPlacementID, program string) error {
	key := gatewayKey{id, program}
	containers, err := e.listGatewayContainers(ctx, id)
	if err != nil {
		return e.newUnreachableError(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.gateways[key]; s != nil && s.err == nil || e.ctx.Err() != nil {
		return nil // it is being started or removed
	}
	delete(e.gateways, key)
	i := slices.IndexFunc(containers, func(c container.Summary) bool { return c.Labels[labelGatewayProgram] == program })
	if i < 0 {
		return nil
	}
	s := &gatewayStartup{progress: "is being removed"}
	e.gateways[key] = s
	e.work.Go(func() {
		err := e.recoverPanic(func() error { return e.removeGateway(containers[i].ID) })
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.gateways, key)
		if err != nil {
			e.opts.Log.Info("a container of a gateway was not removed", "placement", id, "err", err)
		}
	})
	return nil
}

// removeGateway stops a container, which has time to finish its requests, and removes it.
func (e *Engine) removeGateway(id string) error {
	grace := int(gatewayStopGrace.Seconds())
	ctx, cancel := context.WithTimeout(e.ctx, gatewayStopGrace+callTimeout)
	defer cancel()
	if _, err := e.streams.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &grace}); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	_, err := e.docker.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // conflict: Docker is removing it
		return err
	}
	e.removeUnusedPrograms(ctx)
	return nil
}

// DeleteGatewayState implements engine.Gateways. It also removes the images of programs that no container uses any more.
func (e *Engine) DeleteGatewayState(ctx context.Context, id dstack.GatewayPlacementID) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := e.docker.VolumeRemove(ctx, nameGatewayVolume(id), client.VolumeRemoveOptions{})
	switch {
	case errdefs.IsConflict(err):
		return &dstack.Error{Kind: dstack.Conflict, Message: "a container still mounts the data of the gateway", Cause: err,
			Hint: "remove it: docker ps -a --filter volume=" + nameGatewayVolume(id)}
	case err != nil && !errdefs.IsNotFound(err):
		return e.translateGatewayError(err, "delete the data of the gateway")
	}
	e.removeUnusedPrograms(ctx)
	return nil
}

// translateGatewayError returns an error for the user.
func (e *Engine) translateGatewayError(err error, what string) error {
	switch {
	case err == nil || dstack.KindOf(err) != dstack.Internal:
		return err
	case isConnectionLost(err):
		return e.newUnreachableError(err)
	}
	return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("Docker cannot %s: %s", what, shortenError(err)), Hint: "it is tried again", Cause: err}
}
