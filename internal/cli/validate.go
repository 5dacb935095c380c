package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// fileResult is the result for one file.
type fileResult struct {
	File     string        `json:"file"`
	Valid    bool          `json:"valid"`
	Problems spec.Problems `json:"problems"`
	Notes    spec.Problems `json:"notes"` // valid, but not supported yet, or probably meant otherwise
	spec.DialectReport
	Error    string `json:"error,omitempty"` // the file could not be read
	read     spec.Configuration
	profiles *profileList // of a profiles file, instead of read
	err      error
}

func newValidateCommand(a *app) *cobra.Command {
	var asJSON, normal bool
	c := &cobra.Command{
		Use:   "validate [FILE|FOLDER|-]...",
		Short: "Check configurations without a server.",
		Example: "dstack validate . -o json                    # every *.dstack.yml here and below, and .dstack/profiles.yml\n" +
			"dstack validate --json service.dstack.yml    # normalised, with every default",
		RunE: func(c *cobra.Command, args []string) error {
			if asJSON && normal {
				return invalidInput("leave one of them out", "--json and -o json do not go together")
			}
			results, err := a.validateFiles(c.Context(), args)
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printValidationJSON(results)
			case normal:
				return a.printNormalised(results)
			}
			return a.printValidation(results)
		},
	}
	addOutputFlag(c, &asJSON)
	c.Flags().BoolVar(&normal, "json", false, "print the normalised configurations")
	a.addVerboseFlag(c)
	return c
}

// validateFiles checks files, and all configurations in folders.
func (a *app) validateFiles(ctx context.Context, args []string) ([]fileResult, error) {
	if len(args) == 0 {
		args = []string{""}
	}
	results := []fileResult{}
	for _, arg := range args {
		names := []string{arg}
		if info, err := os.Stat(a.resolvePath(arg)); arg != "" && arg != "-" && err == nil && info.IsDir() {
			if names, err = a.findConfigurations(ctx, arg); err != nil {
				return nil, err
			}
			if len(names) == 0 {
				return nil, invalidInput("name the file itself", "there is no *.dstack.yml and no .dstack/profiles.yml in %s", arg)
			}
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			results = append(results, a.checkFile(name))
		}
	}
	return results, nil
}

// checkFile checks a file. Fields that this version does not support are notes.
func (a *app) checkFile(name string) fileResult {
	result := fileResult{File: name, Problems: spec.Problems{}, Notes: spec.Problems{}, DialectReport: spec.FindDialect(nil)}
	source, err := a.readSource(name)
	if err != nil {
		result.Error, result.err = err.Error(), err
		return result
	}
	result.File, result.DialectReport = source.name, spec.FindDialect(source.text)
	if isProfilesName(source.name) {
		checkProfiles(source, &result)
		result.Valid = result.err == nil
		return result
	}
	result.read, err = spec.ParseConfiguration(source.name, source.text)
	if service, ok := result.read.(*spec.Service); ok {
		problems := append(service.NameProblems(), spec.FindBadReferences(source.name, source.text)...)
		if problems != nil {
			err = spec.Locate(source.name, source.text, problems)
		}
	}
	problems, isProblems := errors.AsType[spec.Problems](err)
	switch {
	case err == nil:
		result.Notes = append(result.Notes, findNotes(source, result.read)...)
	case isProblems && problems.OnlyUnsupported():
		result.Notes = problems
	case isProblems:
		result.Problems, result.err = problems, problems
	default:
		result.Error, result.err = err.Error(), err
	}
	result.Valid = result.err == nil
	return result
}

// findNotes returns what is not supported in a configuration, and what is probably
// meant otherwise.
func findNotes(source sourceFile, c spec.Configuration) spec.Problems {
	notes := c.Unsupported()
	switch c := c.(type) {
	case *spec.Service:
		notes = append(notes, c.FindNotes()...)
	case *spec.Fleet:
		notes = append(notes, c.FindNotes(spec.WrittenFields(source.text))...)
	case *spec.Volume, *spec.Gateway:
	}
	notes = append(notes, spec.FindDialect(source.text).Notes()...)
	return spec.Locate(source.name, source.text, notes)
}

// findConfigurations returns the configuration files in a folder and the folders
// in it, hidden ones excepted, and the profiles files of these folders.
func (a *app) findConfigurations(ctx context.Context, folder string) ([]string, error) {
	var names []string
	add := func(path string) {
		if rel, err := filepath.Rel(a.dir, path); err == nil && !filepath.IsAbs(folder) {
			path = rel
		}
		names = append(names, path)
	}
	err := filepath.WalkDir(a.resolvePath(folder), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != a.resolvePath(folder):
			return fs.SkipDir
		case entry.IsDir():
			for _, profiles := range findProfiles(path) {
				add(profiles)
			}
		case isConfigurationName(entry.Name()):
			add(path)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: "cannot read the folder " + folder + ": " + human.DescribeFailure(err)}
	}
	return names, err
}

func isConfigurationName(name string) bool {
	return strings.HasSuffix(name, ".dstack.yml") || strings.HasSuffix(name, ".dstack.yaml")
}

// printValidation prints the results and returns the last error; it prints the
// other errors itself.
func (a *app) printValidation(results []fileResult) error {
	var last error
	for _, r := range results {
		if r.err != nil {
			if last != nil {
				a.printError(last, a.verbose)
				a.printInfo("")
			}
			last = r.err
			continue
		}
		a.printResult("%s: %s", cleanLine(r.File), describeResult(r))
		if service, ok := r.read.(*spec.Service); ok && service.Gateway != "" {
			a.printInfo("  address: %s", describeAddress(*service))
		}
		if a.verbose {
			a.printDialect(r.DialectReport)
		}
		a.printNotes(r.Notes)
	}
	return last
}

// describeResult describes a file without problems.
func describeResult(r fileResult) string {
	switch {
	case r.read == nil && r.profiles == nil:
		return "not checked"
	case slices.ContainsFunc(r.Notes, func(n spec.Problem) bool { return n.Unsupported }):
		return "valid, but this version cannot run it"
	}
	return "valid"
}

// describeAddress returns where a service is published; only a server knows the whole address.
func describeAddress(s spec.Service) string {
	name := cleanLine(cmp.Or(string(s.Name), "<run>"))
	switch s.Gateway {
	case spec.GatewayNone:
		return "<server>/proxy/services/<project>/" + name + "/"
	case spec.GatewayDefault:
		return name + ".<domain of the default gateway, or of the server>"
	}
	return name + ".<domain of the gateway " + cleanLine(string(s.Gateway)) + ">"
}

// printDialect prints the dialect of a file, and the fields that tell it.
func (a *app) printDialect(d spec.DialectReport) {
	if len(d.Original)+len(d.Later) == 0 {
		a.printInfo("  dialect: common to dstack 0.18.10 and later versions")
	}
	if len(d.Original) > 0 {
		a.printInfo("  only dstack 0.18.10 has: %s", cleanLine(strings.Join(d.Original, ", ")))
	}
	if len(d.Later) > 0 {
		a.printInfo("  only later versions have: %s", cleanLine(strings.Join(d.Later, ", ")))
	}
}

// printNotes prints a line per note.
func (a *app) printNotes(notes spec.Problems) {
	for _, n := range notes {
		a.printInfo("%s %s %s; %s", cleanLine(n.Place()), a.err.paint(yellow, "note:"),
			cleanLine(n.Error()), cleanLine(n.Hint))
	}
}

// printValidationJSON prints all results as one JSON list.
func (a *app) printValidationJSON(results []fileResult) error {
	if err := a.printJSON(results); err != nil {
		return err
	}
	return reportedErrorOf(results)
}

// reportedErrorOf returns the first error as one that was printed already.
func reportedErrorOf(results []fileResult) error {
	for _, r := range results {
		if r.err != nil {
			return &reportedError{r.err}
		}
	}
	return nil
}

// printNormalised prints the normalised form of each file.
func (a *app) printNormalised(results []fileResult) error {
	var last error
	for _, r := range results {
		switch {
		case r.err != nil:
			if last != nil {
				a.printError(last, a.verbose)
				a.printInfo("")
			}
			last = r.err
		case r.profiles != nil:
			if err := a.printJSON(r.profiles); err != nil {
				return err
			}
		case r.read == nil:
			a.printInfo("%s: %s", cleanLine(r.File), describeResult(r))
			a.printNotes(r.Notes)
		default:
			meaning, err := describeMeaning(r.read)
			if err == nil {
				err = a.printJSON(meaning)
			}
			if err != nil {
				return err
			}
			a.printNotes(r.Notes)
		}
	}
	return last
}

// describeMeaning returns what a configuration means, as JSON.
func describeMeaning(c spec.Configuration) (any, error) {
	meaning, ok := c.(interface{ MeaningJSON() ([]byte, error) })
	if !ok {
		return c, nil
	}
	text, err := meaning.MeaningJSON()
	return json.RawMessage(text), err
}

// reportedError is an error that was printed already. It determines the exit
// status only.
type reportedError struct{ err error }

func (q *reportedError) Error() string { return q.err.Error() }
func (q *reportedError) Unwrap() error { return q.err }
