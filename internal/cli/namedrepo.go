package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// namedRepo is the git repository of the configuration's `repos`.
type namedRepo struct {
	URL     string `json:"url"`
	Branch  string `json:"branch,omitempty"` // empty: the default branch
	Hash    string `json:"hash,omitempty"`   // empty: the last commit of the branch
	Path    string `json:"path"`             // in the replica
	Changes int64  `json:"changes"`          // bytes of what was not pushed, as a diff

	id   string
	diff []byte
}

// describe returns the repo for the plan.
func (r *namedRepo) describe() string {
	text := r.URL
	if r.Branch != "" {
		text += " " + r.Branch
	}
	if r.Hash != "" {
		text += "@" + r.Hash[:min(len(r.Hash), 8)]
	}
	if r.Changes > 0 {
		text += " + " + human.Bytes(r.Changes) + " of changes"
	}
	return text + " → " + r.Path
}

// repoDataOf is the repo_data of a run from a git repository.
type repoDataOf struct {
	Type   string  `json:"repo_type"`
	Name   string  `json:"repo_name"`
	Branch *string `json:"repo_branch"`
	Hash   *string `json:"repo_hash"`
	Author string  `json:"repo_config_name,omitempty"`
	Email  string  `json:"repo_config_email,omitempty"`
}

// registerRepo finds the repository that the configuration names, if any, and registers it
// with the server, which reads it when it plans the run.
func (j *applyCommand) registerRepo(ctx context.Context) error {
	if len(j.spec.Configuration.Repos) == 0 {
		return nil
	}
	repo := j.spec.Configuration.Repos[0]
	found := &namedRepo{URL: repo.URL, Branch: repo.Branch, Hash: repo.Hash, Path: repo.Path}
	data := repoDataOf{Type: "remote"}
	if repo.LocalPath != "" {
		clone, err := j.readClone(ctx, repo)
		if err != nil {
			return err
		}
		found.URL, found.Branch, found.Hash, found.diff, found.Changes = clone.url, clone.branch, clone.commit, clone.diff, int64(len(clone.diff))
		data.Author, data.Email = clone.author, clone.email
		j.upload.LeftOut = append(j.upload.LeftOut, clone.leftOut...)
	}
	location := repoLocation(found.URL)
	data.Name, found.id = path.Base(location), repoIDOf(location)
	if found.Branch != "" {
		data.Branch = &found.Branch
	}
	if found.Hash != "" {
		data.Hash = &found.Hash
	}
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	j.spec.RepoID, j.spec.RepoData = found.id, text
	if len(found.diff) > 0 {
		sum := sha256.Sum256(found.diff)
		j.spec.RepoCodeHash = new(hex.EncodeToString(sum[:]))
	}
	j.repo, j.upload.Repo = found, found
	return j.withProgress(func() string { return "looking at " + cleanLine(found.URL) }, func() error {
		return j.registerGitRepo(ctx, found.id, data.Name, found.URL)
	})
}

// registerGitRepo registers a repository with the credentials that the server has for the
// user, and otherwise without any.
func (a *applyCommand) registerGitRepo(ctx context.Context, id, name, address string) error {
	err := initGitRepo(ctx, a.client, a.project, id, name, nil)
	if dstack.KindOf(err) != dstack.Invalid {
		return err
	}
	return initGitRepo(ctx, a.client, a.project, id, name, map[string]string{"clone_url": address})
}

// uploadChanges uploads what was not pushed to the repository, and fixes the commit that
// the plan has shown.
func (j *applyCommand) uploadChanges(ctx context.Context, preview api.Preview) error {
	if j.repo == nil {
		return j.client.InitRepo(ctx, j.project, api.InitRepo{RepoID: j.spec.RepoID, RepoInfo: j.spec.RepoData})
	}
	j.spec.RepoData = preview.Plan.RunSpec.RepoData
	if len(j.repo.diff) == 0 {
		return nil
	}
	return j.withProgress(func() string { return "uploading changes" }, func() error {
		return j.client.UploadCode(ctx, j.project, j.repo.id, api.Upload{Hash: *j.spec.RepoCodeHash, Size: j.repo.Changes, Body: bytes.NewReader(j.repo.diff)})
	})
}

// repoLocation returns the host and the path of a repository, the same for all of its URLs.
func repoLocation(address string) string {
	host, name := "", address
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		host, name = u.Hostname(), u.Path
	} else if before, after, ok := strings.Cut(address, ":"); ok { // git@example.com:org/app
		host, name = before[strings.LastIndex(before, "@")+1:], "/"+after
	}
	return strings.ToLower(host) + strings.TrimSuffix(strings.TrimRight(name, "/"), ".git")
}

// repoIDOf returns the ID of a repository, as that of a folder.
func repoIDOf(location string) string {
	return fmt.Sprintf("%.40s-%s", cleanRepoName(path.Base(location)), hashPath(location))
}

// cloneState is what a replica needs of a clone on the user's machine.
type cloneState struct {
	url, branch, commit string // the branch on the remote, and its commit as it was last seen
	author, email       string
	diff                []byte // from the commit to the files of the clone
	leftOut             []leftOutEntry
}

func (j *applyCommand) readClone(ctx context.Context, repo spec.Repo) (cloneState, error) {
	dir, err := j.findNamedFile(j.request.file.name, spec.File{LocalPath: repo.LocalPath})
	if err != nil {
		return cloneState{}, invalidInput("correct `repos`: the path is relative to the folder of the configuration", "there is no folder %s", cleanLine(repo.LocalPath))
	}
	g := &gitClone{dir: dir, environment: j.gitVariables()}
	var state cloneState
	err = j.withProgress(func() string { return "looking at " + dir }, func() (err error) {
		state, err = g.read(ctx)
		if err == nil {
			err = g.addUntracked(ctx, &state, j.gitEnvironment())
		}
		return err
	})
	if err == nil && len(state.diff) > maxArchiveSize {
		err = &dstack.Error{Kind: dstack.TooLarge, Message: fmt.Sprintf("the changes in %s have %s, the limit is %s", dir, human.Bytes(int64(len(state.diff))), human.Bytes(maxArchiveSize)),
			Hint: "commit and push them, or name large files in .gitignore"}
	}
	return state, err
}

// gitVariables returns the environment of the git program.
func (a *app) gitVariables() []string {
	path, _ := a.env("PATH")
	return []string{"PATH=" + cmp.Or(path, "/usr/local/bin:/usr/bin:/bin"), "HOME=" + a.home, "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0"}
}
