package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// checked is what came of one file.
type checked struct {
	File     string        `json:"file"`
	Valid    bool          `json:"valid"`
	Problems spec.Problems `json:"problems"`
	Error    string        `json:"error,omitempty"` // it could not be read
	err      error
}

func validateCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "validate [FILE|FOLDER|-]...",
		Short: "Check configurations, without a server.",
		Example: "dstack validate service.dstack.yml\n" +
			"dstack validate . -o json     # every *.dstack.yml in this folder and below",
		RunE: func(c *cobra.Command, args []string) error {
			results, err := a.validate(c.Context(), args)
			if err != nil {
				return err
			}
			return a.report(results, asJSON)
		},
	}
	outputFlag(c, &asJSON)
	a.verboseFlag(c)
	return c
}

func (a *app) validate(ctx context.Context, args []string) ([]checked, error) {
	if len(args) == 0 {
		args = []string{""}
	}
	var results []checked
	for _, arg := range args {
		names := []string{arg}
		if info, err := os.Stat(a.path(arg)); arg != "" && arg != "-" && err == nil && info.IsDir() {
			if names, err = a.configurations(ctx, arg); err != nil {
				return nil, err
			}
			if len(names) == 0 {
				return nil, invalid("name the file itself", "there is no *.dstack.yml in %s", arg)
			}
		}
		for _, name := range names {
			results = append(results, a.check(name))
		}
	}
	return results, nil
}

func (a *app) check(name string) checked {
	source, err := a.readSource(name)
	if err != nil {
		return checked{File: name, Problems: spec.Problems{}, Error: err.Error(), err: err}
	}
	result := checked{File: source.name, Problems: spec.Problems{}}
	service, err := spec.Parse(source.name, source.text)
	if err == nil {
		if found := spec.Unsupported(service, spec.Profile{}); len(found) > 0 {
			err = spec.Locate(source.name, source.text, found)
		}
	}
	if problems, ok := errors.AsType[spec.Problems](err); ok {
		result.Problems, result.err = problems, problems
	} else if err != nil {
		result.Error, result.err = err.Error(), err
	}
	result.Valid = result.err == nil
	return result
}

// configurations are the configuration files in a folder and below. Hidden
// folders are left out.
func (a *app) configurations(ctx context.Context, folder string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(a.path(folder), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != a.path(folder):
			return fs.SkipDir
		case !entry.IsDir() && (strings.HasSuffix(entry.Name(), ".dstack.yml") || strings.HasSuffix(entry.Name(), ".dstack.yaml")):
			if rel, err := filepath.Rel(a.dir, path); err == nil && !filepath.IsAbs(folder) {
				path = rel
			}
			names = append(names, path)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "cannot look into " + folder + ": " + err.Error(), Cause: err}
	}
	return names, err
}

// report shows what was found. One file's trouble does not hide another's.
func (a *app) report(results []checked, asJSON bool) error {
	if asJSON {
		if err := a.showJSON(results); err != nil {
			return err
		}
	}
	bad := 0
	var last error
	for _, r := range results {
		switch {
		case r.err != nil:
			if bad++; !asJSON {
				if last != nil {
					a.failure(last, a.verbose)
					a.say("")
				}
			}
			last = r.err
		case !asJSON:
			a.show("%s: valid", cleanLine(r.File))
		}
	}
	if bad > 0 && asJSON {
		return &quiet{last}
	}
	return last
}

// quiet is an error that was told already; it only gives the exit status.
type quiet struct{ err error }

func (q *quiet) Error() string { return q.err.Error() }
func (q *quiet) Unwrap() error { return q.err }
