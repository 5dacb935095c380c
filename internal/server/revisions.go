package server

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// listRevisions lists the revisions of a run, newest first.
func (s *Server) listRevisions(c *apiCall, in api.RunName) ([]api.RevisionView, error) {
	details, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return nil, err
	}
	found, err := s.store.Revisions(c.ctx, details.Run.ID)
	if err != nil {
		return nil, err
	}
	views := make([]api.RevisionView, 0, len(found))
	for i, r := range found {
		v := api.RevisionView{Num: r.Num, Current: r.Num == details.Run.Revision, Status: r.Status, User: r.User,
			At: r.At.UTC(), Restores: r.Restores, Reason: string(r.Reason), Changes: []api.Change{}}
		if base := findBase(found[i+1:]); base != nil {
			v.Changes = listChanges(base.Spec, r.Spec)
		}
		if v.Current && v.Reason == "" {
			v.Status, v.Reason = describeEnd(details.Run, r.Status)
		}
		views = append(views, v)
	}
	return views, nil
}

// findBase returns the revision that a revision changed, from the revisions before
// it, newest first: not one that failed, because its run went back to the one before.
func findBase(before []dstack.Revision) *dstack.Revision {
	for i := range before {
		if before[i].Status != dstack.RevisionFailed {
			return &before[i]
		}
	}
	return nil
}

// describeEnd returns the status and the reason of the current revision of a run.
// A revision that was not ready when its run ended will not become ready: it
// failed with the run, unless the run was stopped.
func describeEnd(run dstack.Run, status dstack.RevisionStatus) (dstack.RevisionStatus, string) {
	if !run.Status.IsFinished() || status != dstack.RevisionPending {
		return status, ""
	}
	switch run.Ending {
	case dstack.EndFailed, dstack.EndNoCapacity, dstack.EndDuration:
		return dstack.RevisionFailed, string(run.Reason)
	case dstack.EndNone, dstack.EndStopped, dstack.EndAborted:
	}
	return status, "the run was stopped before this revision was ready"
}

// rollBackRun submits an earlier revision of a run again, as the next one. If
// that would change nothing, the run keeps its current revision.
func (s *Server) rollBackRun(c *apiCall, in api.RollbackRequest) (api.RunView, error) {
	details, err := s.findRunDetails(c, in.RunName)
	if err != nil {
		return api.RunView{}, err
	}
	if details.Run.Status.IsFinished() {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict, Message: in.RunName + " has ended",
			Hint: "start it again: dstack apply"}
	}
	if in.Revision != details.Run.Revision {
		return api.RunView{}, &dstack.Error{Kind: dstack.Conflict,
			Message: describeConflict(in.RunName, in.Revision, details.Run.Revision),
			Hint:    "list the revisions again: dstack history " + in.RunName}
	}
	target, err := s.findRollbackTarget(c, details.Run, in.To)
	if err != nil {
		return api.RunView{}, err
	}
	changes := job.CompareSpecs(details.Run.Spec, target.Spec)
	if len(changes) == 0 {
		return buildRunView(details, s.urlsFor(c)), nil
	}
	if !slices.ContainsFunc(changes, func(d job.Difference) bool { return !d.IsSecret() }) {
		return api.RunView{}, newForgottenValueError(in.RunName, target.Num, changes)
	}
	if err := s.store.PinSecrets(c.ctx, c.project.ID, &target.Spec); err != nil {
		return api.RunView{}, err
	}
	if err := s.checkMayPlace(c, target.Spec); err != nil {
		return api.RunView{}, err
	}
	run, err := s.store.ReviseRun(c.ctx, details.Run.ID, store.Revision{Revision: details.Run.Revision,
		Spec: target.Spec, User: c.user.Name, Author: authorOfRollback(c, target),
		NeedsRollout: job.NeedsRollout(details.Run.Spec, target.Spec),
		Kept:         keptGroups(details.Run.Spec, target.Spec), Restores: target.Num, Now: now()})
	if err != nil {
		return api.RunView{}, err
	}
	s.notifyChange()
	return s.viewRevision(c, run)
}

// authorOfRollback returns the author of a revision that repeats an earlier one. A global
// admin who rolls back did not write the commands, and lends them no rights; others get no
// rights from the author.
func authorOfRollback(c *apiCall, target dstack.Revision) string {
	if c.isGlobalAdmin() {
		return target.User
	}
	return c.user.Name
}

// newForgottenValueError returns the error for a rollback to a revision that
// differs only by the values of secrets: a rollback uses their present values.
func newForgottenValueError(name string, num int, changes []job.Difference) error {
	secrets := make([]string, 0, len(changes))
	for _, d := range changes {
		secrets = append(secrets, strings.TrimPrefix(d.Path, job.SecretsPrefix))
	}
	return &dstack.Error{Kind: dstack.Conflict,
		Message: fmt.Sprintf("revision %d of %s differs only by the value of the secret %s, and a rollback uses the present "+
			"values of secrets", num, name, strings.Join(secrets, ", ")),
		Hint: "set the value again, which replaces the replicas: dstack secret set " + secrets[0]}
}

// findRollbackTarget finds revision num of a run. If num is 0, it finds the
// last revision that served before the current one.
func (s *Server) findRollbackTarget(c *apiCall, run dstack.Run, num int) (dstack.Revision, error) {
	found, err := s.store.Revisions(c.ctx, run.ID)
	if err != nil {
		return dstack.Revision{}, err
	}
	hint := "list the revisions: dstack history " + run.Name
	for _, r := range found {
		switch {
		case num == 0 && r.Num < run.Revision && r.Status == dstack.RevisionReady, num == r.Num && num != run.Revision:
			return r, nil
		case num == r.Num:
			return r, &dstack.Error{Kind: dstack.Invalid, Hint: hint,
				Message: fmt.Sprintf("revision %d of %s is the current one", num, run.Name)}
		}
	}
	if num == 0 {
		return dstack.Revision{}, &dstack.Error{Kind: dstack.Conflict, Hint: hint,
			Message: run.Name + " has no earlier revision that served"}
	}
	return dstack.Revision{}, &dstack.Error{Kind: dstack.NotFound, Hint: hint,
		Message: fmt.Sprintf("%s has no revision %d", run.Name, num)}
}

// viewRevision returns the view of a run that was just revised. Its Revision is
// the number of that revision, even if another one followed meanwhile, because
// the caller waits for its own.
func (s *Server) viewRevision(c *apiCall, run dstack.Run) (api.RunView, error) {
	v, err := s.findView(c, api.RunViewRequest{RunName: run.Name, RunID: string(run.ID)})
	v.Revision = run.Revision
	return v, err
}

// describeConflict returns the message for a user who saw one revision of a run
// while another one is current; 0: no unfinished run.
func describeConflict(name string, seen, current int) string {
	switch {
	case current == 0:
		return fmt.Sprintf("%s has ended; you saw revision %d", name, seen)
	case seen == 0:
		return fmt.Sprintf("%s was started in the meantime and is at revision %d", name, current)
	default:
		return fmt.Sprintf("%s is at revision %d now; you saw revision %d", name, current, seen)
	}
}
