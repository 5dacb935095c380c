package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/spec"
)

// profileVariable chooses a profile where --profile does not.
const profileVariable = "DSTACK_PROFILE"

// flagProblem is a problem of what stands in no file: a flag, or a variable that
// stands for one.
func flagProblem(flag, hint, format string, args ...any) spec.Problem {
	return spec.Problem{Path: flag, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func isFlagProblem(p spec.Problem) bool {
	return p.File == "" && (strings.HasPrefix(p.Path, "--") || p.Path == profileVariable)
}

// asProblems is what an error of the parser tells; one that is no Problems
// becomes one of the file.
func asProblems(file string, err error) spec.Problems {
	if problems, ok := errors.AsType[spec.Problems](err); ok || err == nil {
		return problems
	}
	return spec.Problems{{File: file, Message: err.Error()}}
}

// problemsError is the error of all that is wrong, whether it stands in one
// place or in many. One wrong flag is told like any other wrong usage.
func problemsError(found spec.Problems) error {
	switch {
	case len(found) == 0:
		return nil
	case len(found) == 1 && isFlagProblem(found[0]):
		return invalidInput(found[0].Hint, "%s: %s", found[0].Path, found[0].Message)
	}
	return found
}

// printProblems shows them file by file, each with their number at the end.
func (s *screen) printProblems(all spec.Problems) {
	for i := 0; len(all) > 0; i++ {
		file := all[0].File
		rest := spec.Problems{}
		group := slices.DeleteFunc(slices.Clone(all), func(p spec.Problem) bool {
			if p.File != file {
				rest = append(rest, p)
			}
			return p.File != file
		})
		text := strings.TrimRight(group.Render(s.err.colour), "\n")
		if isFlagProblem(group[0]) {
			text += " in the command line"
		}
		if i > 0 {
			s.printInfo("")
		}
		s.printInfo("%s", text)
		all = rest
	}
}
