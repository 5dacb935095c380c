package gitignore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// maxIncludes is how deep configuration files may include each other. The bound ends circles; git's is the same.
const maxIncludes = 10

// Environment is what git's settings depend on beside the files of a repository.
type Environment struct {
	Home   string              // the user's home folder; empty if unknown
	Getenv func(string) string // nil means that no variable is set
}

func (e Environment) get(name string) string {
	if e.Getenv == nil {
		return ""
	}
	return e.Getenv(name)
}

// settings are the settings of git that decide which files are ignored.
type settings struct {
	excludesFile   string // absolute, or relative to the top; empty for none
	ignoreCase     bool
	worktreeConfig bool
	hashSize       int // of the repository's object names, in bytes
}

// settingsReader reads configuration files in git's order: the later one wins.
type settingsReader struct {
	env       Environment
	gitDir    string // empty outside of a repository
	commonDir string
	notes     *notes
	result    settings
}

// readSettings reads the configuration of the system, of the user, and of the repository, if there is one.
func readSettings(env Environment, gitDir, commonDir string, notes *notes) settings {
	r := settingsReader{env: env, gitDir: gitDir, commonDir: commonDir, notes: notes}
	r.result.hashSize = sha1Size
	r.result.ignoreCase = gitDir == "" && runtime.GOOS == "darwin"
	if folder := r.userConfigFolder(); folder != "" {
		r.result.excludesFile = filepath.Join(folder, "ignore")
	}
	for _, file := range r.globalFiles() {
		r.readFile(file, 0)
	}
	if gitDir != "" {
		r.readFile(filepath.Join(commonDir, "config"), 0)
		if r.result.worktreeConfig {
			r.readFile(filepath.Join(gitDir, "config.worktree"), 0)
		}
	}
	return r.result
}

// userConfigFolder returns git's folder in the user's configuration, or "".
func (r *settingsReader) userConfigFolder() string {
	if folder := r.env.get("XDG_CONFIG_HOME"); folder != "" {
		return filepath.Join(folder, "git")
	}
	if r.env.Home == "" {
		return ""
	}
	return filepath.Join(r.env.Home, ".config", "git")
}

// globalFiles returns the files of the system and of the user. Git is built with the place of the system's file; these
// are the common ones.
func (r *settingsReader) globalFiles() []string {
	var files []string
	if no := (setting{value: r.env.get("GIT_CONFIG_NOSYSTEM"), hasValue: true}); !no.isTrue() {
		files = []string{"/etc/gitconfig"}
		if runtime.GOOS == "darwin" {
			files = append([]string{"/Library/Developer/CommandLineTools/usr/share/git-core/gitconfig",
				"/usr/local/etc/gitconfig", "/opt/homebrew/etc/gitconfig"}, files...)
		}
		if file := r.env.get("GIT_CONFIG_SYSTEM"); file != "" {
			files = []string{file}
		}
	}
	if file := r.env.get("GIT_CONFIG_GLOBAL"); file != "" {
		return append(files, file)
	}
	if folder := r.userConfigFolder(); folder != "" {
		files = append(files, filepath.Join(folder, "config"))
	}
	if r.env.Home != "" {
		files = append(files, filepath.Join(r.env.Home, ".gitconfig"))
	}
	return files
}

// readFile reads a configuration file and those that it includes. A missing file has no settings.
func (r *settingsReader) readFile(path string, depth int) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	found, parseErr := parseConfig(content)
	if err = errors.Join(err, parseErr); err != nil {
		r.notes.add("git's configuration %s cannot be read: %s", path, errorText(err))
	}
	for _, s := range found {
		switch section, name, _ := cutLast(s.key); {
		case s.key == "core.excludesfile" && s.hasValue:
			r.result.excludesFile = r.expand(s.value)
		case s.key == "core.ignorecase":
			r.result.ignoreCase = s.isTrue()
		case s.key == "extensions.worktreeconfig":
			r.result.worktreeConfig = s.isTrue()
		case s.key == "extensions.objectformat" && s.value == "sha256":
			r.result.hashSize = sha256Size
		case name == "path" && s.value != "" && (section == "include" || strings.HasPrefix(section, "includeif.")):
			r.include(path, strings.TrimPrefix(section, "includeif."), s.value, depth)
		}
	}
}

// cutLast splits a key at its last dot. Names of settings have no dots, subsections may.
func cutLast(key string) (section, name string, found bool) {
	at := strings.LastIndexByte(key, '.')
	return key[:max(at, 0)], key[at+1:], at >= 0
}

// include reads another configuration file, if its condition holds.
func (r *settingsReader) include(from, condition, path string, depth int) {
	path = r.expand(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(from), path)
	}
	if depth >= maxIncludes {
		r.notes.add("git's configuration %s is not read: its files include each other too often", path)
		return
	}
	holds, isKnown := condition == "include", true
	if !holds {
		holds, isKnown = r.isConditionTrue(from, condition)
	}
	switch {
	case holds:
		r.readFile(path, depth+1)
	case !isKnown && setsExcludesFile(path):
		r.notes.add("core.excludesFile in %s is not used: dstack does not know the condition %q", path, condition)
	}
}

// isConditionTrue evaluates the condition of an includeIf section.
func (r *settingsReader) isConditionTrue(from, condition string) (holds, isKnown bool) {
	kind, pattern, _ := strings.Cut(condition, ":")
	switch kind {
	case "gitdir", "gitdir/i":
		return r.gitDir != "" && r.isGitDir(from, pattern, kind == "gitdir/i"), true
	case "onbranch":
		head, _ := os.ReadFile(filepath.Join(r.gitDir, "HEAD"))
		branch, isBranch := strings.CutPrefix(strings.TrimSpace(string(head)), "ref: refs/heads/")
		if strings.HasSuffix(pattern, "/") {
			pattern += "**"
		}
		g := compileGlob(pattern, false)
		return r.gitDir != "" && isBranch && g.matches(branch), true
	}
	return false, false
}

// isGitDir compares the repository's folder with the pattern of a condition.
func (r *settingsReader) isGitDir(from, pattern string, ignoreCase bool) bool {
	pattern = r.expand(pattern)
	if rest, isRelative := strings.CutPrefix(pattern, "./"); isRelative {
		folder := filepath.Dir(from)
		if real, err := filepath.EvalSymlinks(folder); err == nil {
			folder = real
		}
		pattern = escapeGlob(folder) + "/" + rest
	} else if !filepath.IsAbs(pattern) {
		pattern = "**/" + pattern
	}
	if strings.HasSuffix(pattern, "/") {
		pattern += "**"
	}
	g := compileGlob(pattern, ignoreCase)
	names := []string{r.gitDir}
	if real, err := filepath.EvalSymlinks(r.gitDir); err == nil {
		names = append(names, real)
	}
	return slices.ContainsFunc(names, func(name string) bool {
		if ignoreCase {
			name = lowerASCII(name)
		}
		return g.matches(name)
	})
}

func escapeGlob(text string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(text)
}

func setsExcludesFile(path string) bool {
	content, _ := os.ReadFile(path)
	found, _ := parseConfig(content)
	return slices.ContainsFunc(found, func(s setting) bool { return s.key == "core.excludesfile" })
}

// expand replaces `~/` by the user's home folder.
func (r *settingsReader) expand(path string) string {
	switch {
	case path == "~":
		return r.env.Home
	case strings.HasPrefix(path, "~/") && r.env.Home != "":
		return filepath.Join(r.env.Home, path[2:]) + trailingSlash(path)
	case strings.HasPrefix(path, "~"), strings.HasPrefix(path, "%(prefix)/"):
		r.notes.add("the path %s in git's configuration is not used: only ~/ is understood", path)
	}
	return path
}

func trailingSlash(path string) string {
	if strings.HasSuffix(path, "/") {
		return "/"
	}
	return ""
}

// notes are sentences for the user about what cannot be read.
type notes struct{ list []string }

func (n *notes) add(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(n.list, text) {
		n.list = append(n.list, text)
	}
}

// errorText returns the words for an error of the file system, without the path.
func errorText(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}
