package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// ignoreFiles are read in every folder, in this order; later patterns win.
var ignoreFiles = []string{".gitignore", ".dstackignore"}

// ignoreRules knows which paths of a folder stay at home. Paths are counted from
// the top of the git checkout that the folder lies in, so that the rules
// above it hold too.
type ignoreRules struct {
	prefix   []string // from the top down to the folder
	patterns []gitignore.Pattern
}

// readIgnoreRules reads the rules that hold for dir from above it, and those of
// the checkout itself.
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

// findCheckout is the folder with .git in it that dir lies in, else dir itself.
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

// addFolder adds the rules that stand in the folder itself.
func (g *ignoreRules) addFolder(folder string, domain []string) {
	for _, name := range ignoreFiles {
		g.addFile(filepath.Join(folder, name), domain)
	}
}

// addFile adds the rules of one file; a file that is not there has none.
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

// isIgnored says that the path (below the folder) stays at home. Whoever walks
// must not enter folders that do.
func (g *ignoreRules) isIgnored(path []string, isDir bool) bool {
	full := append(append([]string(nil), g.prefix...), path...)
	return gitignore.NewMatcher(g.patterns).Match(full, isDir)
}
