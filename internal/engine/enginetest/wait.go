package enginetest

import (
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// RunToEnd starts an attempt and returns its report once the attempt is over.
func RunToEnd(t *testing.T, e engine.Engine, spec dstack.AttemptSpec) dstack.Report {
	t.Helper()
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
}

// WaitForReport returns the first report of an attempt that accept accepts. It
// fails the test if none comes within caseTimeout.
func WaitForReport(t *testing.T, e engine.Engine, id dstack.AttemptID, accept func(dstack.Report) bool) dstack.Report {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	var last dstack.Report
	for timeout := time.After(caseTimeout); ; {
		all, err := e.ListReports(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Attempt != id {
				continue
			}
			if last = r; accept(r) {
				return r
			}
		}
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("no expected report within %v; the last one is %+v", caseTimeout, last)
		}
	}
}
