package server

import (
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v022"
	"dstack/internal/sshserver"
)

// getCaller returns the caller with the token of the request and the key pair that the server has for its user.
func (s *Server) getCaller(c *apiCall, _ wire.Null) (v022.Caller, error) {
	_, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	caller := v022.Caller{User: buildUser(c.user), Token: strings.TrimSpace(token)}
	if s.userKeys == nil {
		return caller, nil
	}
	pair, err := sshserver.DeriveKeyPair(s.userKeys, string(c.user.ID), c.user.TokenHash)
	if err != nil {
		return caller, err
	}
	caller.SSHPublicKey, caller.SSHPrivate = pair.Public, pair.Private
	return caller, nil
}

// completeRunSpec fills in what our client and later ones leave to the server: the key with which later clients attach,
// which is that of getCaller.
func (s *Server) completeRunSpec(c *apiCall, rs *dstack.RunSpec) error {
	if rs.SSHKeyPub == "" {
		caller, err := s.getCaller(c, wire.Null{})
		if err != nil {
			return err
		}
		rs.SSHKeyPub = caller.SSHPublicKey
	}
	return nil
}

// planNewest plans a run, or lists the machines that a configuration asks for.
func (s *Server) planNewest(c *apiCall, in v022.Plan) (wire.PlanAnswer, error) {
	if in.Offers != nil {
		return s.planOffers(c, *in.Offers)
	}
	if err := s.completeRunSpec(c, &in.RunSpec); err != nil {
		return wire.PlanAnswer{}, err
	}
	return s.getPlan(c, api.RunSpecRequest{RunSpec: in.RunSpec})
}

// applyNewest submits a run, or a new revision of the unfinished run with the same name. It fails if that is not the run
// that the user saw.
func (s *Server) applyNewest(c *apiCall, in v022.Application) (wire.RunAnswer, error) {
	if err := s.completeRunSpec(c, &in.RunSpec); err != nil {
		return wire.RunAnswer{}, err
	}
	if in.RunSpec.RepoID == v022.VirtualRepo {
		if err := s.registerVirtualRepo(c, in.RunSpec); err != nil {
			return wire.RunAnswer{}, err
		}
	}
	run, err := s.applySpec(c, in.RunSpec, func(p runPlan) error { return checkSeen(p, in) })
	if err != nil {
		return wire.RunAnswer{}, err
	}
	return s.getRun(c, api.RunName{RunName: run.Name})
}

// getRepoOrNone is getRepo with the error that later clients take for a repo that is not registered yet. It has no cause,
// whose code they would get.
func (s *Server) getRepoOrNone(c *apiCall, in api.GetRepo) (repoWithCreds, error) {
	repo, err := s.getRepo(c, in)
	if dstack.KindOf(err) == dstack.NotFound {
		err = &dstack.Error{Kind: dstack.NotFound, Message: "there is no repo " + quote(in.RepoID), Hint: "register it first: repos/init"}
	}
	return repo, err
}

// registerVirtualRepo registers the repo of a run without code. Clients do it themselves, but programs need not.
func (s *Server) registerVirtualRepo(c *apiCall, rs dstack.RunSpec) error {
	_, err := s.store.Repo(c.ctx, c.project.ID, rs.RepoID)
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	_, err = s.initRepo(c, api.InitRepo{RepoID: rs.RepoID, RepoInfo: rs.RepoData})
	return err
}

// checkSeen fails if the unfinished run with the name of a plan is not the one that the user saw. The user may have seen
// one that has ended since: the client stops a run before it replaces it.
func checkSeen(p runPlan, in v022.Application) error {
	if p.existing == nil || in.Force {
		return nil
	}
	current, seen := p.existing.Run, in.Revision
	if current.ID != in.Seen {
		seen = 0
	}
	if seen == current.Revision {
		return nil
	}
	return newSeenOtherError(p.name, seen, current.Revision)
}

// getRunByNameOrID finds a run by its name, or by its ID.
func (s *Server) getRunByNameOrID(c *apiCall, in v022.GetRun) (wire.RunAnswer, error) {
	switch {
	case (in.RunName == nil) == (in.ID == nil):
		return wire.RunAnswer{}, &dstack.Error{Kind: dstack.Invalid, Message: "a run is named by run_name or by id, and not by both",
			Hint: "send one of them"}
	case in.RunName != nil:
		return s.getRun(c, api.RunName{RunName: *in.RunName})
	}
	found, err := s.store.RunDetails(c.ctx, *in.ID)
	if err != nil {
		return wire.RunAnswer{}, err
	}
	if len(found) != 1 || found[0].Run.ProjectID != c.project.ID {
		return wire.RunAnswer{}, toRunNotFoundError(string(*in.ID), &dstack.Error{Kind: dstack.NotFound, Message: "it does not exist"})
	}
	return s.answerRun(c, found[0]), nil
}
