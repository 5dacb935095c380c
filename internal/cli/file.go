package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const sourceLimit = 2 << 20 // the parser refuses less, in better words

// configNames is where a configuration is looked for when none is named.
var configNames = []string{".dstack.yml", ".dstack.yaml"}

// source is a configuration file as it was read.
type source struct {
	name string // as the user calls it
	text []byte
}

// readSource reads the named configuration; "-" is the input, "" the
// folder's own.
func (a *app) readSource(name string) (source, error) {
	if name == "-" {
		text, err := io.ReadAll(io.LimitReader(a.in, sourceLimit))
		if err != nil {
			return source{}, fmt.Errorf("read the input: %w", err)
		}
		return source{"(input)", text}, nil
	}
	if name == "" {
		for _, usual := range configNames {
			if _, err := os.Stat(filepath.Join(a.dir, usual)); err == nil {
				name = usual
				break
			}
		}
		if name == "" {
			return source{}, invalid(a.otherFiles("", "name one: -f service.dstack.yml"), "there is no %s in %s", configNames[0], a.dir)
		}
	}
	text, err := a.readFile(name)
	if err != nil {
		return source{}, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("cannot read %s: %s", name, reasonOf(err)),
			Hint: a.otherFiles(name, "check the path"), Cause: err}
	}
	return source{name, text}, nil
}

// readFile reads a file of the user's, and of a very large one the beginning.
func (a *app) readFile(name string) ([]byte, error) {
	f, err := os.Open(a.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, sourceLimit))
}

// reasonOf is why a file cannot be read, without its path.
func reasonOf(err error) string {
	if reason, ok := errors.AsType[*fs.PathError](err); ok {
		return reason.Err.Error()
	}
	return err.Error()
}

// path is where a name that the user gave lies.
func (a *app) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(a.dir, name)
}

// otherFiles names configurations that could have been meant.
func (a *app) otherFiles(name, orElse string) string {
	folder := a.dir
	if name != "" {
		folder = filepath.Dir(a.path(name))
	}
	var there []string
	for _, pattern := range []string{"*.dstack.yml", "*.dstack.yaml"} {
		found, _ := filepath.Glob(filepath.Join(folder, pattern)) // a wrong pattern finds none
		for _, f := range found {
			if rel, err := filepath.Rel(a.dir, f); err == nil && filepath.IsLocal(rel) {
				f = rel
			}
			there = append(there, f)
		}
	}
	if near := human.Nearest(name, there); near != "" {
		return "did you mean `" + near + "`?"
	}
	if len(there) > 0 {
		return "there is: " + strings.Join(there[:min(5, len(there))], ", ")
	}
	return orElse
}
