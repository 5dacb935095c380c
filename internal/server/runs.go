package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// findRunDetails reads the run of a name with all below it.
func (s *Server) findRunDetails(c *request, name string) (store.RunDetails, error) {
	run, err := s.store.Run(c.ctx, c.project.ID, name)
	if err != nil {
		return store.RunDetails{}, newRunNotFoundError(name, err)
	}
	found, err := s.store.RunDetails(c.ctx, run.ID)
	if err != nil {
		return store.RunDetails{}, err
	}
	if len(found) != 1 {
		return store.RunDetails{}, newRunNotFoundError(name, &dstack.Error{Kind: dstack.NotFound, Message: "it is gone"})
	}
	return found[0], nil
}

func newRunNotFoundError(name string, err error) error {
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	return wire.Error{Msg: "Run not found", Err: &dstack.Error{Kind: dstack.NotFound, Cause: err,
		Message: "there is no run " + quote(name) + " in this project", Hint: "what there is: dstack ps -a"}}
}

func (s *Server) getRun(c *request, in api.RunName) (api.Run, error) {
	w, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return api.Run{}, err
	}
	return wire.BuildRun(w, s.urls.runURLs(w.Run), time.Now()), nil
}

func (s *Server) listRuns(c *request, in api.ListRuns) ([]api.Run, error) {
	found, err := s.listRunDetails(c, in)
	runs := make([]api.Run, 0, len(found))
	for _, w := range found {
		runs = append(runs, wire.BuildRun(w, s.urls.runURLs(w.Run), time.Now()))
	}
	return runs, err
}

// listRunDetails is a page of the runs that a caller may see.
func (s *Server) listRunDetails(c *request, in api.ListRuns) ([]store.RunDetails, error) {
	q, some, err := s.buildRunQuery(c, in)
	if err != nil || !some {
		return nil, err
	}
	runs, err := s.store.Runs(c.ctx, q)
	if err != nil || len(runs) == 0 {
		return nil, err
	}
	ids := make([]dstack.RunID, 0, len(runs))
	for _, r := range runs {
		ids = append(ids, r.ID)
	}
	found, err := s.store.RunDetails(c.ctx, ids...)
	slices.SortFunc(found, func(a, b store.RunDetails) int { return slices.Index(ids, a.Run.ID) - slices.Index(ids, b.Run.ID) })
	return found, err
}

// buildRunQuery narrows a list of runs to what was asked for and may be seen; some
// is false where that can be nothing.
func (s *Server) buildRunQuery(c *request, in api.ListRuns) (q store.RunQuery, some bool, err error) {
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
	projects, err := s.projectsOf(c)
	if err != nil {
		return q, false, err
	}
	for _, p := range projects {
		if in.ProjectName == nil || equalFold(p.Name, *in.ProjectName) {
			q.Projects = append(q.Projects, p.ID)
		}
	}
	return q, len(q.Projects) > 0, nil
}

func (s *Server) submitRun(c *request, in api.RunSpecRequest) (api.Run, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return api.Run{}, err
	}
	run, err := s.createRun(c, p)
	if err != nil {
		return api.Run{}, err
	}
	return s.getRun(c, api.RunName{RunName: run.Name})
}

// createRun makes a run of a plan. Its name is made up where it has none.
func (s *Server) createRun(c *request, p runPlan) (dstack.Run, error) {
	if p.existing != nil {
		return dstack.Run{}, wire.Error{Msg: fmt.Sprintf("Cannot delete active runs: ['%s']", p.name), Err: &dstack.Error{
			Kind: dstack.Conflict, Message: p.name + " runs already", Hint: "stop it first: dstack stop " + p.name}}
	}
	if err := s.checkReady(c, p); err != nil {
		return dstack.Run{}, err
	}
	if p.name != "" {
		return s.insertRun(c, p.spec, p.name)
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	taken, err := s.store.RunNames(c.ctx, c.project.ID)
	if err != nil {
		return dstack.Run{}, err
	}
	for range 8 { // another server may take a name in between
		name := generateName(taken)
		run, err := s.insertRun(c, p.spec, name)
		if dstack.KindOf(err) != dstack.Conflict {
			return run, err
		}
		taken[name] = true
	}
	return dstack.Run{}, &dstack.Error{Kind: dstack.Unavailable, Message: "no free name was found for the run",
		Hint: "give it one: name: in the configuration, or -n"}
}

// checkReady checks what a run needs before it can begin.
func (s *Server) checkReady(c *request, p runPlan) error {
	if _, err := s.findRepo(c, p.spec.RepoID); err != nil {
		return err
	}
	if hash := codeHashOf(p.spec); hash != "" {
		has, err := s.store.HasCode(c.ctx, c.project.ID, p.spec.RepoID, hash)
		if err != nil {
			return err
		}
		if !has {
			return &dstack.Error{Kind: dstack.Invalid, Message: "the code of this run was not uploaded: " + shortHash(hash),
				Hint: "upload it first; dstack apply does"}
		}
	}
	return p.checkCapacity()
}

func (s *Server) insertRun(c *request, rs dstack.RunSpec, name string) (dstack.Run, error) {
	rs.RunName = &name
	at := now()
	run := dstack.Run{ID: dstack.RunID(uuid.NewString()), ProjectID: c.project.ID, Project: c.project.Name, User: c.user.Name,
		Name: name, Spec: rs, Revision: 1, Status: dstack.RunSubmitted, SubmittedAt: at, Since: at}
	if err := s.store.SubmitRun(c.ctx, run); err != nil {
		return dstack.Run{}, err
	}
	s.notifyChange()
	return run, nil
}

// applyRun submits a run, or gives a running one its next revision, if it is
// still the one that its user was shown.
func (s *Server) applyRun(c *request, in api.ApplyRequest) (api.RunView, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return api.RunView{}, err
	}
	have := 0
	if p.existing != nil {
		have = p.existing.Run.Revision
	}
	if have != in.Revision {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict, Message: describeConcurrentChange(p.name, in.Revision, have),
			Hint: "apply again, and look at what would change now"}
	}
	var run dstack.Run
	if p.existing == nil {
		run, err = s.createRun(c, p)
	} else {
		run, err = s.reviseRun(c, p)
	}
	if err != nil {
		return api.RunView{}, err
	}
	return s.viewRevision(c, run)
}

// viewRevision shows a run that was just given a revision, with the number of that
// one: who asked for it waits for it, and not for one that came right after.
func (s *Server) viewRevision(c *request, run dstack.Run) (api.RunView, error) {
	v, err := s.findView(c, api.RunViewRequest{RunName: run.Name, RunID: string(run.ID)})
	v.Revision = run.Revision
	return v, err
}

func describeConcurrentChange(name string, shown, have int) string {
	switch {
	case have == 0:
		return fmt.Sprintf("%s does not run any more; it was at revision %d when you looked", name, shown)
	case shown == 0:
		return fmt.Sprintf("%s runs by now, at revision %d; it did not when you looked", name, have)
	default:
		return fmt.Sprintf("%s is at revision %d by now; it was at %d when you looked", name, have, shown)
	}
}

func (s *Server) reviseRun(c *request, p runPlan) (dstack.Run, error) {
	if err := s.checkReady(c, p); err != nil {
		return dstack.Run{}, err
	}
	run := p.existing.Run
	rs := p.spec
	rs.RunName = &run.Name
	run, err := s.store.ReviseRun(c.ctx, run.ID, store.Revision{Revision: run.Revision, Spec: rs, User: c.user.Name, NeedsRollout: needsRollout(run.Spec, rs), Now: now()})
	if err == nil {
		s.notifyChange()
	}
	return run, err
}

// stopRuns notes the wish and returns at once. Names that nobody has, and
// runs that have ended, are no error.
func (s *Server) stopRuns(c *request, in api.StopRuns) (wire.Null, error) {
	wish := dstack.StopGraceful
	if in.Abort {
		wish = dstack.StopAbort
	}
	for _, name := range in.RunsNames {
		run, err := s.store.Run(c.ctx, c.project.ID, name)
		if dstack.KindOf(err) == dstack.NotFound || err == nil && run.Status.IsFinished() {
			continue
		}
		if err != nil {
			return wire.Null{}, err
		}
		if err := s.store.StopRun(c.ctx, run.ID, wish, c.user.Name, now()); err != nil {
			return wire.Null{}, err
		}
	}
	s.notifyChange()
	return wire.Null{}, nil
}

// deleteRuns forgets finished runs and their output.
func (s *Server) deleteRuns(c *request, in api.DeleteRuns) (wire.Null, error) {
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
			if err := s.logs.Remove(c.project.Name, name); err != nil {
				s.log.Warn("the output of a deleted run was not removed", "run", name, "err", err)
			}
		}
	}
	s.broadcast.Notify()
	return wire.Null{}, nil
}

// listActive lists the unfinished among runs, in the form of the reference.
func (s *Server) listActive(c *request, names []string) string {
	var active []string
	for _, name := range names {
		if run, err := s.store.Run(c.ctx, c.project.ID, name); err == nil && !run.Status.IsFinished() {
			active = append(active, "'"+name+"'")
		}
	}
	return "[" + strings.Join(active, ", ") + "]"
}
