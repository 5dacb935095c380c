package v022

import (
	"fmt"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// attemptFinder finds the replica of an attempt.
type attemptFinder struct {
	details  store.RunDetails
	now      time.Time
	replicas map[dstack.AttemptID]dstack.Replica
}

func newAttemptFinder(details store.RunDetails, now time.Time) attemptFinder {
	f := attemptFinder{details, now, map[dstack.AttemptID]dstack.Replica{}}
	for _, r := range details.Replicas {
		f.replicas[dstack.AttemptID(r.ID)] = r // of a replica without attempts
		for _, past := range r.PastAttempts {
			f.replicas[past.ID] = r
		}
		f.replicas[r.Attempt] = r
	}
	return f
}

// buildSubmission returns an attempt from its form in 0.18.10. Clients attach to it in two hops: the first has the attempt
// as its user name, because they fix that of the second.
func (f attemptFinder) buildSubmission(old api.JobSubmission, ssh wire.SSHAddress) JobSubmission {
	replica := f.replicas[old.ID]
	s := JobSubmission{
		ID: old.ID, SubmissionNum: old.SubmissionNum, DeploymentNum: f.revisionOf(replica), SubmittedAt: old.SubmittedAt,
		LastProcessedAt: old.LastProcessedAt, FinishedAt: old.FinishedAt, Status: old.Status, TerminationReason: old.TerminationReason,
		TerminationReasonMessage: old.TerminationReasonMessage, ExitStatus: f.findExitStatus(replica, old.ID), Probes: []ProbeState{},
	}
	if data := old.JobProvisioningData; data != nil {
		s.JobProvisioningData = &JobProvisioningData{
			Backend: encodeBackend(data.Backend), InstanceType: buildInstanceType(f.details.Instances[replica.Instance].Offer.ShowTo(replica.Claim)),
			InstanceID: data.InstanceID, Hostname: data.Hostname, PublicIPEnabled: data.PublicIPEnabled, Region: data.Region,
			Price: data.Price, Username: data.Username, SSHPort: data.SSHPort,
			Dockerized: data.Dockerized || ssh != (wire.SSHAddress{}),
		}
	}
	if s.TerminationReason != nil && *s.TerminationReason == "terminated_by_server" && f.details.Run.Ending == dstack.EndDuration {
		s.TerminationReason = new("max_duration_exceeded") // 0.18.10 has no such reason
	}
	s.StatusMessage = describeSubmission(s)
	switch {
	case s.FinishedAt != nil && s.Status == "failed":
		s.Error = s.TerminationReasonMessage
	case old.ID == replica.Attempt && f.isLate(replica):
		s.Error = nullIfEmpty(string(replica.Reason))
	}
	return s
}

// lateAfter is how long an attempt may start before clients show why it is not ready.
const lateAfter = time.Minute

// isLate reports whether a replica receives no requests for a reason that a user should see.
func (f attemptFinder) isLate(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaUnhealthy || r.Status == dstack.ReplicaStarting && f.now.Sub(r.AttemptAt) >= lateAfter
}

// revisionOf returns the revision that a replica has. One whose containers the present revision did not change has that.
func (f attemptFinder) revisionOf(r dstack.Replica) int {
	if r.TemplateRevision == f.details.Run.TemplateRevision {
		return f.details.Run.Revision
	}
	return r.Revision
}

// findExitStatus returns the code with which an attempt exited, nil if it did not.
func (f attemptFinder) findExitStatus(r dstack.Replica, id dstack.AttemptID) *int {
	for _, past := range r.PastAttempts {
		if past.ID == id && past.EndState == dstack.AttemptExited {
			return &past.ExitCode
		}
	}
	if report := f.details.Reports[id]; report.State == dstack.AttemptExited {
		return &report.ExitCode
	}
	return nil
}

// submissionMessages are the words for some termination reasons in the column STATUS.
var submissionMessages = map[string]string{
	"failed_to_start_due_to_no_capacity": "no capacity",
	"interrupted_by_no_capacity":         "interrupted",
	"terminated_by_user":                 "stopped",
	"aborted_by_user":                    "aborted",
	"max_duration_exceeded":              "max duration exceeded",
	"creating_container_error":           "error",
	"waiting_runner_limit_exceeded":      "error",
}

// describeSubmission returns what the column STATUS shows of an attempt.
func describeSubmission(s JobSubmission) string {
	if s.TerminationReason == nil {
		return s.Status
	}
	if *s.TerminationReason == "container_exited_with_error" && s.ExitStatus != nil {
		return fmt.Sprintf("exited (%d)", *s.ExitStatus)
	}
	if message, ok := submissionMessages[*s.TerminationReason]; ok && s.FinishedAt != nil {
		return message
	}
	return s.Status
}

// describeRun returns what the column STATUS shows of a run.
func describeRun(details store.RunDetails, run Run) string {
	latest := run.LatestJobSubmission
	switch {
	case latest != nil && run.Status == "provisioning" && latest.Status == "pulling":
		return "pulling"
	case latest != nil && run.Status == "pending" && details.Run.DesiredReplicas > 0:
		return "retrying"
	case latest == nil && run.Status == "submitted" && details.Run.DesiredReplicas > 0:
		return "starting" // "submitted" without jobs means for clients that the service waits for requests
	}
	return run.Status
}
