package job

import (
	"encoding/json"

	"dstack/internal/dstack"
)

// remoteRepo is the repo_type of git repositories.
const remoteRepo = "remote"

// IsRemote reports whether the information about a repo, or the repo data of a run, is of
// a git repository.
func IsRemote(data json.RawMessage) bool {
	var head struct {
		Type string `json:"repo_type"`
	}
	return json.Unmarshal(data, &head) == nil && head.Type == remoteRepo
}

// SetCommit returns the repo data of a run with another commit.
func SetCommit(data json.RawMessage, branch, hash string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"repo_branch": branch, "repo_hash": hash} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		fields[name] = text
	}
	return json.Marshal(fields)
}

// FindCheckout returns the commit that a run needs, without the user who reads it; nil if
// its code is not from a git repository.
func FindCheckout(s dstack.RunSpec) *dstack.Checkout {
	if !IsRemote(s.RepoData) {
		return nil
	}
	var data struct {
		Branch string `json:"repo_branch"`
		Hash   string `json:"repo_hash"`
		Name   string `json:"repo_config_name"`
		Email  string `json:"repo_config_email"`
	}
	if err := json.Unmarshal(s.RepoData, &data); err != nil {
		return &dstack.Checkout{Hash: "unreadable"} // no commit has it, so the plan refuses it
	}
	return &dstack.Checkout{Branch: data.Branch, Hash: data.Hash, AuthorName: data.Name, AuthorEmail: data.Email}
}
