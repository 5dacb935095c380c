package lifecycle_test

import (
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

func TestMergeReport(t *testing.T) {
	earlier, later := now.Add(-time.Second), now.Add(time.Second)
	runs := &dstack.Report{Attempt: "a", State: dstack.AttemptRunning}
	absentAt := func(at time.Time) *dstack.Report {
		return &dstack.Report{Attempt: "a", State: dstack.AttemptAbsent, At: at}
	}
	tests := []struct {
		name     string
		facts    lifecycle.ReportFacts
		want     dstack.AttemptState // empty: no report
		mustSave bool
	}{
		{"what the engine reports", lifecycle.ReportFacts{Heard: runs}, dstack.AttemptRunning, false},
		{"of an attempt that was placed meanwhile, nothing is known", lifecycle.ReportFacts{}, "", false},
		{"of a replica that changed meanwhile, nothing is known", lifecycle.ReportFacts{SinceAtSync: &earlier}, "", false},
		{"without a report, an attempt is absent", lifecycle.ReportFacts{SinceAtSync: &now}, dstack.AttemptAbsent, false},
		{"an absent report older than the status is saved again",
			lifecycle.ReportFacts{SinceAtSync: &now, Saved: absentAt(earlier)}, dstack.AttemptAbsent, true},
		{"a later one is not", lifecycle.ReportFacts{SinceAtSync: &now, Saved: absentAt(later)}, dstack.AttemptAbsent, false},
		{"nor is one that says something else", lifecycle.ReportFacts{Heard: runs, Saved: absentAt(earlier)}, dstack.AttemptRunning, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.facts.Attempt, test.facts.Since = "a", now
			rep, mustSave := lifecycle.MergeReport(test.facts)
			switch {
			case mustSave != test.mustSave, (rep == nil) != (test.want == ""):
				t.Fatalf("got %+v, must save: %t", rep, mustSave)
			case rep != nil && (rep.State != test.want || rep.Attempt != "a"):
				t.Errorf("got %+v", rep)
			}
		})
	}
}
