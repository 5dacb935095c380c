package cli

import (
	"context"
	"encoding/json"
	"path"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// repoFlags are the flags of init about a git repository.
type repoFlags struct{ repo, token, identity string }

// registerCredentials registers a repository with the credentials that read it. The server
// checks them at once.
func (a *app) registerCredentials(ctx context.Context, client *api.Client, project string, f repoFlags) (registeredFolder, error) {
	var registered registeredFolder
	if f.repo == "" {
		return registered, invalidInput("add --repo with its URL, or --repo . in a clone", "--token and --git-identity are for a git repository")
	}
	if f.token != "" && f.identity != "" {
		return registered, invalidInput("give the one that the URL needs", "--token and --git-identity exclude each other")
	}
	address, err := a.findRepoURL(ctx, f.repo)
	if err != nil {
		return registered, err
	}
	creds := map[string]string{"clone_url": address}
	if f.token != "" {
		creds["oauth_token"] = f.token
	}
	if f.identity != "" {
		key, err := a.readFile(f.identity)
		if err != nil {
			return registered, &dstack.Error{Kind: dstack.Invalid, Cause: err, Hint: "give the file of a private key",
				Message: "cannot read " + cleanLine(f.identity) + ": " + human.DescribeFailure(err)}
		}
		creds["private_key"] = string(key)
	}
	location := repoLocation(address)
	registered = registeredFolder{Path: address, Project: project, RepoID: repoIDOf(location)}
	return registered, initGitRepo(ctx, client, project, registered.RepoID, path.Base(location), creds)
}

// initGitRepo registers a repository; without credentials, the server uses those that it has
// for the user.
func initGitRepo(ctx context.Context, client *api.Client, project, id, name string, creds map[string]string) error {
	info, err := json.Marshal(map[string]string{"repo_type": "remote", "repo_name": name})
	if err != nil {
		return err
	}
	repo := api.InitRepo{RepoID: id, RepoInfo: info}
	if creds != nil {
		text, err := json.Marshal(creds)
		if err != nil {
			return err
		}
		repo.RepoCreds = new(json.RawMessage(text))
	}
	return client.InitRepo(ctx, project, repo)
}

// findRepoURL returns the URL of a repository that is named by it, or by the path of a clone.
func (a *app) findRepoURL(ctx context.Context, name string) (string, error) {
	if spec.IsRepoURL(name) {
		return name, nil
	}
	clone := &gitClone{dir: a.resolvePath(name), environment: a.gitVariables()}
	state, err := clone.read(ctx)
	return state.url, err
}
