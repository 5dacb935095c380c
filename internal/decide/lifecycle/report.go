package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// ReportFacts is what is known of an attempt that is placed on an instance,
// after the engine of the instance was asked for its reports.
type ReportFacts struct {
	Attempt dstack.AttemptID
	Since   time.Time // the replica's Since now
	// SinceAtSync is the replica's Since when the engine was asked. Nil: the
	// attempt was not placed on the instance then.
	SinceAtSync *time.Time
	Heard       *dstack.Report // from the engine; nil: it does not know the attempt
	Saved       *dstack.Report // nil: none is saved
}

// MergeReport returns the report of an attempt; nil: the engine was asked too
// early to know of it. mustSave says that the report must be saved even if it
// equals the saved one: the saved one is absent, and older than the replica's
// status.
func MergeReport(f ReportFacts) (rep *dstack.Report, mustSave bool) {
	rep = f.Heard
	if rep == nil {
		if f.SinceAtSync == nil || !f.SinceAtSync.Equal(f.Since) {
			return nil, false
		}
		rep = &dstack.Report{Attempt: f.Attempt, State: dstack.AttemptAbsent}
	}
	return rep, rep.State == dstack.AttemptAbsent && f.Saved != nil && f.Since.After(f.Saved.At)
}
