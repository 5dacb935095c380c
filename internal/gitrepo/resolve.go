package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dstack/internal/dstack"
)

// Resolve completes a commit from what the repository has now: without a branch, it is the
// repository's default branch; without a hash, it is the last commit of the branch.
func (c *Cache) Resolve(ctx context.Context, s Source, commit Commit) (Commit, error) {
	if commit.Branch != "" && commit.Hash != "" {
		return commit, nil
	}
	if commit.Branch != "" && !isBranchName(commit.Branch) {
		return commit, newBranchError(commit.Branch)
	}
	release, err := c.takeSlot(ctx, s, c.opts.CheckTimeout)
	if err != nil {
		return commit, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.opts.CheckTimeout)
	defer cancel()
	pattern := "HEAD"
	if commit.Branch != "" {
		pattern = branchPrefix + commit.Branch
	}
	listed, err := c.runRemote(ctx, s, gitCommand{args: []string{"ls-remote", "--quiet", "--exit-code", "--symref", "--", s.URL, pattern}})
	if failed, ok := errors.AsType[*gitError](err); ok && failed.text == "" { // nothing matches
		return commit, newMissingBranchError(s, commit.Branch, err)
	}
	if err != nil {
		return commit, explainFailure(err, s.URL)
	}
	refs := parseRefs(listed)
	if commit.Branch == "" {
		if commit.Branch, err = refs.findDefaultBranch(s); err != nil {
			return commit, err
		}
	}
	if commit.Hash == "" {
		commit.Hash = refs.hashes[pattern]
	}
	return commit, commit.Check()
}

const branchPrefix = "refs/heads/"

// remoteRefs are the refs that git ls-remote lists.
type remoteRefs struct {
	hashes map[string]string // by ref
	head   string            // the ref that HEAD stands for; empty: the host does not say
}

func parseRefs(listed string) remoteRefs {
	refs := remoteRefs{hashes: map[string]string{}}
	for line := range strings.Lines(listed) {
		value, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if target, isLink := strings.CutPrefix(value, "ref: "); isLink && name == "HEAD" {
			refs.head = target
		} else if !isLink {
			refs.hashes[name] = value
		}
	}
	return refs
}

// findDefaultBranch returns the branch that HEAD stands for.
func (r remoteRefs) findDefaultBranch(s Source) (string, error) {
	branch, ok := strings.CutPrefix(r.head, branchPrefix)
	if !ok || !isBranchName(branch) {
		return "", &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the repository %s does not say which branch is its default", s.URL),
			Hint: "name the branch in `repos`"}
	}
	return branch, nil
}

func newBranchError(name string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%.100q is not the name of a branch", name),
		Hint: "name a branch such as main"}
}

func newMissingBranchError(s Source, branch string, cause error) error {
	if branch == "" {
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the repository %s has no default branch, or no commit on it", s.URL),
			Hint: "push to it, or name the branch in `repos`", Cause: cause}
	}
	return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the repository %s has no branch %q", s.URL, branch),
		Hint: "push it, or correct `repos` in the configuration", Cause: cause}
}
