package server

import (
	"encoding/json"
	"errors"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
)

// repoCreds is the repo_creds of repos/init: how a git repository is read. No answer ever
// contains it.
type repoCreds struct {
	CloneURL   string  `json:"clone_url"`
	PrivateKey *string `json:"private_key"`
	OAuthToken *string `json:"oauth_token"`
}

// initGitRepo registers a git repository for the caller, if the server can read it with
// the caller's credentials.
func (s *Server) initGitRepo(c *apiCall, in api.InitRepo) error {
	if s.repos == nil {
		return newNoGitError()
	}
	access, err := s.readRepoAccess(c, in)
	if err != nil {
		return err
	}
	source, err := newGitSource(access).Normalize()
	if err != nil {
		return err
	}
	if err := s.repos.CheckReachable(c.ctx, source); err != nil {
		return toRepoError(err)
	}
	access.URL, access.Token, access.PrivateKey = source.URL, source.Token, source.PrivateKey
	return s.store.PutRepoWithAccess(c.ctx, dstack.Repo{Project: c.project.ID, ID: in.RepoID, Info: in.RepoInfo}, access)
}

// readRepoAccess returns the access in a request, or without one the caller's present
// access.
func (s *Server) readRepoAccess(c *apiCall, in api.InitRepo) (dstack.RepoAccess, error) {
	missing := &dstack.Error{Kind: dstack.Invalid, Message: "repo_creds does not say where the git repository is",
		Hint: `send {"protocol": "https", "clone_url": "https://HOST/PATH"}, as dstack init does in a clone`}
	if in.RepoCreds == nil {
		access, err := s.store.RepoAccess(c.ctx, c.project.ID, in.RepoID, c.user.ID)
		if dstack.KindOf(err) == dstack.NotFound {
			return access, missing
		}
		return access, err
	}
	var creds repoCreds
	if err := json.Unmarshal(*in.RepoCreds, &creds); err != nil || creds.CloneURL == "" {
		return dstack.RepoAccess{}, missing
	}
	return dstack.RepoAccess{Project: c.project.ID, Repo: in.RepoID, User: c.user.ID, IsGlobalAdmin: c.user.GlobalRole == dstack.RoleAdmin,
		URL: creds.CloneURL, Token: orEmpty(creds.OAuthToken), PrivateKey: orEmpty(creds.PrivateKey)}, nil
}

// newGitSource returns the source of an access. Only global admins may use repositories on
// the server's own machine: programs there may trust everybody who can reach them.
func newGitSource(a dstack.RepoAccess) gitrepo.Source {
	return gitrepo.Source{Project: a.Project, Repo: a.Repo, User: a.User, URL: a.URL, Token: a.Token, PrivateKey: a.PrivateKey,
		MayUseLoopback: a.IsGlobalAdmin}
}

// NewGitCheckout returns the source and the checkout of an attempt whose code is from a
// git repository, without the changes to it.
func NewGitCheckout(a dstack.RepoAccess, checkout dstack.Checkout) (gitrepo.Source, gitrepo.Checkout) {
	return newGitSource(a), gitrepo.Checkout{Commit: gitrepo.Commit{Hash: checkout.Hash, Branch: checkout.Branch},
		AuthorName: checkout.AuthorName, AuthorEmail: checkout.AuthorEmail}
}

// findCheckout returns the commit that a run needs for its commands; nil: none.
func findCheckout(rs dstack.RunSpec) *dstack.Checkout {
	if !job.NeedsCode(rs) {
		return nil // without commands, no code is copied into the image
	}
	return job.FindCheckout(rs)
}

// fetchCheckout fetches the commit that a run needs, and makes the caller the user whose
// access reads it. A commit that cannot be fetched is an error before the run is
// submitted; replicas start without the network.
func (s *Server) fetchCheckout(c *apiCall, rs *dstack.RunSpec) error {
	checkout := findCheckout(*rs)
	if checkout == nil {
		return nil
	}
	if s.repos == nil {
		return newNoGitError()
	}
	access, err := s.findRepoAccess(c, rs.RepoID)
	if err != nil {
		return err
	}
	source, wanted := NewGitCheckout(access, *checkout)
	if err := wanted.CheckAuthor(); err != nil {
		return err
	}
	named := wanted.Commit
	if wanted.Commit, err = s.repos.Resolve(c.ctx, source, named); err != nil {
		return toRepoError(err)
	}
	if wanted.Commit != named {
		if rs.RepoData, err = job.SetCommit(rs.RepoData, wanted.Branch, wanted.Hash); err != nil {
			return err
		}
	}
	if err := s.repos.Fetch(c.ctx, source, wanted.Commit); err != nil {
		return toRepoError(err)
	}
	rs.RepoUser = c.user.ID
	return nil
}

func (s *Server) findRepoAccess(c *apiCall, repo string) (dstack.RepoAccess, error) {
	if _, err := s.findRepo(c, repo); err != nil {
		return dstack.RepoAccess{}, err
	}
	access, err := s.store.RepoAccess(c.ctx, c.project.ID, repo, c.user.ID)
	if dstack.KindOf(err) == dstack.NotFound { // not, for example, a database that cannot be reached
		err = toRepoError(err)
	}
	return access, err
}

// checkChanges checks that the uploaded changes of a plan can be applied to its commit.
func (s *Server) checkChanges(c *apiCall, p runPlan, hash string) error {
	checkout := findCheckout(p.spec)
	if checkout == nil {
		return nil
	}
	access, err := s.findRepoAccess(c, p.spec.RepoID)
	if err != nil {
		return err
	}
	diff, err := s.store.Code(c.ctx, c.project.ID, p.spec.RepoID, hash)
	if err != nil {
		return err
	}
	defer diff.Close()
	source, changed := NewGitCheckout(access, *checkout)
	changed.Diff = diff
	return toRepoError(s.repos.CheckDiff(c.ctx, source, changed))
}

// toRepoError gives an error about a repository the kind Invalid: to its reader, it is a
// mistake in what they ask for, unless it is a state of the server.
func toRepoError(err error) error {
	failed, ok := errors.AsType[*dstack.Error](err)
	if !ok || errors.Is(err, gitrepo.ErrServer) || failed.Kind == dstack.Internal || failed.Kind == dstack.Unsupported {
		return err
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: failed.Message, Hint: failed.Hint, Cause: err}
}

func newNoGitError() error {
	return &dstack.Error{Kind: dstack.Unsupported, Message: "this server reads no git repositories",
		Hint: "upload the folder itself: dstack init --local"}
}
