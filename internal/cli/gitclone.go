package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/gitignore"
)

// gitClone reads a clone with the program git. Its settings run no other program: filters,
// pagers and external diffs are off.
type gitClone struct {
	dir         string
	environment []string
}

// gitTimeout limits each command.
const gitTimeout = 2 * time.Minute

// run runs git in the clone and returns its output.
func (g *gitClone) run(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "core.pager=cat"}, args...)...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = g.dir, g.environment, time.Second
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: "`repos` with a local path needs the program git", Cause: err,
			Hint: "install git, or write the URL of the repository"}
	}
	if err != nil {
		return out, fmt.Errorf("git %s in %s: %w: %s", args[0], g.dir, err, cleanLine(errOut.String()))
	}
	return out, nil
}

func (g *gitClone) line(ctx context.Context, args ...string) (string, error) {
	out, err := g.run(ctx, args...)
	return strings.TrimSpace(string(out)), err
}

// read returns the state of the clone without its untracked files.
func (g *gitClone) read(ctx context.Context) (s cloneState, err error) {
	top, err := g.line(ctx, "rev-parse", "--show-toplevel")
	if dstack.KindOf(err) == dstack.Unsupported {
		return s, err
	}
	if err != nil {
		return s, invalidInput("write the path of a clone, or upload the folder: files: [.]", "%s is not in a git repository", g.dir)
	}
	g.dir = top
	local, err := g.line(ctx, "symbolic-ref", "--quiet", "--short", "HEAD")
	if err != nil {
		return s, invalidInput("check out a branch: git switch NAME", "%s is on no branch", g.dir)
	}
	remote, err := g.line(ctx, "config", "branch."+local+".remote")
	merge, mergeErr := g.line(ctx, "config", "branch."+local+".merge")
	if err != nil || mergeErr != nil || remote == "." {
		return s, invalidInput("push it: git push --set-upstream origin "+local, "the branch %s of %s has no branch on a remote", local, g.dir)
	}
	s.branch = strings.TrimPrefix(merge, "refs/heads/")
	if s.commit, err = g.line(ctx, "rev-parse", "--verify", local+"@{upstream}^{commit}"); err != nil {
		return s, invalidInput("fetch it: git fetch "+remote, "the branch %s of %s was not fetched or pushed", s.branch, remote)
	}
	if s.url, err = g.line(ctx, "remote", "get-url", remote); err != nil {
		return s, err
	}
	s.author, _ = g.line(ctx, "config", "user.name") // not set: none
	s.email, _ = g.line(ctx, "config", "user.email")
	s.diff, err = g.run(ctx, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", s.commit, "--")
	return s, err
}

// addUntracked adds the files that git does not track and does not ignore to the diff, by
// the same rules as for an uploaded folder.
func (g *gitClone) addUntracked(ctx context.Context, s *cloneState, env gitignore.Environment) error {
	listed, err := g.run(ctx, "ls-files", "--others", "--exclude-standard", "-z")
	if err != nil {
		return err
	}
	rules, err := readUploadRules(g.dir, env)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(listed), "\x00"), "\x00") {
		if name == "" || strings.HasSuffix(name, "/") { // a repository in the clone
			continue
		}
		if s.leavesOut(rules, name) {
			continue
		}
		diff, err := g.run(ctx, "diff", "--binary", "--no-index", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", "--", "/dev/null", name)
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
			return err
		}
		if s.diff = append(s.diff, diff...); len(s.diff) > maxArchiveSize {
			return nil // readClone refuses it
		}
	}
	return nil
}

// leavesOut reports whether a file, or a folder that it is in, is left out. It records what
// the default rules leave out.
func (s *cloneState) leavesOut(rules *uploadRules, name string) bool {
	parts := strings.Split(name, "/")
	for i := range parts {
		entry := leftOutEntry{Path: path.Join(parts[:i+1]...), IsFolder: i < len(parts)-1}
		leftOut, byDefault := rules.leavesOut(entry.Path, entry.IsFolder)
		if byDefault && !slices.Contains(s.leftOut, entry) {
			s.leftOut = append(s.leftOut, entry)
		}
		if leftOut {
			return true
		}
	}
	return false
}
