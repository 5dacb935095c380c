package cli

import (
	"fmt"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// waitOutcome reports whether the wait for a revision is over, with an error if
// the revision will not become ready.
func waitOutcome(v api.RunView, revision int) (bool, error) {
	switch {
	case v.RolledBack != nil && v.RolledBack.From == revision:
		return true, rollbackError(v)
	case v.Revision != revision: // also a lower one: this revision and a later one were rolled back
		return true, &dstack.Error{Kind: dstack.Conflict,
			Message: fmt.Sprintf("revision %d of %s was replaced by revision %d before it was ready",
				revision, v.Name, v.Revision),
			Hint: "see: dstack history " + v.Name}
	case v.Status.IsFinished():
		return true, endError(v)
	case v.Status == api.StatusStopping && v.Ending != dstack.EndFailed && v.Ending != dstack.EndNoCapacity:
		return true, endError(v)
	}
	return hasBecomeReady(v), nil
}

// hasBecomeReady reports whether the present revision has become ready or sleeps.
// A revision that was ready once may be degraded: it needs the minimum of its
// replicas.
func hasBecomeReady(v api.RunView) bool {
	switch v.Status {
	case api.StatusSleeping:
		return true
	case api.StatusReady, api.StatusDegraded, api.StatusStarting, api.StatusWaiting:
		return v.ReadyAt != nil && v.Ready >= max(v.Min, 1)
	case api.StatusUpdating, api.StatusFailing, api.StatusStopping, api.StatusStopped, api.StatusFailed:
		return false
	}
	return false
}

// rollbackError returns the error of a revision that was rolled back.
func rollbackError(v api.RunView) error {
	rollback := v.RolledBack
	report := &failureReport{output: rollback.LastOutput, err: &dstack.Error{Kind: dstack.RolledBack,
		Message: fmt.Sprintf("revision %d of %s did not become ready, rolled back to %d",
			rollback.From, v.Name, rollback.To),
		Hint: fmt.Sprintf("dstack events %s\ndstack logs %s", v.Name, v.Name)}}
	if why := cleanLine(rollback.Reason); why != "" && len(rollback.LastOutput) > 0 {
		report.reasons = []string{why + ":"}
	} else if why != "" {
		report.reasons = []string{why}
	}
	serving := max(v.Ready, v.Serving)
	switch {
	case v.Revision == rollback.To && serving > 0:
		report.state = fmt.Sprintf("revision %d serves, %d of %s",
			rollback.To, serving, human.Count(v.DesiredReplicas, "replica"))
	case v.Revision == rollback.To && v.Status == api.StatusSleeping:
		report.state = fmt.Sprintf("revision %d sleeps until a request comes", rollback.To)
	default:
		report.state = describeRun(v)
	}
	return report
}

// endError returns the error of a run that has ended or is stopping.
func endError(v api.RunView) error {
	report := &failureReport{err: &dstack.Error{Kind: dstack.Conflict,
		Message: v.Name + " failed", Hint: "dstack events " + v.Name}}
	if v.ReadyAt == nil {
		report.err.Message = v.Name + " did not become ready"
	}
	if v.Reason != "" {
		report.reasons = []string{v.Reason}
	}
	switch v.Ending {
	case dstack.EndStopped, dstack.EndAborted:
		report.err.Message, report.err.Hint = v.Name+" was stopped", "start it again: dstack apply"
		return report
	case dstack.EndNoCapacity:
		report.err.Kind = dstack.NoCapacity
		report.err.Hint = "apply it again: the plan says what does not suit, and what to do"
	case dstack.EndDuration:
		report.err.Message, report.err.Hint = v.Name+" was stopped: it ran for its max_duration", "raise max_duration in the configuration to let it run longer"
		return report
	case dstack.EndNone, dstack.EndFailed:
	}
	report.addReplicas(v)
	if len(report.output) > 0 && v.Ending != dstack.EndNoCapacity {
		report.err.Hint = "dstack logs " + v.Name
	}
	return report
}

// addReplicas adds the reasons of the replicas that are not ready, and the output
// of the first of them that has any.
func (r *failureReport) addReplicas(v api.RunView) {
	for _, replica := range v.Replicas {
		if replica.Status == dstack.ReplicaReady || replica.Reason == "" {
			continue
		}
		if len(r.reasons) == 0 || cleanLine(r.reasons[0]) != cleanLine(replica.Reason) {
			r.reasons = append(r.reasons, describeReason(replica))
		}
		if len(r.output) == 0 {
			r.output = replica.LastOutput
		}
	}
}
