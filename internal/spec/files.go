package spec

import (
	"fmt"
	"path"
	"strings"

	"dstack/internal/strictyaml"
)

// File is a file or folder of the user's machine that every replica gets. A service that
// names files gets nothing else of the folder that it is applied from.
type File struct {
	LocalPath string `json:"local_path"` // relative to the folder of the configuration, absolute, or below ~
	Path      string `json:"path"`       // in the replica: relative to the working directory, absolute, or below ~
}

const (
	maxFiles     = 100
	maxPathBytes = 4096
)

var filesField = field[Service]{Key: nullableKey("files"),
	description: "Files and folders of your machine that every replica gets: `local:path`, or one path for both. The local " +
		"path is relative to the folder of the configuration, the other one to the working directory. With `files`, nothing " +
		"else of the folder is uploaded.",
	shape: listShape("list of {files}", anyOfShape("", patternShape("", "^[^:]").orTypes("number", "boolean"),
		mappingShape("files"))).withMaxItems(maxFiles),
	examples: []string{"[app.py, './conf:/etc/app']"},
	read:     func(r *reader, n *strictyaml.Node, s *Service) { s.Files = r.readFiles(n) }}

var filesMapping = newMapping("files", "a file",
	"A file or folder to copy into the replica. Short form: `config.yml:/etc/config.yml`.", []field[File]{
		{Key: requiredKey("local_path", "local_path: config.yml"),
			description: "The path on your machine, relative to the folder of the configuration.", shape: nonEmptyShape,
			examples: []string{"config.yml"},
			read:     func(r *reader, n *strictyaml.Node, f *File) { f.LocalPath = r.readFilePath(n) }},
		{Key: requiredKey("path", "path: /etc/config.yml"),
			description: "The path in the replica, relative to the working directory. What is there before is replaced.",
			shape:       nonEmptyShape, examples: []string{"/etc/config.yml"},
			read: func(r *reader, n *strictyaml.Node, f *File) { f.Path = r.readTargetPath(n) }},
	})

// UploadsNamedFiles reports whether only what `files` and `repos` name is uploaded, as in
// versions after 0.18.10, and not the folder that the service is applied from.
func (s *Service) UploadsNamedFiles() bool { return len(s.Files) > 0 || len(s.Repos) > 0 }

// readFiles reads a list of files, in short form or as mappings.
func (r *reader) readFiles(n *strictyaml.Node) []File {
	items, _ := r.ReadItems(n, "`files`")
	if len(items) > maxFiles {
		r.Add(n, fmt.Sprintf("%d files are listed, and %d are the maximum", len(items), maxFiles), "list a folder instead of its files")
		return nil
	}
	var files []File
	seen := map[string]bool{}
	for _, item := range items {
		var f File
		if item.IsScalar() {
			f = r.readShortFile(item)
		} else {
			filesMapping.read(r, item, &f)
		}
		if f.Path != "" && seen[path.Clean(f.Path)] {
			r.Add(item, fmt.Sprintf("two files have the path `%.60s` in the replica", f.Path), "remove one of them, or change its path")
		}
		seen[path.Clean(f.Path)] = true
		files = append(files, f)
	}
	return files
}

// readShortFile reads the short form: `config.yml:/etc/config.yml` or `config.yml`.
func (r *reader) readShortFile(n *strictyaml.Node) (f File) {
	text, ok := r.ReadText(n)
	if !ok {
		return f
	}
	parts := splitPaths(text)
	if len(parts) > 2 {
		r.Add(n, n.Describe()+" has more than two paths", "write config.yml:/etc/config.yml")
		return f
	}
	f.LocalPath, f.Path = parts[0], parts[len(parts)-1]
	if f.LocalPath == "" || f.Path == "" {
		r.Add(n, n.Describe()+" does not name a file", "write config.yml:/etc/config.yml")
		return File{}
	}
	r.checkFilePath(n, f.LocalPath)
	r.checkTargetPath(n, f.Path)
	return f
}

// splitPaths splits a short form at its colons, except at the one of a drive of Windows.
func splitPaths(text string) []string {
	if !isWindowsPath(text) {
		return strings.Split(text, ":")
	}
	parts := strings.Split(text[2:], ":")
	parts[0] = text[:2] + parts[0]
	return parts
}

// isWindowsPath reports whether a path begins with a drive of Windows: C:\ or c:/.
func isWindowsPath(text string) bool {
	if len(text) < 3 || text[1] != ':' || text[2] != '\\' && text[2] != '/' {
		return false
	}
	letter := text[0] | 0x20
	return letter >= 'a' && letter <= 'z'
}

// readFilePath reads a path of a machine.
func (r *reader) readFilePath(n *strictyaml.Node) string {
	v := r.readNonEmpty(n)
	if v != "" {
		r.checkFilePath(n, v)
	}
	return v
}

func (r *reader) checkFilePath(n *strictyaml.Node, v string) bool {
	if len(v) > maxPathBytes || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.Add(n, fmt.Sprintf("the path is longer than %d bytes or has control characters", maxPathBytes), "write a path of a file or folder")
		return false
	}
	return true
}

// readTargetPath reads a path in a replica.
func (r *reader) readTargetPath(n *strictyaml.Node) string {
	v := r.readNonEmpty(n)
	if v != "" {
		r.checkTargetPath(n, v)
	}
	return v
}

// checkTargetPath reports a path to which nothing can be copied in a replica.
func (r *reader) checkTargetPath(n *strictyaml.Node, v string) {
	switch {
	case !r.checkFilePath(n, v):
	case isWindowsPath(v):
		r.Add(n, fmt.Sprintf("`%.60s` is not a path in a container", v), `write C:\data:/data for a folder of Windows, or ./c:/data for one whose name is a letter`)
	case strings.HasPrefix(v, "~") && v != "~" && v[1] != '/':
		r.Add(n, fmt.Sprintf("`%.60s` is in the home directory of another user", v), "write an absolute path, or ~/ and the rest")
	case path.Clean(v) == "/":
		r.Add(n, "the path in the replica is its root folder", "write a path below it, such as /data")
	}
}
