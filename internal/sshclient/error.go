package sshclient

import (
	"context"
	"errors"
	"fmt"

	"dstack/internal/dstack"
)

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

// stepFailure returns an error for the user. cause may be nil.
func stepFailure(kind dstack.Kind, step dstack.HostStep, cause error, message, hint string) error {
	return &dstack.Error{Kind: kind, Message: message, Hint: hint, Cause: &stepError{step: step, err: cause}}
}

// StepOf returns the step of the check of a host that failed with err, or an empty step if err does not come from this
// package.
func StepOf(err error) dstack.HostStep {
	if e, ok := errors.AsType[*stepError](err); ok {
		return e.step
	}
	return ""
}

// stopped returns the error for a caller whose context ended while it waited. reason is why it waited; it may be nil.
func stopped(ctx context.Context, name string, reason error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if reason != nil {
		return stepFailure(dstack.Unavailable, StepOf(reason), errors.Join(ctx.Err(), reason), reason.Error(), hintOf(reason))
	}
	return stepFailure(dstack.Unavailable, dstack.HostStepConnect, ctx.Err(), name+" does not answer in time over SSH", "")
}

// hintOf returns the hint of an error.
func hintOf(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		return e.Hint
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
