package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// ignoreFiles are read in every folder, in this order; later patterns win.
var ignoreFiles = []string{".gitignore", ".dstackignore"}

// ignoreRules are the patterns of the paths that are not packed. Paths are
// relative to the top of the git checkout, so that the rules of folders above
// the packed one apply too.
type ignoreRules struct {
	prefix   []string // the path from the top to the packed folder
	patterns []gitignore.Pattern
}

// readIgnoreRules reads the rules of the checkout and of the folders above dir.
func readIgnoreRules(dir string) *ignoreRules {
	top, prefix := findCheckout(dir)
	rules := &ignoreRules{prefix: prefix}
	rules.addFile(filepath.Join(top, ".git", "info", "exclude"), nil)
	for i := range prefix {
		above := filepath.Join(append([]string{top}, prefix[:i]...)...)
		rules.addFolder(above, prefix[:i])
	}
	return rules
}

// findCheckout returns the nearest folder above dir, or dir, that contains .git,
// and the path from there to dir. Without a checkout it returns dir.
func findCheckout(dir string) (top string, prefix []string) {
	for at := dir; ; {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			rel, err := filepath.Rel(at, dir)
			if err != nil || rel == "." {
				return at, nil
			}
			return at, strings.Split(rel, string(filepath.Separator))
		}
		up := filepath.Dir(at)
		if up == at {
			return dir, nil
		}
		at = up
	}
}

// addFolder adds the rules of the files in a folder.
func (g *ignoreRules) addFolder(folder string, domain []string) {
	for _, name := range ignoreFiles {
		g.addFile(filepath.Join(folder, name), domain)
	}
}

// addFile adds the rules of a file. A missing file has none.
func (g *ignoreRules) addFile(path string, domain []string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, `\#`) {
			line = line[1:]
		}
		g.patterns = append(g.patterns, gitignore.ParsePattern(line, domain))
	}
}

// isIgnored reports whether a path below the packed folder is ignored. Callers
// skip ignored folders and never ask about paths in them.
func (g *ignoreRules) isIgnored(path []string, isDir bool) bool {
	full := append(append([]string(nil), g.prefix...), path...)
	return gitignore.NewMatcher(g.patterns).Match(full, isDir)
}
