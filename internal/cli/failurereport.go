package cli

import (
	"errors"
	"fmt"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
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
		ours = &dstack.Error{Message: human.PlainFailure(err.Error())} // an error of cobra or of a library
	}
	title, rest, _ := strings.Cut(ours.Message, "\n")
	s.printLabeled("error: ", red, cleanLine(title))
	for line := range strings.Lines(rest) {
		s.printInfo("  %s", cleanLine(line))
	}
	if report, ok := errors.AsType[*failureReport](err); ok {
		s.printReport(report)
	}
	s.printLabeledList("try", strings.Split(ours.Hint, "\n"))
	if verbose && ours.Cause != nil {
		s.printLabeled("  cause ", dim, cleanLine(ours.Cause.Error()))
	}
}

// printReport prints the details of a report.
func (s *screen) printReport(report *failureReport) {
	s.printLabeledList("why", report.reasons)
	for _, line := range report.output {
		s.printWrapped("          ", dim, cleanLine(line))
	}
	s.printLabeledList("now", []string{report.state})
}

// printLabeledList prints the texts that are not empty, the first of them behind a label.
func (s *screen) printLabeledList(label string, texts []string) {
	for _, text := range texts {
		if text = cleanLine(text); text == "" {
			continue
		}
		s.printLabeled("  "+padRight(label, 6), bold, text)
		label = ""
	}
}

// invalidInput returns an error about what the user typed.
func invalidInput(hint, format string, args ...any) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf(format, args...), Hint: hint}
}
