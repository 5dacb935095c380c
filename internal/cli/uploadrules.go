package cli

import (
	"errors"
	"fmt"
	"io/fs"
	pathpkg "path"
	"path/filepath"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/gitignore"
	"dstack/internal/human"
)

// defaultLeftOut names what is left out, tracked by git or not, unless a rule in
// .dstackignore takes it back: files with secrets, and folders that are made anew
// on each machine.
const defaultLeftOut = `
.env
.env.*
!.env.example
!.env.sample
!.env.template
!.env.*.example
!.env.*.sample
!.env.*.template
.ssh
.aws
.netrc
*.pem
id_rsa*
id_ed25519*
id_ecdsa*
.dstack/
.venv
node_modules
__pycache__
`

// leftOutEntry is a file or a folder that is left out by default.
type leftOutEntry struct {
	Path      string `json:"path"` // from the uploaded folder
	IsFolder  bool   `json:"folder"`
	IsTracked bool   `json:"tracked"` // git tracks it, or something in it

	folder string // that `files` names, with which Path begins; empty: Path is from the current folder
}

// findPathInFolder returns the path from the folder that `files` names, or from the current folder.
func (e leftOutEntry) findPathInFolder() string {
	if e.folder == "" {
		return e.Path
	}
	return strings.TrimPrefix(e.Path, pathpkg.Clean(e.folder)+"/")
}

// uploadRules decide which entries of a folder are uploaded: the rules of
// .dstackignore first, then the default ones, then those of git. A rule of .dstackignore
// that takes back all names, such as `!*/`, does not take back what the default rules leave
// out: whoever writes a list of what to upload does not think of .aws.
type uploadRules struct {
	git      *gitignore.Folder
	own      *gitignore.Chain // the rules of .dstackignore, here and above
	named    *gitignore.Chain // own without the rules that take back all names
	path     string           // from the top of the checkout: empty, or it ends with a slash
	dir      string           // the folder's absolute path
	defaults *gitignore.Rules
	// onlyTracked says that git ignores the folder; only what it tracks is uploaded.
	onlyTracked bool
}

// uploadVerdict is the decision about one entry.
type uploadVerdict struct {
	isUploaded  bool
	onlyTracked bool // of a folder: upload only what git tracks in it
	byDefault   bool // it is left out by the default rules
	isTracked   bool
}

// readUploadRules reads the rules for dir, an absolute path without links: those of
// the folder and of the folders above it, up to the top of the checkout.
func readUploadRules(dir string, env gitignore.Environment) (*uploadRules, error) {
	git, err := gitignore.OpenFolder(dir, env)
	if err != nil {
		return nil, ignoreFileError(err)
	}
	top, path := git.Top()
	r := &uploadRules{git: git, path: path, dir: dir,
		defaults: gitignore.ParseRules([]byte(defaultLeftOut), git.IgnoreCase())}
	for end := range len(path) + 1 { // each folder from the top to dir
		if end > 0 && path[end-1] != '/' {
			continue
		}
		if err := r.addOwn(filepath.Join(top, path[:end]), path[:end]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// addOwn adds the rules of the .dstackignore in a folder.
func (r *uploadRules) addOwn(dir, path string) error {
	file := filepath.Join(dir, ".dstackignore")
	rules, err := gitignore.ReadRules(file, r.git.IgnoreCase())
	if errors.Is(err, gitignore.ErrLink) {
		return &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "cannot read " + file + ": it is a symbolic link",
			Hint: "put the rules into the file itself"}
	}
	if err != nil {
		return ignoreFileError(err)
	}
	r.own, r.named = r.own.Add(path, rules), r.named.Add(path, rules.Named())
	return nil
}

// ignoreFileError returns the error of an ignore file that cannot be read. Without
// its rules, secrets might be uploaded.
func ignoreFileError(err error) error {
	var pathErr *fs.PathError
	message := "cannot read the files that say what is not uploaded"
	if errors.As(err, &pathErr) {
		message = fmt.Sprintf("cannot read %s: %s", pathErr.Path, human.DescribeFailure(err))
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: message, Cause: err,
		Hint: "make the file readable: it says what must not be uploaded"}
}

// openFolder returns the rules for a folder in the folder.
func (r *uploadRules) openFolder(name string, onlyTracked bool) (*uploadRules, error) {
	git, err := r.git.Open(name, onlyTracked)
	if err != nil {
		return nil, ignoreFileError(err)
	}
	child := *r
	child.git, child.path, child.dir = git, r.path+name+"/", filepath.Join(r.dir, name)
	child.onlyTracked = git.OnlyTracked()
	return &child, child.addOwn(child.dir, child.path)
}

// decide decides about an entry of the folder.
func (r *uploadRules) decide(name string, isFolder bool) uploadVerdict {
	entry := r.git.Find(name, isFolder)
	verdict := uploadVerdict{isTracked: entry.Tracked, onlyTracked: r.onlyTracked}
	own := r.own.Match(r.path+name, isFolder)
	if own == gitignore.Ignored {
		return verdict
	}
	isLeftOut := r.defaults.Match(name, isFolder) == gitignore.Ignored
	if isLeftOut && r.named.Match(r.path+name, isFolder) != gitignore.Included {
		verdict.byDefault = !r.onlyTracked || entry.Tracked
		return verdict
	}
	if own == gitignore.Included {
		verdict.isUploaded = !r.onlyTracked || entry.Tracked
		return verdict
	}
	verdict.isUploaded, verdict.onlyTracked = entry.IsListed(), entry.Ignored
	return verdict
}

// escapeRule returns the rule that takes back exactly the entry at path.
func escapeRule(path string) string {
	return "!" + strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, " ", `\ `).Replace(path)
}

// leavesOut decides about an entry that git lists, by its path from the folder of the rules
// and by the .dstackignore there and above.
func (r *uploadRules) leavesOut(path string, isFolder bool) (leftOut, byDefault bool) {
	if r.own.Match(r.path+path, isFolder) == gitignore.Ignored {
		return true, false
	}
	byDefault = r.defaults.Match(pathpkg.Base(path), isFolder) == gitignore.Ignored && r.named.Match(r.path+path, isFolder) != gitignore.Included
	return byDefault, byDefault
}
