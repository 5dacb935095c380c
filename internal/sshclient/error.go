package sshclient

import (
	"errors"
	"fmt"

	"dstack/internal/dstack"
)

var errSkeleton = &dstack.Error{Kind: dstack.Unsupported, Message: "not written yet"}

// stepError is the cause of an error of a known step.
type stepError struct {
	step dstack.HostStep
	err  error // may be nil
}

// Error returns the step and the cause.
func (e *stepError) Error() string {
	if e.err == nil {
		return string(e.step)
	}
	return string(e.step) + ": " + e.err.Error()
}

// Unwrap returns the cause.
func (e *stepError) Unwrap() error { return e.err }

// StepOf returns the step of the check of a host that failed with err, or an empty step if err does not come from this
// package.
func StepOf(err error) dstack.HostStep {
	if e, ok := errors.AsType[*stepError](err); ok {
		return e.step
	}
	return ""
}

// ExitError says how a command of Pipe failed.
type ExitError struct {
	ExitCode int    // -1: a signal ended it
	Signal   string // such as KILL
	Stderr   string // the end of what it printed there
}

// Error returns the exit code or the signal.
func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "signal " + e.Signal
	}
	return fmt.Sprintf("exit code %d", e.ExitCode)
}

// ErrPassphrase is in the chain of the errors for private keys that need a passphrase, or another one.
var ErrPassphrase = errors.New("a passphrase is needed")
