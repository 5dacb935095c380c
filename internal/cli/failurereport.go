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
	err     *dstack.Error // the message and the hint
	reasons []string
	output  []string
	state   string
}

func (r *failureReport) Error() string { return r.err.Message }
func (r *failureReport) Unwrap() error { return r.err }

// printError prints an error: its message, its details and its hint.
func (s *screen) printError(err error, verbose bool) {
	ours, ok := errors.AsType[*dstack.Error](err)
	if problems, isProblems := errors.AsType[spec.Problems](err); isProblems && !ok {
		s.printProblems(problems)
		return
	}
	if !ok {
		ours = &dstack.Error{Message: err.Error()} // an error of cobra or of a library
	}
	title, rest, _ := strings.Cut(ours.Message, "\n")
	s.printInfo("%s %s", s.err.paint(red, "error:"), cleanLine(title))
	for line := range strings.Lines(rest) {
		s.printInfo("  %s", cleanLine(line))
	}
	if report, ok := errors.AsType[*failureReport](err); ok {
		s.printReport(report)
	}
	for i, line := range strings.Split(ours.Hint, "\n") {
		if line != "" {
			s.printInfo("  %s   %s", map[bool]string{true: s.err.paint(bold, "try"), false: "   "}[i == 0], cleanLine(line))
		}
	}
	if verbose && ours.Cause != nil {
		s.printInfo("  %s %s", s.err.paint(dim, "cause"), cleanLine(ours.Cause.Error()))
	}
}

// printReport prints the details of a report.
func (s *screen) printReport(report *failureReport) {
	for i, line := range report.reasons {
		s.printInfo("  %s   %s", map[bool]string{true: s.err.paint(bold, "why"), false: "   "}[i == 0], cleanLine(line))
	}
	for _, line := range report.output {
		s.printInfo("          %s", s.err.paint(dim, cleanLine(line)))
	}
	if report.state != "" {
		s.printInfo("  %s   %s", s.err.paint(bold, "now"), cleanLine(report.state))
	}
}

// invalidInput returns an error about what the user typed.
func invalidInput(hint, format string, args ...any) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf(format, args...), Hint: hint}
}
