package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// findRunDetails finds a run by name, with its replicas, instances and reports.
func (s *Server) findRunDetails(c *apiCall, name string) (store.RunDetails, error) {
	found, err := s.store.NamedRunDetails(c.ctx, c.project.ID, name)
	if err != nil {
		return store.RunDetails{}, toRunNotFoundError(name, err)
	}
	return found, nil
}

// toRunNotFoundError gives an error of kind NotFound the message of 0.18.10. It
// returns other errors as they are.
func toRunNotFoundError(name string, err error) error {
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	return wire.Error{Msg: "Run not found", Err: &dstack.Error{Kind: dstack.NotFound, Cause: err,
		Message: "there is no run " + quote(name) + " in this project", Hint: "list the runs: dstack ps -a"}}
}

func (s *Server) getRun(c *apiCall, in api.RunName) (wire.RunAnswer, error) {
	details, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return wire.RunAnswer{}, err
	}
	return s.answerRun(c, details), nil
}

func (s *Server) answerRun(c *apiCall, details store.RunDetails) wire.RunAnswer {
	return wire.RunAnswer{Details: details, URLs: s.runURLsFor(c, details.Run), Now: time.Now()}
}

func (s *Server) listRuns(c *apiCall, in api.ListRuns) ([]wire.RunAnswer, error) {
	found, err := s.listRunDetails(c, in)
	runs := make([]wire.RunAnswer, 0, len(found))
	for _, details := range found {
		runs = append(runs, s.answerRun(c, details))
	}
	return runs, err
}

// listRunDetails returns a page of the runs that the caller may see, in the
// order of the query.
func (s *Server) listRunDetails(c *apiCall, in api.ListRuns) ([]store.RunDetails, error) {
	q, some, err := s.buildRunQuery(c, in)
	if err != nil || !some {
		return nil, err
	}
	return s.store.ListRunDetails(c.ctx, q)
}

// buildRunQuery returns the query for a list of runs, limited to the projects
// that the caller may see. some is false if no run can match.
func (s *Server) buildRunQuery(c *apiCall, in api.ListRuns) (q store.RunQuery, some bool, err error) {
	q = store.RunQuery{OnlyActive: in.OnlyActive, Ascending: in.Ascending, Limit: 100,
		Repo: orEmpty(in.RepoID), User: orEmpty(in.Username), BeforeID: dstack.RunID(orEmpty(in.PrevRunID))}
	if in.PrevSubmittedAt != nil {
		q.BeforeAt = *in.PrevSubmittedAt
	}
	if in.Limit != nil {
		q.Limit = *in.Limit
	}
	if q.User != "" {
		if _, err := s.store.User(c.ctx, q.User); err != nil {
			return q, false, wire.Error{Msg: "User not found", Err: err}
		}
	}
	if q.Repo != "" && in.ProjectName == nil || q.Limit == 0 {
		return q, false, nil
	}
	projects, err := s.listVisibleProjects(c)
	if err != nil {
		return q, false, err
	}
	for _, p := range projects {
		if in.ProjectName == nil || strings.EqualFold(p.Name, *in.ProjectName) {
			q.Projects = append(q.Projects, p.ID)
		}
	}
	return q, len(q.Projects) > 0, nil
}

func (s *Server) submitRun(c *apiCall, in api.RunSpecRequest) (wire.RunAnswer, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return wire.RunAnswer{}, err
	}
	run, err := s.createRun(c, p)
	if err != nil {
		return wire.RunAnswer{}, err
	}
	return s.getRun(c, api.RunName{RunName: run.Name})
}

// createRun creates the run of a plan. It generates a name if the plan has
// none.
func (s *Server) createRun(c *apiCall, p runPlan) (dstack.Run, error) {
	if p.existing != nil {
		return dstack.Run{}, wire.Error{Msg: fmt.Sprintf("Cannot delete active runs: ['%s']", p.name), Err: &dstack.Error{
			Kind: dstack.Conflict, Message: p.name + " is already running", Hint: "stop it first: dstack stop " + p.name}}
	}
	if err := s.checkReady(c, p); err != nil {
		return dstack.Run{}, err
	}
	leftOut, err := s.listLeftOut(c, p.spec, dstack.RunSpec{})
	if err != nil {
		return dstack.Run{}, err
	}
	if p.name != "" {
		return s.insertRun(c, p.spec, p.name, leftOut)
	}
	s.namingMu.Lock()
	defer s.namingMu.Unlock()
	taken, err := s.store.RunNames(c.ctx, c.project.ID)
	if err != nil {
		return dstack.Run{}, err
	}
	for range 8 { // another server may take the name in the meantime
		name := generateName(taken)
		run, err := s.insertRun(c, p.spec, name, leftOut)
		if dstack.KindOf(err) != dstack.Conflict {
			return run, err
		}
		taken[name] = true
	}
	return dstack.Run{}, &dstack.Error{Kind: dstack.Unavailable, Message: "no free name was found for the run",
		Hint: "set name: in the configuration, or -n"}
}

// checkReady checks that the repo and the code of a plan exist, that the code fits, and
// that a machine has capacity for it.
func (s *Server) checkReady(c *apiCall, p runPlan) error {
	repo, err := s.findRepo(c, p.spec.RepoID)
	if err != nil {
		return err
	}
	if job.IsRemote(repo.Info) != job.IsRemote(p.spec.RepoData) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "repo " + quote(repo.ID) + " is registered with another type than the run's repo_data has",
			Hint: "register it again, dstack init, and apply again"}
	}
	if hash := codeHash(p.spec); hash != "" {
		has, err := s.store.HasCode(c.ctx, c.project.ID, p.spec.RepoID, hash)
		if err != nil {
			return err
		}
		if !has {
			return &dstack.Error{Kind: dstack.Invalid, Message: "the code of this run was not uploaded: " + shortHash(hash),
				Hint: "upload it first, as dstack apply does"}
		}
		if err := s.checkChanges(c, p, hash); err != nil {
			return err
		}
	}
	if err := checkUploaded(p.spec.FileArchives); err != nil {
		return err
	}
	return p.checkCapacity()
}

// insertRun stores a new run and wakes the passes. leftOut is the result of listLeftOut.
func (s *Server) insertRun(c *apiCall, rs dstack.RunSpec, name string, leftOut []string) (dstack.Run, error) {
	rs.RunName = &name
	at := now()
	run := dstack.Run{ID: dstack.RunID(uuid.NewString()), ProjectID: c.project.ID, Project: c.project.Name,
		User: c.user.Name, Name: name, Spec: rs, Revision: 1, Status: dstack.RunSubmitted, SubmittedAt: at, Since: at}
	if err := s.store.SubmitRun(c.ctx, run, leftOut...); err != nil {
		return dstack.Run{}, err
	}
	s.notifyChange()
	return run, nil
}

// applyRun submits a run, or a new revision of the unfinished run with the same
// name. It fails if the revision has changed since the user saw the plan.
func (s *Server) applyRun(c *apiCall, in api.ApplyRequest) (api.RunView, error) {
	if err := s.completeRunSpec(c, &in.RunSpec); err != nil {
		return api.RunView{}, err
	}
	run, err := s.applySpec(c, in.RunSpec, func(p runPlan) error {
		have := 0
		if p.existing != nil {
			have = p.existing.Run.Revision
		}
		if have != in.Revision {
			return newSeenOtherError(p.name, in.Revision, have)
		}
		return nil
	})
	if err != nil {
		return api.RunView{}, err
	}
	return s.viewRevision(c, run)
}

// newSeenOtherError returns the error for a user who saw one revision of a run while another one is current; 0: none.
func newSeenOtherError(name string, seen, current int) error {
	return &dstack.Error{Kind: dstack.Conflict, Message: describeConflict(name, seen, current),
		Hint: "apply again and check what would change"}
}

// applySpec submits a run, or a new revision of the unfinished run with the same name, if check accepts the plan.
func (s *Server) applySpec(c *apiCall, rs dstack.RunSpec, check func(runPlan) error) (dstack.Run, error) {
	p, err := s.planRun(c, rs)
	if err != nil {
		return dstack.Run{}, err
	}
	if err := check(p); err != nil {
		return dstack.Run{}, err
	}
	if p.existing == nil {
		return s.createRun(c, p)
	}
	return s.reviseRun(c, p)
}

// reviseRun submits a plan as a new revision of its existing run.
func (s *Server) reviseRun(c *apiCall, p runPlan) (dstack.Run, error) {
	if err := s.checkReady(c, p); err != nil {
		return dstack.Run{}, err
	}
	run := p.existing.Run
	rs := p.spec
	rs.RunName = &run.Name
	leftOut, err := s.listLeftOut(c, rs, run.Spec)
	if err != nil {
		return dstack.Run{}, err
	}
	run, err = s.store.ReviseRun(c.ctx, run.ID, store.Revision{Revision: run.Revision, Spec: rs, User: c.user.Name,
		NeedsRollout: needsRollout(run.Spec, rs), Kept: keptGroups(run.Spec, rs), LeftOut: leftOut, Now: now()})
	if err == nil {
		s.notifyChange()
	}
	return run, err
}

// stopRuns requests that runs stop and returns at once. It ignores unknown
// names and finished runs.
func (s *Server) stopRuns(c *apiCall, in api.StopRuns) (wire.Null, error) {
	stop := dstack.StopGraceful
	if in.Abort {
		stop = dstack.StopAbort
	}
	for _, name := range in.RunsNames {
		run, err := s.store.Run(c.ctx, c.project.ID, name)
		if dstack.KindOf(err) == dstack.NotFound || err == nil && run.Status.IsFinished() {
			continue
		}
		if err != nil {
			return wire.Null{}, err
		}
		if err := s.store.StopRun(c.ctx, run.ID, stop, c.user.Name, now()); err != nil {
			return wire.Null{}, err
		}
	}
	s.notifyChange()
	return wire.Null{}, nil
}

// deleteRuns deletes finished runs and their logs. It ignores unknown names.
func (s *Server) deleteRuns(c *apiCall, in api.DeleteRuns) (wire.Null, error) {
	taken, err := s.store.RunNames(c.ctx, c.project.ID)
	if err != nil {
		return wire.Null{}, err
	}
	if err := s.store.DeleteRuns(c.ctx, c.project.ID, in.RunsNames); err != nil {
		if dstack.KindOf(err) == dstack.Conflict {
			err = wire.Error{Msg: "Cannot delete active runs: " + s.listActive(c, in.RunsNames), Err: err}
		}
		return wire.Null{}, err
	}
	for _, name := range in.RunsNames {
		if taken[name] {
			if err := s.removeOutput(c.ctx, c.project.Name, name); err != nil {
				s.log.Warn("the logs of a deleted run were not removed", "run", name, "err", err)
			}
		}
	}
	s.broadcast.Notify()
	return wire.Null{}, nil
}

// listActive lists the unfinished runs among names in the format of 0.18.10:
// ['a', 'b'].
func (s *Server) listActive(c *apiCall, names []string) string {
	var active []string
	for _, name := range names {
		if run, err := s.store.Run(c.ctx, c.project.ID, name); err == nil && !run.Status.IsFinished() {
			active = append(active, "'"+name+"'")
		}
	}
	return "[" + strings.Join(active, ", ") + "]"
}
