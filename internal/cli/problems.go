package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/spec"
)

// profileVariable is the environment variable that selects a profile.
const profileVariable = "DSTACK_PROFILE"

// flagProblem returns a problem of a flag, or of the environment variable that
// replaces a flag.
func flagProblem(flag, hint, format string, args ...any) spec.Problem {
	return spec.Problem{Path: flag, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func isFlagProblem(p spec.Problem) bool {
	return p.File == "" && (strings.HasPrefix(p.Path, "--") || p.Path == profileVariable)
}

// asProblems returns the problems of a parser's error. Any other error becomes a
// problem of the file.
func asProblems(file string, err error) spec.Problems {
	if problems, ok := errors.AsType[spec.Problems](err); ok || err == nil {
		return problems
	}
	return spec.Problems{{File: file, Message: err.Error()}}
}

// problemsError returns the problems as an error, nil if there are none. A single
// problem of a flag becomes an ordinary usage error.
func problemsError(problems spec.Problems) error {
	switch {
	case len(problems) == 0:
		return nil
	case len(problems) == 1 && isFlagProblem(problems[0]):
		return invalidInput(problems[0].Hint, "%s: %s", problems[0].Path, problems[0].Message)
	}
	return problems
}

// printProblems prints the problems of each file, followed by their number.
func (s *screen) printProblems(problems spec.Problems) {
	for i := 0; len(problems) > 0; i++ {
		file := problems[0].File
		others := spec.Problems{}
		group := slices.DeleteFunc(slices.Clone(problems), func(p spec.Problem) bool {
			if p.File != file {
				others = append(others, p)
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
		problems = others
	}
}
