package gitignore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Folder is a folder of a working tree, or of no repository, with the rules for its entries.
type Folder struct {
	tree *tree
	path string // from the top of the tree: empty, or it ends with a slash
	// rules are those of the folder's .gitignore and of the folders above it in the tree.
	rules       *Chain
	onlyTracked bool // the folder is ignored; only the files in it that git tracks are not
}

// tree is one working tree. Repositories in it are trees of their own.
type tree struct {
	env      Environment
	notes    *notes // shared with the trees in it
	top      string
	settings settings
	base     *Chain // info/exclude and core.excludesFile
	index    *index
}

// Entry is what git says about a file or a folder.
type Entry struct {
	Ignored bool // an ignore file names it, or a folder above it
	Tracked bool // the index holds it or, for a folder, something in it
}

// IsListed reports whether git lists the file, or may list something in the folder.
func (e Entry) IsListed() bool { return !e.Ignored || e.Tracked }

// OpenFolder opens dir, an absolute path without symbolic links. It may be the top of a working tree, a folder in one, or
// in none; then the .gitignore files in it count all the same. The folder itself never counts as ignored: the rules that
// ignore it, such as `*` in the repository of a home folder, do not apply in it.
func OpenFolder(dir string, env Environment) (*Folder, error) {
	notes := &notes{}
	repo := findRepository(dir)
	if repo == nil {
		return openTree(&repository{top: dir}, env, notes)
	}
	folder, err := openTree(repo, env, notes)
	rel, _ := filepath.Rel(repo.top, dir)
	if err != nil || rel == "." {
		return folder, err
	}
	isIgnored := false
	for name := range strings.SplitSeq(filepath.ToSlash(rel), "/") {
		if folder.Find(name, true).Ignored {
			if !isIgnored {
				notes.add("git ignores %s; its files are uploaded because you apply in it", folder.path+name)
			}
			isIgnored = true
			folder.rules = folder.rules.without(folder.path + name)
		}
		if folder, err = folder.openBelow(name, false); err != nil {
			return nil, err
		}
	}
	return folder, nil
}

// openTree opens the top folder of a working tree.
func openTree(repo *repository, env Environment, notes *notes) (*Folder, error) {
	t := &tree{env: env, notes: notes, top: repo.top, index: &index{}}
	t.settings = readSettings(env, repo.gitDir, repo.commonDir, notes)
	if file := t.settings.excludesFile; file != "" {
		if !filepath.IsAbs(file) {
			file = filepath.Join(t.top, file)
		}
		if err := t.addBase(file); errors.Is(err, fs.ErrPermission) {
			notes.add("git's file of ignored files %s cannot be read; it does not apply", file)
		} else if err != nil {
			return nil, err
		}
	}
	if repo.gitDir != "" {
		if err := t.addBase(filepath.Join(repo.commonDir, "info", "exclude")); err != nil {
			return nil, err
		}
		found, err := readIndex(repo.gitDir, t.settings)
		if err != nil {
			notes.add("the files that git tracks in %s cannot be read: %s. Files that .gitignore names are left out, tracked or not",
				t.top, errorText(err))
		}
		t.index = found
	}
	return t.openFolder("", t.base, false)
}

// addBase adds the rules of a file that is not in the working tree. Git follows such a file if it is a symbolic link.
func (t *tree) addBase(path string) error {
	rules, err := readRules(path, t.settings.ignoreCase, 0)
	t.base = t.base.Add("", rules)
	return err
}

// openFolder opens a folder of the tree. Rules are those of the folders above it.
func (t *tree) openFolder(path string, rules *Chain, onlyTracked bool) (*Folder, error) {
	own, err := ReadRules(filepath.Join(t.top, filepath.FromSlash(path), ".gitignore"), t.settings.ignoreCase)
	if errors.Is(err, ErrLink) {
		t.notes.add("%s.gitignore is a symbolic link; git and dstack do not read it", path)
	} else if err != nil {
		return nil, err
	}
	return &Folder{tree: t, path: path, rules: rules.Add(path, own), onlyTracked: onlyTracked}, nil
}

// Top returns the top of the working tree, an absolute path, and the folder's path from there: empty, or it ends with a
// slash. Outside of a repository, the top is the folder that was opened first.
func (f *Folder) Top() (top, path string) { return f.tree.top, f.path }

// IgnoreCase reports whether git ignores the case of names here.
func (f *Folder) IgnoreCase() bool { return f.tree.settings.ignoreCase }

// OnlyTracked reports whether only those files in the folder are listed that git tracks.
func (f *Folder) OnlyTracked() bool { return f.onlyTracked }

// Notes returns what could not be read so far: sentences for the user.
func (f *Folder) Notes() []string { return f.tree.notes.list }

// Find returns what git says about an entry of the folder. A symbolic link is no folder, whatever it points to.
func (f *Folder) Find(name string, isFolder bool) Entry {
	path := f.path + name
	var e Entry
	if isFolder {
		e.Tracked = f.tree.index.containsBelow(path) || f.tree.index.isSubmodule(path)
	} else {
		e.Tracked = f.tree.index.contains(path)
	}
	e.Ignored = f.onlyTracked || f.rules.Match(path, isFolder) == Ignored
	return e
}

// Open opens a folder in the folder. If isIgnored, only the files in it that git tracks are not ignored. A submodule, and
// another repository whose files this one does not track, is a working tree of its own, with its own rules.
func (f *Folder) Open(name string, isIgnored bool) (*Folder, error) {
	path := f.path + name
	if f.tree.index.isSubmodule(path) || !f.tree.index.containsBelow(path) {
		if repo := openRepository(filepath.Join(f.tree.top, filepath.FromSlash(path))); repo != nil {
			return openTree(repo, f.tree.env, f.tree.notes)
		}
	}
	return f.openBelow(name, isIgnored)
}

func (f *Folder) openBelow(name string, isIgnored bool) (*Folder, error) {
	return f.tree.openFolder(f.path+name+"/", f.rules, isIgnored)
}

// maxRulesSize bounds an ignore file.
const maxRulesSize = 16 << 20

// ErrLink says that an ignore file in a working tree is a symbolic link.
var ErrLink = errors.New("an ignore file is a symbolic link")

// ReadRules reads an ignore file in a working tree. It returns nil if there is none, and ErrLink for a symbolic link,
// which git does not follow there.
func ReadRules(path string, ignoreCase bool) (*Rules, error) {
	rules, err := readRules(path, ignoreCase, syscall.O_NOFOLLOW)
	if errors.Is(err, syscall.ELOOP) {
		return nil, ErrLink
	}
	return rules, err
}

func readRules(path string, ignoreCase bool, flags int) (*Rules, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil
	}
	content, err := io.ReadAll(io.LimitReader(file, maxRulesSize+1))
	if err == nil && len(content) > maxRulesSize {
		err = errors.New("the file is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return ParseRules(content, ignoreCase), nil
}
