package dstack

import "errors"

// Kind classifies errors by what the caller can do about them.
type Kind string

// The kinds of error. The API maps each kind to one HTTP status, the command
// line maps each kind to one exit code.
const (
	Invalid      Kind = "invalid"      // the input is wrong
	Unsupported  Kind = "unsupported"  // the input is valid, but the feature is not implemented yet
	Unauthorized Kind = "unauthorized" // no token, or an unknown one
	Forbidden    Kind = "forbidden"    // the caller is known, but lacks permission
	NotFound     Kind = "not_found"    // the object does not exist, or the caller may not see it
	Conflict     Kind = "conflict"     // the state of the object does not allow the operation
	TooLarge     Kind = "too_large"    // a size limit was exceeded
	NoCapacity   Kind = "no_capacity"  // no machine meets the requirements, or none is free
	RolledBack   Kind = "rolled_back"  // a change failed and was undone
	Unavailable  Kind = "unavailable"  // a temporary failure; try again
	Timeout      Kind = "timeout"      // the operation took too long
	Internal     Kind = "internal"     // a bug in dstack
)

// Error is an error written for the user. Message says what failed and why,
// Hint says what to do about it. Cause is for the log only and is not shown.
type Error struct {
	Kind    Kind
	Message string // cannot apply "llama31": port is required
	Hint    string // add a line such as: port: 8000
	Cause   error
}

// Error returns the message, without the hint.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// KindOf returns the kind of the *Error in err's chain, or Internal if the
// chain has none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
