package spec

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"dstack/internal/strictyaml"
)

// Repo is a git repository of which every replica gets a clone. Either LocalPath or URL is
// set.
type Repo struct {
	LocalPath string `json:"local_path,omitempty"` // a clone, relative to the folder of the configuration
	URL       string `json:"url,omitempty"`
	Branch    string `json:"branch,omitempty"` // of URL; empty: the repository's default branch
	Hash      string `json:"hash,omitempty"`   // of URL; empty: the branch's last commit when the service is applied
	Path      string `json:"path"`             // in the replica, like File.Path
	IfExists  string `json:"if_exists"`        // IfExistsError or IfExistsSkip
}

// What happens where the path of a repo exists and is not empty.
const (
	IfExistsError = "error" // the replica fails
	IfExistsSkip  = "skip"  // the replica runs with what is there
)

var reposField = field[Service]{Key: nullableKey("repos"),
	description: "The git repository of which every replica gets a clone: `url:path`, `local:path`, or without a path for " +
		"the working directory. With `repos`, the folder that you apply from is not uploaded.",
	shape:    listShape("list of one of {repos}", anyOfShape("", nonEmptyShape, mappingShape("repos"))).withMaxItems(1),
	examples: []string{"['https://github.com/org/app']", "['.:/app']"},
	read:     func(r *reader, n *strictyaml.Node, s *Service) { s.Repos = r.readRepos(n) }}

var reposMapping = newMapping("repos", "a repo",
	"A git repository to clone. Short form: `https://github.com/org/app:/app`. Either `local_path` or `url` is required.",
	[]field[Repo]{
		{Key: nullableKey("local_path"), description: "The path of a clone on your machine, relative to the folder of the " +
			"configuration. Replicas get its last pushed commit and your changes since then.",
			shape: nonEmptyShape, examples: []string{"."},
			read: func(r *reader, n *strictyaml.Node, repo *Repo) { repo.LocalPath = r.readFilePath(n) }},
		{Key: nullableKey("url"), description: "The URL of the repository.", shape: nonEmptyShape,
			examples: []string{"https://github.com/org/app"},
			read:     func(r *reader, n *strictyaml.Node, repo *Repo) { repo.URL = r.readRepoURL(n) }},
		{Key: nullableKey("branch"), description: "The branch of `url`. If not set, it is the default branch of the repository.",
			shape: nonEmptyShape, examples: []string{"main"},
			read: func(r *reader, n *strictyaml.Node, repo *Repo) { repo.Branch = r.readNonEmpty(n) }},
		{Key: nullableKey("hash"), description: "The commit of `url`. If not set, it is the last commit of the branch when you apply.",
			shape: patternShape("40 or 64 hexadecimal digits", commitExpression).orTypes("number"),
			read:  func(r *reader, n *strictyaml.Node, repo *Repo) { repo.Hash = r.readCommitHash(n) }},
		{Key: plainKey("path"), description: "The path of the clone in the replica, relative to the working directory.",
			defaultText: ".", shape: nonEmptyShape, examples: []string{"/app"},
			read: func(r *reader, n *strictyaml.Node, repo *Repo) { repo.Path = r.readTargetPath(n) }},
		{Key: plainKey("if_exists"), description: "What happens if `path` exists and is not empty: the replica fails, or it " +
			"runs with what is there, without the clone.",
			defaultText: IfExistsError, shape: oneOfShape(IfExistsError, IfExistsSkip),
			read: func(r *reader, n *strictyaml.Node, repo *Repo) {
				repo.IfExists, _ = r.ReadOneOf(n, IfExistsError, IfExistsSkip)
			}},
	})

const commitExpression = `^([0-9a-f]{40}|[0-9a-f]{64})$`

var commitPattern = newPattern(commitExpression)

// readRepos reads a list of at most one repository, in short form or as a mapping.
func (r *reader) readRepos(n *strictyaml.Node) []Repo {
	items, _ := r.ReadItems(n, "`repos`")
	if len(items) > 1 {
		r.Add(items[1], "only one repository can be cloned", "remove all but one, and clone the others in `commands`")
	}
	var repos []Repo
	for _, item := range items {
		repo := Repo{Path: ".", IfExists: IfExistsError}
		if item.IsScalar() {
			r.readShortRepo(item, &repo)
		} else if reposMapping.read(r, item, &repo) {
			r.checkRepo(item)
		}
		repos = append(repos, repo)
	}
	return repos
}

// readShortRepo reads the short form: `https://github.com/org/app:/app`, `./app:/app`, or
// either without a path.
func (r *reader) readShortRepo(n *strictyaml.Node, repo *Repo) {
	text, ok := r.ReadText(n)
	if !ok {
		return
	}
	parts, isURL := splitRepo(text)
	if len(parts) > 2 || parts[0] == "" || parts[len(parts)-1] == "" {
		r.Add(n, n.Describe()+" does not name a repository", "write https://github.com/org/app:/app, or ./app:/app for a clone on your machine")
		return
	}
	if len(parts) == 2 {
		r.checkTargetPath(n, parts[1])
		repo.Path = parts[1]
	}
	if isURL {
		r.checkRepoURL(n, parts[0])
		repo.URL = parts[0]
		return
	}
	r.checkFilePath(n, parts[0])
	repo.LocalPath = parts[0]
}

// IsRepoURL reports whether a repository is named by its URL, and not by the path of a clone.
func IsRepoURL(name string) bool {
	_, isURL := splitRepo(name)
	return isURL
}

// splitRepo splits a short form at its colons, except at those of a URL or of a drive of
// Windows.
func splitRepo(text string) (parts []string, isURL bool) {
	if scheme, rest, found := strings.Cut(text, "://"); found {
		host, _, _ := strings.Cut(rest, "/")
		parts = strings.Split(rest[len(host):], ":")
		parts[0] = scheme + "://" + host + parts[0]
		return parts, true
	}
	parts = splitPaths(text)
	if len(parts) > 1 && strings.Contains(parts[0], "@") { // git@example.com:org/app
		return append([]string{parts[0] + ":" + parts[1]}, parts[2:]...), true
	}
	return parts, false
}

// checkRepo reports a repo with neither or both of local_path and url, and settings that
// belong to the other one.
func (r *reader) checkRepo(n *strictyaml.Node) {
	local, remote := n.Get("local_path"), n.Get("url")
	switch {
	case r.IsMisspelled("local_path") || r.IsMisspelled("url"):
	case local.IsNull() && remote.IsNull():
		r.Add(n, "either `local_path` or `url` is required", "write url: https://github.com/org/app")
	case !local.IsNull() && !remote.IsNull():
		r.Add(remote, "`local_path` and `url` are mutually exclusive", "remove one of them")
	case !local.IsNull():
		for _, key := range []string{"branch", "hash"} {
			if v := n.Get(key); !v.IsNull() {
				r.Add(v, fmt.Sprintf("`%s` belongs to `url`: a clone has its own", key), "remove it, and check out what you need in the clone")
			}
		}
	}
}

func (r *reader) readRepoURL(n *strictyaml.Node) string {
	v := r.readNonEmpty(n)
	if v != "" {
		r.checkRepoURL(n, v)
	}
	return v
}

// checkRepoURL reports the URL of a repository with a password: every member of the project
// can read a configuration. The server checks the rest.
func (r *reader) checkRepoURL(n *strictyaml.Node, v string) {
	u, err := url.Parse(v)
	if err != nil || u.User == nil || u.Scheme == "ssh" {
		return
	}
	r.Add(n, "the URL of the repository contains a user name or a token", "remove it, and register the token: dstack init --token TOKEN")
}

func (r *reader) readCommitHash(n *strictyaml.Node) string {
	v := r.readNonEmpty(n)
	if v != "" && !commitPattern.MatchString(v) {
		r.Add(n, n.Describe()+" is not the hash of a commit", "write all of its digits, as `git rev-parse HEAD` prints them")
	}
	return v
}

// String returns the repo for users: what is cloned, and where.
func (r Repo) String() string {
	text := cmp.Or(r.URL, "a clone")
	if r.Branch != "" {
		text += "@" + r.Branch
	}
	if r.Hash != "" {
		text += "@" + r.Hash[:min(len(r.Hash), 12)]
	}
	if text += ":" + r.Path; r.IfExists == IfExistsSkip {
		text += " (skip if it exists)"
	}
	return text
}

// addRepos adds repos without their local paths, which do not matter to replicas.
func (l *configValues) addRepos(repos []Repo) {
	for i, repo := range repos {
		l.add(fmt.Sprintf("repos.%d", i), repo.String())
	}
}
