package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/fleet"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// localFleet is the name under which later clients see the server's own machine.
const localFleet = "default"

// Bounds of a fleet in bytes. Every host has its own copy of the variables and keys, which each server reads every second.
const (
	maxFleetEnv      = 64 << 10 // the names and values of all variables
	maxFleetKeyBytes = 64 << 10 // the private keys of one login
)

// removeInterval is the time between two looks for hosts that have left.
const removeInterval = 2 * time.Second

// HostTask returns the task that removes the hosts that leave, as soon as nothing is on them any more.
func (s *Server) HostTask() loop.Task {
	return loop.Repeat("hosts that leave", nil, func(ctx context.Context) (time.Duration, error) {
		hasLeft, err := s.store.RemoveLeftHosts(ctx)
		if hasLeft {
			s.notifyHosts()
		}
		return removeInterval, err
	})
}

// listFleets lists the fleets of a project.
func (s *Server) listFleets(c *apiCall, _ wire.Null) ([]wire.FleetAnswer, error) {
	return s.answerFleets(c, []dstack.Project{c.project})
}

// listAllFleets lists the fleets of all projects that the caller may see.
func (s *Server) listAllFleets(c *apiCall, _ wire.Null) ([]wire.FleetAnswer, error) {
	projects, err := s.listVisibleProjects(c)
	if err != nil {
		return nil, err
	}
	return s.answerFleets(c, projects)
}

func (s *Server) answerFleets(c *apiCall, projects []dstack.Project) ([]wire.FleetAnswer, error) {
	ids := make([]dstack.ProjectID, len(projects))
	for i, p := range projects {
		ids[i] = p.ID
	}
	fleets, err := s.store.ListFleets(c.ctx, ids)
	if err != nil {
		return nil, err
	}
	replicas, err := s.store.HostReplicas(c.ctx, ids)
	if err != nil {
		return nil, err
	}
	away, err := s.store.AwayInstances(c.ctx)
	if err != nil {
		return nil, err
	}
	answers := make([]wire.FleetAnswer, len(fleets))
	for i, f := range fleets {
		answers[i] = buildFleetAnswer(showAwayHosts(f, away), replicas)
	}
	ofRuns, err := s.listRunFleets(c, ids)
	return append(answers, ofRuns...), err
}

// showAwayHosts returns a fleet whose hosts are unreachable as soon as their replicas get no requests: the next check, which
// finds the cause, takes some seconds more.
func showAwayHosts(f dstack.Fleet, away map[dstack.InstanceID]dstack.Reason) dstack.Fleet {
	f.Hosts = slices.Clone(f.Hosts)
	for i := range f.Hosts {
		check := &f.Hosts[i].Check
		if reason, isAway := away[f.Hosts[i].ID]; isAway && check.Status == dstack.HostReady {
			check.Status, check.Step, check.Message = dstack.HostUnreachable, dstack.HostStepConnect, string(reason)
		}
	}
	return f
}

// answerFleet adds the replicas to a fleet of the project of a call.
func (s *Server) answerFleet(c *apiCall, f dstack.Fleet) (wire.FleetAnswer, error) {
	replicas, err := s.store.HostReplicas(c.ctx, []dstack.ProjectID{f.Project})
	if err != nil {
		return wire.FleetAnswer{}, err
	}
	away, err := s.store.AwayInstances(c.ctx)
	return buildFleetAnswer(showAwayHosts(f, away), replicas), err
}

func buildFleetAnswer(f dstack.Fleet, replicas map[dstack.InstanceID][]string) wire.FleetAnswer {
	answer := wire.FleetAnswer{Fleet: f, Replicas: replicas}
	if f.IsRented() {
		short := fleet.FindShortage(f, now())
		answer.Missing, answer.Lack, answer.IsFinal = short.Missing, short.Reason, short.IsFinal
	}
	return answer
}

func (s *Server) getFleet(c *apiCall, in wire.FleetName) (wire.FleetAnswer, error) {
	if in.ID == "" {
		f, err := s.store.FindFleet(c.ctx, c.project.ID, in.Name)
		if dstack.KindOf(err) == dstack.NotFound {
			if a, isThere, err := s.findRunFleet(c, in.Name); err != nil || isThere {
				return a, err
			}
		}
		if err != nil {
			return wire.FleetAnswer{}, toFleetNotFoundError(err)
		}
		return s.answerFleet(c, f)
	}
	answers, err := s.listFleets(c, wire.Null{})
	if err != nil {
		return wire.FleetAnswer{}, err
	}
	for _, a := range answers {
		if string(a.Fleet.ID) == in.ID {
			return a, nil
		}
	}
	return wire.FleetAnswer{}, toFleetNotFoundError(&dstack.Error{Kind: dstack.NotFound, Message: "there is no such fleet", Hint: "list them: dstack fleet list"})
}

// toFleetNotFoundError gives an error of kind NotFound the message of 0.18.10.
func toFleetNotFoundError(err error) error {
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	return wire.Error{Msg: "Resource not found", Err: err}
}

// createFleet applies a fleet that does not exist yet.
func (s *Server) createFleet(c *apiCall, in api.FleetRequest) (wire.FleetAnswer, error) {
	if name := string(in.Configuration.Name); name != "" {
		_, err := s.store.FindFleet(c.ctx, c.project.ID, name)
		if err == nil {
			return wire.FleetAnswer{}, wire.Error{Code: "resource_exists", Msg: "Resource exists", Err: &dstack.Error{Kind: dstack.Conflict,
				Message: fmt.Sprintf("a fleet named %q exists", name), Hint: "delete it first: dstack fleet delete " + name}}
		}
		if dstack.KindOf(err) != dstack.NotFound {
			return wire.FleetAnswer{}, err
		}
	}
	return s.putFleet(c, in)
}

// putFleet creates a fleet, or replaces the configuration of one.
func (s *Server) putFleet(c *apiCall, in api.FleetRequest) (wire.FleetAnswer, error) {
	f, err := s.buildFleet(c, in)
	if err != nil {
		return wire.FleetAnswer{}, err
	}
	if f.Name == "" {
		s.namingMu.Lock()
		defer s.namingMu.Unlock()
		if err := s.nameFleet(c, &f); err != nil {
			return wire.FleetAnswer{}, err
		}
	}
	if err := s.checkHostCount(c, f); err != nil {
		return wire.FleetAnswer{}, err
	}
	apply := s.store.ApplyFleet
	if f.IsRented() {
		apply = s.store.ApplyCloudFleet
	}
	applied, err := apply(c.ctx, f, now())
	s.audit(c, "fleet applied", slog.String("project", c.project.Name), slog.String("fleet", f.Name), slog.Int("hosts", len(f.Hosts)))
	if err != nil {
		return wire.FleetAnswer{}, err
	}
	s.notifyHosts()
	return s.answerFleet(c, applied)
}

// maxProjectHosts is how many hosts all fleets of a project may have: the server keeps a connection to each.
const maxProjectHosts = 1000

// checkHostCount refuses a fleet with which its project would have too many hosts. Hosts that leave count until they are gone.
func (s *Server) checkHostCount(c *apiCall, f dstack.Fleet) error {
	fleets, err := s.store.ListFleets(c.ctx, []dstack.ProjectID{c.project.ID})
	if err != nil {
		return err
	}
	others := 0
	for _, other := range fleets {
		if other.Name != f.Name {
			others += len(other.Hosts)
		}
	}
	if others+len(f.Hosts) <= maxProjectHosts {
		return nil
	}
	return &dstack.Error{Kind: dstack.Invalid, Hint: "delete fleets that are not needed, or use another project",
		Message: fmt.Sprintf("project %s would have %d hosts, %d at most: its other fleets have %d", c.project.Name, others+len(f.Hosts), maxProjectHosts, others)}
}

// nameFleet generates the name of a fleet.
func (s *Server) nameFleet(c *apiCall, f *dstack.Fleet) error {
	fleets, err := s.store.ListFleets(c.ctx, []dstack.ProjectID{c.project.ID})
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, other := range fleets {
		taken[other.Name] = true
	}
	f.Name = generateName(taken)
	f.Configuration.Name = spec.Text(f.Name)
	return nil
}

// buildFleet checks a configuration, and returns the fleet that it describes,
// without a name if it has none.
func (s *Server) buildFleet(c *apiCall, request api.FleetRequest) (dstack.Fleet, error) {
	in := request.Configuration
	f := dstack.Fleet{Project: c.project.ID, ProjectName: c.project.Name, Name: string(in.Name), Configuration: in, Author: c.user.Name}
	refuse := func(message, hint string) (dstack.Fleet, error) {
		return dstack.Fleet{}, &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint}
	}
	if problems := in.Unsupported(); len(problems) > 0 {
		return dstack.Fleet{}, newUnsupportedError(problems)
	}
	if in.SSH == nil && in.Nodes == nil {
		return refuse("No ssh_config or nodes specified", "add nodes: 1 to rent machines, or ssh_config: {user: ubuntu, hosts: [192.0.2.10]}")
	}
	if f.Name == localFleet {
		return refuse("a fleet cannot be called "+localFleet, "later clients see the server's own machine under this name; choose another one")
	}
	if in.SSH == nil {
		if request.Profile != nil {
			f.Profile = *request.Profile
		}
		if problems := unsupportedIn(in, f.Profile); len(problems) > 0 {
			return dstack.Fleet{}, newUnsupportedError(problems)
		}
		return f, nil
	}
	env, size := map[string]string{}, 0
	for _, v := range in.Env {
		if v.Open {
			return refuse("this environment variable has no value: "+v.Name, "set it in the environment of dstack apply, or with -e NAME=VALUE")
		}
		env[v.Name] = v.Value
		if size += len(v.Name) + len(v.Value); size > maxFleetEnv {
			return refuse(fmt.Sprintf("the variables of the fleet are larger than %s in all, with %s", human.Bytes(maxFleetEnv), v.Name),
				"put long values into a file, and mount or upload it")
		}
	}
	for _, login := range in.SSH.Logins() {
		if login.User == "" {
			return refuse("No ssh user specified for host "+login.Name, "write user: below ssh_config:")
		}
		if login.Jump != nil && login.Jump.User == "" {
			return refuse("No ssh user specified for jump host "+login.Jump.Name, "write user: below proxy_jump:")
		}
		if len(login.Key.Private()) > maxFleetKeyBytes || login.Jump != nil && len(login.Jump.Key.Private()) > maxFleetKeyBytes {
			return refuse(fmt.Sprintf("the private key of host %s is larger than %s", login.Name, human.Bytes(maxFleetKeyBytes)),
				"give a file that ssh-keygen wrote, such as ~/.ssh/id_ed25519")
		}
		f.Hosts = append(f.Hosts, buildHost(login, env))
	}
	return f, nil
}

func buildHost(login spec.SSHLogin, env map[string]string) dstack.Host {
	h := dstack.Host{Name: login.Name, Env: env, Login: buildLogin(login)}
	if login.Jump != nil {
		jump := buildLogin(*login.Jump)
		h.Jump = &jump
	}
	return h
}

func buildLogin(login spec.SSHLogin) dstack.SSHLogin {
	return dstack.SSHLogin{Address: login.Address(), User: login.User, PrivateKey: login.Key.Private(), Fingerprints: login.HostKeys}
}

func (s *Server) deleteFleets(c *apiCall, in api.DeleteFleets) (wire.Null, error) {
	names := in.Names
	in, err := s.releaseRunFleets(c, in)
	if err == nil {
		err = s.store.DeleteFleets(c.ctx, c.project.ID, in.Names, now())
	}
	s.audit(c, "fleets deleted", slog.String("project", c.project.Name), slog.String("fleets", strings.Join(names, ",")), slog.Bool("refused", err != nil))
	if err == nil {
		s.notifyHosts()
	}
	return wire.Null{}, toFleetNotFoundError(err)
}

func (s *Server) deleteFleetInstances(c *apiCall, in api.DeleteFleetInstances) (wire.Null, error) {
	err := s.store.DeleteHosts(c.ctx, c.project.ID, in.Name, in.InstanceNums, now())
	s.audit(c, "fleet instances deleted", slog.String("project", c.project.Name), slog.String("fleet", in.Name), slog.Bool("refused", err != nil))
	if err == nil {
		s.notifyHosts()
	}
	return wire.Null{}, toFleetNotFoundError(err)
}

// drainFleet drains hosts of a fleet, or uses them again.
func (s *Server) drainFleet(c *apiCall, in api.DrainRequest) (wire.FleetAnswer, error) {
	f, err := s.store.SetDraining(c.ctx, c.project.ID, in.Name, in.InstanceNums, in.Drain, now())
	if err != nil {
		return wire.FleetAnswer{}, toFleetNotFoundError(err)
	}
	s.audit(c, "fleet drained", slog.String("project", c.project.Name), slog.String("fleet", in.Name), slog.Bool("drain", in.Drain))
	s.notifyHosts()
	return s.answerFleet(c, f)
}

// notifyHosts wakes whatever waits for a change, the passes, and the check of hosts.
func (s *Server) notifyHosts() {
	s.wakeHosts()
	s.wake()
	s.notifyChange()
}

func (s *Server) applyFleet(c *apiCall, in api.FleetRequest) (wire.FleetAnswer, error) {
	return s.putFleet(c, in)
}

// listFleetViews returns fleets as our command line shows them.
func (s *Server) listFleetViews(c *apiCall, in api.FleetViewsRequest) ([]api.FleetView, error) {
	answers, err := s.listFleets(c, wire.Null{})
	if err != nil {
		return nil, err
	}
	views := []api.FleetView{}
	for _, a := range answers {
		if !a.IsAuto && (len(in.Names) == 0 || slices.Contains(in.Names, a.Fleet.Name)) { // machines of runs are shown with the runs
			views = append(views, buildFleetView(a))
		}
	}
	slices.SortFunc(views, func(a, b api.FleetView) int { return strings.Compare(a.Name, b.Name) })
	return views, nil
}
