package cli

import (
	"errors"
	"fmt"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// failureReport is an error with details: the reasons, the last lines of output
// and the present state of the run.
type failureReport struct {
	err    *dstack.Error // the message and the hint
	why    []string
	output []string
	now    string
}

func (v *failureReport) Error() string { return v.err.Message }
func (v *failureReport) Unwrap() error { return v.err }

// printError prints an error: its message, its details and its hint.
func (s *screen) printError(err error, verbose bool) {
	said, ok := errors.AsType[*dstack.Error](err)
	if problems, bad := errors.AsType[spec.Problems](err); bad && !ok {
		s.printProblems(problems)
		return
	}
	if !ok {
		said = &dstack.Error{Message: err.Error()} // an error of cobra or of a library
	}
	first, rest, _ := strings.Cut(said.Message, "\n")
	s.printInfo("%s %s", s.err.paint(red, "error:"), cleanLine(first))
	for line := range strings.Lines(rest) {
		s.printInfo("  %s", cleanLine(line))
	}
	if v, ok := errors.AsType[*failureReport](err); ok {
		s.printReport(v)
	}
	for i, line := range strings.Split(said.Hint, "\n") {
		if line != "" {
			s.printInfo("  %s   %s", map[bool]string{true: s.err.paint(bold, "try"), false: "   "}[i == 0], cleanLine(line))
		}
	}
	if verbose && said.Cause != nil {
		s.printInfo("  %s %s", s.err.paint(dim, "cause"), cleanLine(said.Cause.Error()))
	}
}

// printReport prints the details of a report.
func (s *screen) printReport(v *failureReport) {
	for i, line := range v.why {
		s.printInfo("  %s   %s", map[bool]string{true: s.err.paint(bold, "why"), false: "   "}[i == 0], cleanLine(line))
	}
	for _, line := range v.output {
		s.printInfo("          %s", s.err.paint(dim, cleanLine(line)))
	}
	if v.now != "" {
		s.printInfo("  %s   %s", s.err.paint(bold, "now"), cleanLine(v.now))
	}
}

// invalidInput returns an error about what the user typed.
func invalidInput(hint, format string, args ...any) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf(format, args...), Hint: hint}
}
