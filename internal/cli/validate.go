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
	Notes    spec.Problems `json:"notes"`           // right, but nothing acts on it yet
	Error    string        `json:"error,omitempty"` // it could not be read
	read     spec.Configuration
	err      error
}

func validateCommand(a *app) *cobra.Command {
	var asJSON, normal bool
	c := &cobra.Command{
		Use:   "validate [FILE|FOLDER|-]...",
		Short: "Check configurations, without a server.",
		Example: "dstack validate . -o json                    # every *.dstack.yml in this folder and below\n" +
			"dstack validate --json service.dstack.yml    # what it means, with every default",
		RunE: func(c *cobra.Command, args []string) error {
			if asJSON && normal {
				return invalid("leave one of them out", "--json and -o json do not go together")
			}
			results, err := a.validate(c.Context(), args)
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.reportJSON(results)
			case normal:
				return a.reportNormal(results)
			}
			return a.report(results)
		},
	}
	outputFlag(c, &asJSON)
	c.Flags().BoolVar(&normal, "json", false, "print the normalised configuration; several are printed one after the other")
	a.verboseFlag(c)
	return c
}

func (a *app) validate(ctx context.Context, args []string) ([]checked, error) {
	if len(args) == 0 {
		args = []string{""}
	}
	results := []checked{}
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
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			results = append(results, a.check(name))
		}
	}
	return results, nil
}

// check reads one file. What is right, but not acted on yet, is a note.
func (a *app) check(name string) checked {
	result := checked{File: name, Problems: spec.Problems{}, Notes: spec.Problems{}}
	source, err := a.readSource(name)
	if err != nil {
		result.Error, result.err = err.Error(), err
		return result
	}
	result.File = source.name
	result.read, err = spec.ParseConfiguration(source.name, source.text)
	if service, ok := result.read.(*spec.Service); ok {
		if wrong := service.NameProblems(); wrong != nil {
			err = spec.Locate(source.name, source.text, wrong)
		}
	}
	problems, known := errors.AsType[spec.Problems](err)
	switch {
	case err == nil:
		result.Notes = append(result.Notes, spec.Locate(source.name, source.text, result.read.Unsupported())...)
	case known && problems.OnlyUnsupported():
		result.Notes = problems
	case known:
		result.Problems, result.err = problems, problems
	default:
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
func (a *app) report(results []checked) error {
	var last error
	for _, r := range results {
		if r.err != nil {
			if last != nil {
				a.failure(last, a.verbose)
				a.say("")
			}
			last = r.err
			continue
		}
		a.show("%s: %s", cleanLine(r.File), verdictOf(r))
		a.notes(r.Notes)
	}
	return last
}

// verdictOf is what a file without problems is.
func verdictOf(r checked) string {
	switch {
	case r.read == nil:
		return "not checked"
	case len(r.Notes) > 0:
		return "valid, but this version cannot run it"
	}
	return "valid"
}

// notes are shown on one line each: there is nothing to mend.
func (a *app) notes(notes spec.Problems) {
	for _, n := range notes {
		a.say("%s %s %s; %s", cleanLine(n.Place()), a.err.paint(yellow, "note:"), cleanLine(n.Error()), cleanLine(n.Hint))
	}
}

// reportJSON shows everything as one list, for editors and CI.
func (a *app) reportJSON(results []checked) error {
	if err := a.showJSON(results); err != nil {
		return err
	}
	return told(results)
}

// told is the error of what was told already; it only gives the exit status.
func told(results []checked) error {
	for _, r := range results {
		if r.err != nil {
			return &quiet{r.err}
		}
	}
	return nil
}

// reportNormal shows what each file means; what is wrong goes where errors
// go.
func (a *app) reportNormal(results []checked) error {
	var last error
	for _, r := range results {
		switch {
		case r.err != nil:
			if last != nil {
				a.failure(last, a.verbose)
				a.say("")
			}
			last = r.err
		case r.read == nil:
			a.say("%s: %s", cleanLine(r.File), verdictOf(r))
			a.notes(r.Notes)
		default:
			if err := a.showJSON(r.read); err != nil {
				return err
			}
		}
	}
	return last
}

// quiet is an error that was told already; it only gives the exit status.
type quiet struct{ err error }

func (q *quiet) Error() string { return q.err.Error() }
func (q *quiet) Unwrap() error { return q.err }
