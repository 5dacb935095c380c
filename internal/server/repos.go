package server

import (
	"encoding/json"
	"unicode/utf8"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// repoWithCreds answers repos/get. The credentials are always null.
type repoWithCreds struct {
	api.RepoHead
	RepoCreds *struct{} `json:"repo_creds"`
}

func (s *Server) listRepos(c *apiCall, _ wire.Null) ([]api.RepoHead, error) {
	repos, err := s.store.Repos(c.ctx, c.project.ID)
	list := make([]api.RepoHead, 0, len(repos))
	for _, r := range repos {
		list = append(list, api.RepoHead{RepoID: r.ID, RepoInfo: r.Info})
	}
	return list, err
}

// findRepo finds a repo of the project. If there is none, the error has the
// code and message of 0.18.10.
func (s *Server) findRepo(c *apiCall, id string) (dstack.Repo, error) {
	repo, err := s.store.Repo(c.ctx, c.project.ID, id)
	if dstack.KindOf(err) == dstack.NotFound {
		return repo, wire.Error{Code: "repo_does_not_exist", Msg: "Repo " + id + " does not exist", Err: &dstack.Error{
			Kind: dstack.NotFound, Message: "there is no repo " + quote(id), Hint: "register it first: dstack init"}}
	}
	return repo, err
}

func (s *Server) getRepo(c *apiCall, in api.GetRepo) (repoWithCreds, error) {
	repo, err := s.findRepo(c, in.RepoID)
	return repoWithCreds{RepoHead: api.RepoHead{RepoID: repo.ID, RepoInfo: repo.Info}}, err
}

// initRepo registers a repo. It refuses credentials for a folder, because nothing would
// use them.
func (s *Server) initRepo(c *apiCall, in api.InitRepo) (wire.Null, error) {
	if in.RepoID == "" || utf8.RuneCountInString(in.RepoID) > 200 {
		return wire.Null{}, &dstack.Error{Kind: dstack.Invalid, Message: "the ID of a repo must have 1 to 200 characters",
			Hint: "let the client choose the ID"}
	}
	if err := checkRepoType(in.RepoInfo); err != nil {
		return wire.Null{}, err
	}
	if job.IsRemote(in.RepoInfo) {
		return wire.Null{}, s.initGitRepo(c, in)
	}
	if in.RepoCreds != nil {
		return wire.Null{}, &dstack.Error{Kind: dstack.Invalid, Message: "repo_creds are for git repositories",
			Hint: "a folder needs no credentials; leave them out"}
	}
	return wire.Null{}, s.store.PutRepo(c.ctx, dstack.Repo{Project: c.project.ID, ID: in.RepoID, Info: in.RepoInfo})
}

// checkRepoType accepts folders and git repositories.
func checkRepoType(info json.RawMessage) error {
	var head struct {
		Type string `json:"repo_type"`
	}
	if err := json.Unmarshal(info, &head); err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: "the repo's data is not a JSON object",
			Hint: `without a repo, send {"repo_type": "virtual"}`, Cause: err}
	}
	switch head.Type {
	case "local", "virtual", "remote":
		return nil
	default:
		return &dstack.Error{Kind: dstack.Invalid, Message: "there is no repo type " + quote(head.Type),
			Hint: "use remote, local or virtual"}
	}
}

func (s *Server) deleteRepos(c *apiCall, in api.DeleteRepos) (wire.Null, error) {
	if err := s.store.DeleteRepos(c.ctx, c.project.ID, in.ReposIDs); err != nil || s.repos == nil {
		return wire.Null{}, err
	}
	if err := s.repos.Forget(c.ctx, c.project.ID, in.ReposIDs...); err != nil {
		s.log.Warn("the fetched commits of deleted repos were not removed", "err", err)
	}
	return wire.Null{}, nil
}
