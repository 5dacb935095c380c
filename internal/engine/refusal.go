package engine

import (
	"errors"
	"syscall"
	"time"

	"dstack/internal/dstack"
)

// NewRefusedReport returns the report of an attempt that could not be started because
// of err. The refusal is permanent if the kind of err says that the same attempt can
// never start; an error of another kind, or without one, may be retried. An error of kind
// NoCapacity concerns this machine: another one may start the attempt.
func NewRefusedReport(id dstack.AttemptID, err error, at time.Time) dstack.Report {
	r := dstack.Report{
		Attempt: id, State: dstack.AttemptRefused, Error: err.Error(),
		StartedAt: at, EndedAt: at, At: at,
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		r.Error = "the disk of the server's folder is full; free some space there"
		return r
	}
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok {
		return r
	}
	r.Error = e.Message
	if e.Hint != "" {
		r.Error += "; " + e.Hint
	}
	switch e.Kind {
	case dstack.Invalid, dstack.Unsupported, dstack.Unauthorized, dstack.Forbidden,
		dstack.NotFound, dstack.Conflict, dstack.TooLarge:
		r.Permanent = true
	case dstack.NoCapacity:
		r.OtherMachine = true
	case dstack.Unavailable, dstack.Timeout, dstack.Internal, dstack.RolledBack:
	}
	return r
}
