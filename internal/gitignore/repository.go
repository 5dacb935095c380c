package gitignore

import (
	"os"
	"path/filepath"
	"strings"
)

// repository is a working tree with its repository's folders.
type repository struct {
	top       string // the working tree
	gitDir    string // of this working tree
	commonDir string // that all working trees of the repository share
}

// findRepository returns the working tree that dir lies in, or nil.
func findRepository(dir string) *repository {
	for at := dir; ; {
		if found := openRepository(at); found != nil {
			return found
		}
		up := filepath.Dir(at)
		if up == at {
			return nil
		}
		at = up
	}
}

// openRepository returns the repository whose working tree begins at dir, or nil. A .git that is not a repository, such
// as an empty folder, means nothing to git.
func openRepository(dir string) *repository {
	gitDir := filepath.Join(dir, ".git")
	info, err := os.Stat(gitDir)
	if err != nil {
		return nil
	}
	if info.Mode().IsRegular() {
		content, _ := os.ReadFile(gitDir)
		target, isLink := strings.CutPrefix(string(content), "gitdir: ")
		if !isLink {
			return nil
		}
		gitDir = resolvePath(dir, target)
	}
	commonDir := gitDir
	if content, err := os.ReadFile(filepath.Join(gitDir, "commondir")); err == nil {
		commonDir = resolvePath(gitDir, string(content))
	}
	if !isGitDir(gitDir, commonDir) {
		return nil
	}
	return &repository{top: dir, gitDir: gitDir, commonDir: commonDir}
}

// resolvePath returns the path that a file in folder names.
func resolvePath(folder, path string) string {
	path = strings.TrimRight(path, "\r\n")
	if !filepath.IsAbs(path) {
		path = filepath.Join(folder, path)
	}
	return filepath.Clean(path)
}

// isGitDir reports whether a folder has what git demands of a repository.
func isGitDir(gitDir, commonDir string) bool {
	if !isHead(filepath.Join(gitDir, "HEAD")) {
		return false
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(commonDir, name)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// isHead reports whether a file names a branch or a commit.
func isHead(path string) bool {
	if target, err := os.Readlink(path); err == nil {
		return strings.HasPrefix(target, "refs/")
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	if ref, isRef := strings.CutPrefix(string(content), "ref:"); isRef {
		return strings.HasPrefix(strings.TrimLeft(ref, " \t\r\n"), "refs/")
	}
	if len(content) < 2*sha1Size {
		return false
	}
	return strings.Trim(string(content[:2*sha1Size]), "0123456789abcdefABCDEF") == ""
}
