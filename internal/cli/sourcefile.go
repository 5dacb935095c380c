package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const maxSourceSize = 2 << 20 // above the parser's limit, whose error is better

// defaultFileNames are the names of a configuration without --file.
var defaultFileNames = []string{".dstack.yml", ".dstack.yaml"}

// sourceFile is the text of a configuration file.
type sourceFile struct {
	name string // as the user wrote it
	text []byte
}

// readSource reads a file. The name "-" is the input, and "" the default file of
// the current folder.
func (a *app) readSource(name string) (sourceFile, error) {
	if name == "-" && a.input != nil { // it can be read only once
		return *a.input, nil
	}
	if name == "-" {
		text, err := io.ReadAll(io.LimitReader(a.in, maxSourceSize))
		if err != nil {
			return sourceFile{}, fmt.Errorf("read the input: %w", err)
		}
		a.input = &sourceFile{"(input)", text}
		return *a.input, nil
	}
	if name == "" {
		for _, candidate := range defaultFileNames {
			if _, err := os.Stat(filepath.Join(a.dir, candidate)); err == nil {
				name = candidate
				break
			}
		}
		if name == "" {
			return sourceFile{}, invalidInput(a.suggestFlag("service.dstack.yml"),
				"there is no %s in %s", defaultFileNames[0], a.dir)
		}
	}
	if a.isFolder(name) {
		return sourceFile{}, invalidInput(a.suggestFile(name, "name a file: -f service.dstack.yml"),
			"cannot read %s: it is a folder", name)
	}
	text, err := a.readFile(name)
	if err != nil {
		return sourceFile{}, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("cannot read %s: %s", name, human.DescribeFailure(err)),
			Hint:    a.suggestFile(name, "check the path")}
	}
	return sourceFile{name, text}, nil
}

// readFile reads a file, up to maxSourceSize.
func (a *app) readFile(name string) ([]byte, error) {
	f, err := os.Open(a.resolvePath(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSourceSize))
}

// resolvePath resolves a path relative to the current folder.
func (a *app) resolvePath(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(a.dir, name)
}

func (a *app) isFolder(name string) bool {
	info, err := os.Stat(a.resolvePath(name))
	return err == nil && info.IsDir()
}

// suggestFile returns a hint with configuration files that exist, or otherwise.
// It looks in the folder name or, if name is not a folder, beside it.
func (a *app) suggestFile(name, otherwise string) string {
	folder := a.resolvePath(name)
	if a.isFolder(name) {
		name = ""
	} else {
		folder = filepath.Dir(folder)
	}
	existing := a.listConfigurations(folder)
	if near := human.Nearest(name, existing); near != "" {
		return "did you mean `" + near + "`?"
	}
	if len(existing) > 0 {
		return "there is: " + strings.Join(existing[:min(5, len(existing))], ", ")
	}
	return otherwise
}

// suggestFlag returns a hint that names a configuration of the current folder as a flag, or an
// example if there is none.
func (a *app) suggestFlag(example string) string {
	existing := append(a.listConfigurations(a.dir), example)
	return "name one: -f " + strings.Join(existing[:max(1, min(5, len(existing)-1))], ", or -f ")
}

// listConfigurations returns the configurations in a folder, relative to the current one.
func (a *app) listConfigurations(folder string) (existing []string) {
	for _, pattern := range []string{"*.dstack.yml", "*.dstack.yaml"} {
		found, _ := filepath.Glob(filepath.Join(folder, pattern)) // the only error is a malformed pattern
		for _, f := range found {
			if rel, err := filepath.Rel(a.dir, f); err == nil && filepath.IsLocal(rel) {
				f = rel
			}
			existing = append(existing, f)
		}
	}
	return existing
}
