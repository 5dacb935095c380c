package arch

import (
	"io/fs"
	"os"
	pathpkg "path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// checkedDocuments are the documents whose names of files and packages must exist.
var checkedDocuments = []string{"CONTRIBUTING.md", "docs/ARCHITECTURE.md"}

// standardPackages are the packages of the standard library that the documents name with a slash.
var standardPackages = []string{"testing/synctest"}

// plannedMark marks lines about packages that do not exist yet.
const plannedMark = "◦"

var (
	codeSpan   = regexp.MustCompile("`[^`]+`")
	namedPath  = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*/?$`)
	treeFolder = regexp.MustCompile(`^[a-z0-9/]+/$`)
)

func TestDocuments_NameExistingFiles(t *testing.T) {
	root := filepath.Join("..", "..")
	paths := listPaths(t, root)
	for _, document := range checkedDocuments {
		text, err := os.ReadFile(filepath.Join(root, document))
		if err != nil {
			t.Fatal(err)
		}
		names := documentPaths(string(text))
		if len(names) == 0 {
			t.Errorf("%s: no names found", document)
		}
		for _, name := range names {
			if !slices.Contains(standardPackages, name) && !pathExists(paths, name) {
				t.Errorf("%s names %s, which does not exist", document, name)
			}
		}
	}
}

// listPaths returns the paths of all files and folders of the repository, without hidden ones.
func listPaths(t *testing.T, root string) (paths []string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(root, path)
		paths = append(paths, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// pathExists reports whether a name is a path from the repository's root, or the end of one.
func pathExists(paths []string, name string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		return path == name || strings.HasSuffix(path, "/"+name)
	})
}

// documentPaths returns the names of Go files, and the paths with a slash, in the code spans of a Markdown document,
// and the folders at the beginning of the lines of its fenced code blocks. It leaves out planned lines, patterns such
// as internal/engine/<type>, and identifiers. The words of a command are separate names.
func documentPaths(text string) (names []string) {
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case strings.Contains(line, plannedMark):
		case fenced:
			names = append(names, leadingFolders(line)...)
		default:
			for _, span := range codeSpan.FindAllString(line, -1) {
				names = append(names, spanPaths(span)...)
			}
		}
	}
	return names
}

// leadingFolders returns the folders at the beginning of a line, such as "docker/ process/   two engines".
func leadingFolders(line string) (folders []string) {
	for _, word := range strings.Fields(line) {
		if !treeFolder.MatchString(word) {
			break
		}
		folders = append(folders, pathpkg.Clean(word))
	}
	return folders
}

func spanPaths(span string) (names []string) {
	for _, word := range strings.Fields(strings.Trim(span, "`")) {
		word = strings.TrimPrefix(word, "./")
		if namedPath.MatchString(word) && (strings.Contains(word, "/") || strings.HasSuffix(word, ".go")) {
			names = append(names, pathpkg.Clean(word))
		}
	}
	return names
}

func TestDocumentPaths(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a file", "see `exit.go`", "exit.go"},
		{"a path of a file", "see `internal/cli/exit.go`.", "internal/cli/exit.go"},
		{"a package, with and without a slash at the end", "`gateway/` and `server/wire`", "gateway server/wire"},
		{"a command", "run `go test ./internal/cli -update`", "internal/cli"},
		{"text outside of code", "either/or", ""},
		{"patterns", "`engine/<x>`, `decide/*`, `internal/cli/<command>.go`", ""},
		{"an API path", "`/proxy/services/main/`", ""},
		{"identifiers", "`engine.Engine`, `human`, `now`", ""},
		{"a planned line", "◦ `tunnel/`", ""},
		{"a tree", "```\n  engine/   runs it/\n    docker/ process/  two\n◦ tunnel/\n```\n`a.go`",
			"engine docker process a.go"},
	} {
		if got := strings.Join(documentPaths(c.text), " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPathExists(t *testing.T) {
	paths := []string{"internal/gateway", "internal/gateway/serve.go"}
	for name, want := range map[string]bool{
		"internal/gateway": true, "gateway/serve.go": true, "serve.go": true,
		"rve.go": false, "internal": false, "gateway/retry.go": false,
	} {
		if got := pathExists(paths, name); got != want {
			t.Errorf("%s: exists is %v", name, got)
		}
	}
}
