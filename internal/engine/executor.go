package engine

import (
	"context"
	"io"

	"dstack/internal/dstack"
)

// Executor runs further commands beside a running attempt. It is optional: an
// Engine that cannot do this does not implement it.
type Executor interface {
	// Exec runs a command with the environment and the working folder of an
	// attempt, in its container if it has one. It returns the exit code once the
	// command has ended and its output was written; 128 and the signal's number
	// for a command that a signal ended. Processes that the command leaves
	// behind are killed.
	//
	// If ctx, the attempt or the engine ends first, the command gets SIGHUP and,
	// soon after, SIGKILL. The error is then the cause of ctx, or of kind
	// Conflict. It is of kind Conflict, too, if the attempt does not run. A
	// command that cannot be started has exit code 126, or 127 if there is no
	// such program, together with an error of kind Invalid.
	Exec(ctx context.Context, spec dstack.AttemptSpec, command Command) (exitCode int, err error)
}

// Command is a command to run beside an attempt.
type Command struct {
	Argv     []string  // empty: a shell, bash if there is one, else sh
	Terminal *Terminal // nil: the command gets pipes
	// Stdin is passed on until it ends, and then its end is. The engine may be
	// blocked in one Read after Exec has returned.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // with a terminal, all output goes to Stdout
}

// Terminal describes the terminal of a command.
type Terminal struct {
	Type    string // the value of TERM, such as xterm-256color; empty: unset
	Size    TerminalSize
	Resizes <-chan TerminalSize // nil: the size does not change
}

// TerminalSize is the size of a terminal in characters; zero: unknown.
type TerminalSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// Exit codes of commands that cannot be started, as shells and docker exec use them.
const (
	ExitNotExecutable = 126
	ExitNoProgram     = 127
)

// ShellArgv returns the command line that runs an interactive shell.
func ShellArgv() []string {
	return []string{"/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"}
}

// NewNotRunningError returns the error of Exec for an attempt that does not run.
func NewNotRunningError() error {
	return &dstack.Error{Kind: dstack.Conflict, Message: "the replica does not run",
		Hint: "try again when it has been started"}
}

// NewAttemptEndedError returns the error of Exec for an attempt that ended before the
// command.
func NewAttemptEndedError() error {
	return &dstack.Error{Kind: dstack.Conflict, Message: "the replica has ended, and the command with it"}
}

// NewNoProgramError returns the error of Exec for a program that does not exist.
func NewNoProgramError(argv []string) error {
	if len(argv) == 0 {
		return &dstack.Error{Kind: dstack.Invalid, Message: "the replica has no shell",
			Hint: "name a program that it has, after --"}
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: "the replica has no program `" + argv[0] + "`",
		Hint: "check the spelling; shell syntax needs a shell: -- sh -c '…'"}
}
