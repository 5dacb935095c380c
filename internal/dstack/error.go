package dstack

import "errors"

// Kind sorts errors by what the caller can do about them.
type Kind string

// Every kind there is. The API has one table from kind to HTTP status, the
// command line one from kind to exit code.
const (
	Invalid      Kind = "invalid"      // the input is wrong
	Unsupported  Kind = "unsupported"  // the input is right, and nothing acts on it yet
	Unauthorized Kind = "unauthorized" // nobody known asks
	Forbidden    Kind = "forbidden"    // somebody known asks, who may not
	NotFound     Kind = "not_found"    // no such thing, or none that the caller may see
	Conflict     Kind = "conflict"     // it is in a state that does not allow this
	TooLarge     Kind = "too_large"    // a bound was passed
	NoCapacity   Kind = "no_capacity"  // no machine suits
	RolledBack   Kind = "rolled_back"  // a change did not work out, and was undone
	Unavailable  Kind = "unavailable"  // not now; try again
	Timeout      Kind = "timeout"      // it took too long
	Internal     Kind = "internal"     // our fault
)

// Error is an error meant for a person: what cannot be done, why (Message),
// and what to do (Hint). Cause is for the log only.
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

// KindOf returns err's kind; Internal for any error not meant for a person.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
