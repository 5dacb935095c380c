package cli

import (
	"errors"
	"fmt"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// The exit statuses. Scripts rely on their meaning.
const (
	ExitDone       = 0
	ExitFailed     = 1
	ExitInvalid    = 2
	ExitRolledBack = 3
	ExitNoCapacity = 4
	ExitTimeout    = 5
)

// exitStatuses is the table of the exit statuses. It contains each kind of error
// once.
var exitStatuses = []struct {
	Code    int
	Name    string
	Meaning string
	Kinds   []dstack.Kind
}{
	{ExitDone, "done", "The command completed, or there was nothing to do.", nil},
	{ExitFailed, "failed", "The command failed, or the server refused the request.", []dstack.Kind{
		dstack.Unauthorized, dstack.Forbidden, dstack.NotFound, dstack.Conflict, dstack.Unavailable, dstack.Internal}},
	{ExitInvalid, "invalid input", "A file, a flag or the command is wrong. Nothing was changed.", []dstack.Kind{
		dstack.Invalid, dstack.Unsupported, dstack.TooLarge}},
	{ExitRolledBack, "rolled back", "A new revision did not become ready; the previous one serves.",
		[]dstack.Kind{dstack.RolledBack}},
	{ExitNoCapacity, "no capacity", "No machine suits, or none is free; or a host of a fleet cannot be used.", []dstack.Kind{dstack.NoCapacity}},
	{ExitTimeout, "timed out",
		"The run was not ready in time, the hosts of a fleet were not checked in time, or the server did not answer in time. It goes on.",
		[]dstack.Kind{dstack.Timeout}},
}

// exitCode returns the exit status of an error, by its kind.
func exitCode(err error) int {
	if err == nil {
		return ExitDone
	}
	if failed, ok := errors.AsType[*failedCommandExit](err); ok {
		return failed.status
	}
	kind := dstack.Internal
	if ours, ok := errors.AsType[*dstack.Error](err); ok {
		kind = ours.Kind
	} else if _, ok := errors.AsType[spec.Problems](err); ok {
		kind = dstack.Invalid
	}
	for _, exit := range exitStatuses {
		for _, k := range exit.Kinds {
			if k == kind {
				return exit.Code
			}
		}
	}
	return ExitFailed
}

// ExitCodesPage returns the reference page of the exit statuses in Markdown.
func ExitCodesPage() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\n<!-- Written by `go test ./internal/cli -run TestExitCodes -update`. -->\n\n")
	b.WriteString("| Code | Name | Meaning | Kinds of error |\n|---|---|---|---|\n")
	for _, exit := range exitStatuses {
		kinds := make([]string, 0, len(exit.Kinds))
		for _, k := range exit.Kinds {
			kinds = append(kinds, "`"+string(k)+"`")
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", exit.Code, exit.Name, exit.Meaning, strings.Join(kinds, ", "))
	}
	b.WriteString("\nA second Ctrl-C ends the command at once, with status 130.\n\n" +
		"`dstack exec` exits with the status of the command in the replica, 0 to 255: 126 if it cannot be run, 127 if\n" +
		"there is no such program, 128 and the signal's number if a signal ended it. 130 is also the status after Ctrl-C\n" +
		"without a terminal. If the command could not be run at all, the status is from the table, with a message on\n" +
		"standard error.\n")
	return b.String()
}
