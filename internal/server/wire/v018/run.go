// Package v018 builds the responses about runs, jobs, plans, offers and machines in the dialect of dstack 0.18.10 (spec
// §4.5), which its published client and our own expect. Statuses, field names and several messages are what clients
// depend on; they do not change.
package v018

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/decide/status"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// BuildRuns returns runs in their order.
func BuildRuns(answers []wire.RunAnswer) []api.Run {
	runs := make([]api.Run, 0, len(answers))
	for _, a := range answers {
		runs = append(runs, BuildRun(a))
	}
	return runs
}

// BuildRun returns a run.
func BuildRun(answer wire.RunAnswer) api.Run {
	details := answer.Details
	run := api.Run{
		ID: details.Run.ID, ProjectName: details.Run.Project, User: details.Run.User,
		SubmittedAt: api.NewTimestamp(details.Run.SubmittedAt), LastProcessedAt: api.NewTimestamp(findLastChange(details)),
		Status: runStatus(details), TerminationReason: nullIfEmpty(runTerminationReasons[details.Run.Ending]),
		RunSpec: buildRunSpec(details.Run.Spec), Jobs: buildJobs(details), Service: buildService(details.Run, answer.URLs),
	}
	for _, j := range run.Jobs {
		for _, submission := range j.JobSubmissions {
			setSSHAddress(submission, answer.URLs.SSH)
			run.Cost += computeCost(submission, answer.Now)
		}
	}
	run.Cost = math.Round(run.Cost*10000) / 10000
	if len(run.Jobs) > 0 {
		run.LatestJobSubmission = &run.Jobs[0].JobSubmissions[len(run.Jobs[0].JobSubmissions)-1]
	}
	return run
}

// setSSHAddress makes clients attach to a job submission at an address, in one hop. If it is zero, nothing changes.
func setSSHAddress(s api.JobSubmission, address wire.SSHAddress) {
	if data := s.JobProvisioningData; data != nil && address != (wire.SSHAddress{}) {
		data.Hostname, data.SSHPort, data.Username, data.Dockerized = address.Host, address.Port, string(s.ID), false
	}
}

// computeCost returns the cost of one attempt: price times duration.
func computeCost(s api.JobSubmission, now time.Time) float64 {
	if s.JobProvisioningData == nil {
		return 0
	}
	end := now
	if s.FinishedAt != nil {
		end = s.FinishedAt.Time
	}
	return s.JobProvisioningData.Price * max(0, end.Sub(s.SubmittedAt.Time).Hours())
}

// findLastChange returns when a run or one of its replicas last changed.
func findLastChange(details store.RunDetails) time.Time {
	last := details.Run.SubmittedAt
	consider := func(at time.Time) {
		if at.After(last) {
			last = at
		}
	}
	consider(details.Run.Since)
	consider(details.Run.FinishedAt)
	for _, r := range details.Replicas {
		consider(r.Since)
		consider(r.FinishedAt)
	}
	return last
}

// runTerminationReasons maps how a run ended to its termination reason on the
// wire.
var runTerminationReasons = map[dstack.Ending]string{
	dstack.EndNone:       "",
	dstack.EndStopped:    "stopped_by_user",
	dstack.EndAborted:    "aborted_by_user",
	dstack.EndFailed:     "job_failed",
	dstack.EndNoCapacity: "job_failed",
	dstack.EndDuration:   "stopped_by_user", // 0.18.10 has no reason for max_duration of a run
}

// runStates maps the state of a run to its status on the wire. The states of
// active runs that are not in this map depend on the replicas: see
// replicaStates. The 0.18.10 client waits while a run is submitted, pending or
// provisioning.
var runStates = map[status.State]string{
	status.Submitted: "submitted",
	status.Stopping:  "terminating",
	status.Stopped:   "terminated",
	status.Failed:    "failed",
	status.Unknown:   "pending",
}

// replicaStates maps the furthest replica of an active run to the status of the
// run on the wire.
var replicaStates = map[dstack.ReplicaStatus]string{
	dstack.ReplicaReady:     "running",
	dstack.ReplicaUnhealthy: "running",
	dstack.ReplicaStarting:  "provisioning",
	dstack.ReplicaWaiting:   "submitted",
	"":                      "pending", // between two attempts, or between two revisions
}

func runStatus(details store.RunDetails) string {
	summary := status.Summarize(status.NewFacts(details.Run, details.Replicas))
	if name, ok := runStates[summary.State]; ok {
		return name
	}
	return replicaStates[summary.Furthest]
}

// buildJobs returns one job per replica number, each with all its attempts.
func buildJobs(details store.RunDetails) []api.Job {
	byNum, groups := map[int][]api.JobSubmission{}, map[int]string{}
	for _, r := range sortForLatest(details) {
		byNum[r.Num] = append(byNum[r.Num], buildSubmissions(details, r)...)
		groups[r.Num] = r.Group
	}
	nums := make([]int, 0, len(byNum))
	for num := range byNum {
		nums = append(nums, num)
	}
	slices.Sort(nums)
	jobs := make([]api.Job, 0, len(nums))
	if len(nums) == 0 {
		return jobs
	}
	specs := map[string]api.JobSpec{}
	for _, num := range nums {
		group := groups[num]
		one, known := specs[group]
		if !known {
			one = BuildJobSpec(ForGroup(details.Run.Spec, group), details.Run.Name, num)
			one.ReplicaGroup = group
			specs[group] = one
		}
		for i := range byNum[num] {
			byNum[num][i].SubmissionNum = i
		}
		jobs = append(jobs, api.Job{JobSpec: numberJobSpec(one, details.Run.Name, num), JobSubmissions: byNum[num]})
	}
	return jobs
}

// ForGroup returns what the replicas of a group run. Of a group that the configuration no longer has, it
// is what those of the first group run: its replicas are leaving.
func ForGroup(rs dstack.RunSpec, group string) dstack.RunSpec {
	own, ok := rs.ForGroup(group)
	if !ok {
		own, _ = rs.ForGroup(rs.Configuration.GroupNames()[0])
	}
	return own
}

// numberJobSpec returns what replica num runs, where one is what another replica of the run does.
func numberJobSpec(one api.JobSpec, run string, num int) api.JobSpec {
	one.ReplicaNum, one.JobName = num, formatJobName(run, num)
	return one
}

func formatJobName(run string, num int) string { return fmt.Sprintf("%s-%d-0", run, num) }

// sortForLatest sorts the replicas of a run so that the last replica of each
// number is the one to show, because clients look at the latest submission:
// first finished replicas, then outdated ones or, during an update, replicas
// that are not ready.
func sortForLatest(details store.RunDetails) []dstack.Replica {
	// During an update, ready replicas of any revision are shown. It lasts until
	// the new template has taken over. status.Updating does not mean the same: it
	// also needs a ready and an outdated replica at the moment.
	updating := details.Run.StableRevision > 0 && details.Run.ReadyAt.IsZero()
	rank := func(r dstack.Replica) int {
		switch {
		case r.Status.IsFinished():
			return 0
		case updating && r.Status != dstack.ReplicaReady, !updating && r.TemplateRevision != details.Run.TemplateRevision:
			return 1
		}
		return 2
	}
	sorted := slices.Clone(details.Replicas)
	slices.SortStableFunc(sorted, func(a, b dstack.Replica) int { return rank(a) - rank(b) })
	return sorted
}

// buildSubmissions returns the attempts of a replica, oldest first. A replica
// without attempts has one submission, because clients expect at least one.
func buildSubmissions(details store.RunDetails, r dstack.Replica) []api.JobSubmission {
	var all []api.JobSubmission
	for _, past := range r.PastAttempts {
		if past.ID == r.Attempt {
			continue // buildCurrentSubmission returns it
		}
		end := api.NewTimestamp(past.EndedAt)
		all = append(all, api.JobSubmission{ID: past.ID, SubmittedAt: api.NewTimestamp(past.StartedAt),
			LastProcessedAt: end, FinishedAt: &end, Status: "failed",
			TerminationReason:        nullIfEmpty(attemptTerminationReasons[past.EndState]),
			TerminationReasonMessage: nullIfEmpty(string(past.Reason)),
			JobProvisioningData:      buildProvisioningData(details, r, past.ID)})
	}
	return append(all, buildCurrentSubmission(details, r))
}

// buildCurrentSubmission returns the latest attempt of a replica, or the replica
// itself if it has none.
func buildCurrentSubmission(details store.RunDetails, r dstack.Replica) api.JobSubmission {
	s := api.JobSubmission{ID: r.Attempt, SubmittedAt: api.NewTimestamp(r.AttemptAt),
		LastProcessedAt: api.NewTimestamp(r.Since)}
	if r.Attempt == "" {
		s.ID, s.SubmittedAt = dstack.AttemptID(r.ID), api.NewTimestamp(r.SubmittedAt)
	} else {
		s.JobProvisioningData = buildProvisioningData(details, r, r.Attempt)
	}
	s.Status = jobStatus(details, r)
	if r.Status.IsFinished() || r.Status == dstack.ReplicaTerminating || s.Status == "failed" {
		s.TerminationReason = nullIfEmpty(jobTerminationReason(details, r))
		s.TerminationReasonMessage = nullIfEmpty(string(r.Reason))
	}
	if r.Status.IsFinished() || s.Status == "failed" {
		end := r.FinishedAt
		if end.IsZero() {
			end = r.Since
		}
		stamp := api.NewTimestamp(end)
		s.FinishedAt, s.LastProcessedAt = &stamp, stamp
	}
	return s
}

// jobStatus returns the status on the wire of a replica's latest attempt.
func jobStatus(details store.RunDetails, r dstack.Replica) string {
	switch r.Status {
	case dstack.ReplicaWaiting:
		return "submitted"
	case dstack.ReplicaStarting:
		if details.Reports[r.Attempt].State == dstack.AttemptPulling {
			return "pulling"
		}
		return "provisioning"
	case dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaDraining:
		return "running"
	case dstack.ReplicaRestarting, dstack.ReplicaFailed:
		return "failed"
	case dstack.ReplicaTerminating:
		return "terminating"
	case dstack.ReplicaTerminated:
		if details.Run.Ending == dstack.EndAborted {
			return "aborted"
		}
		return "terminated"
	default:
		return "submitted"
	}
}

// attemptTerminationReasons maps the state in which an attempt ended to its
// termination reason on the wire.
var attemptTerminationReasons = map[dstack.AttemptState]string{
	dstack.AttemptExited:   "container_exited_with_error",
	dstack.AttemptRefused:  "creating_container_error",
	dstack.AttemptAbsent:   "interrupted_by_no_capacity",
	dstack.AttemptPulling:  "waiting_runner_limit_exceeded",
	dstack.AttemptStarting: "waiting_runner_limit_exceeded",
	dstack.AttemptRunning:  "waiting_runner_limit_exceeded",
}

// jobTerminationReason returns why a replica's latest attempt ends or ended.
func jobTerminationReason(details store.RunDetails, r dstack.Replica) string {
	if r.Status == dstack.ReplicaFailed || r.Status == dstack.ReplicaRestarting {
		if r.Attempt == "" {
			return "failed_to_start_due_to_no_capacity"
		}
		if n := len(r.PastAttempts); n > 0 && r.PastAttempts[n-1].ID == r.Attempt {
			return attemptTerminationReasons[r.PastAttempts[n-1].EndState]
		}
		reason := attemptTerminationReasons[details.Reports[r.Attempt].State]
		if reason == "" && r.Status == dstack.ReplicaFailed { // its last machine did not come up, and there is no other
			return "failed_to_start_due_to_no_capacity"
		}
		return reason
	}
	switch details.Run.Ending {
	case dstack.EndStopped:
		return "terminated_by_user"
	case dstack.EndDuration:
		return "terminated_by_server"
	case dstack.EndAborted:
		return "aborted_by_user"
	case dstack.EndFailed, dstack.EndNoCapacity:
		return "terminated_by_server"
	case dstack.EndNone:
		return "scaled_down" // the run continues without this replica
	default:
		return "terminated_by_server"
	}
}

// buildProvisioningData returns the machine of an attempt, nil if it is not
// known.
func buildProvisioningData(details store.RunDetails, r dstack.Replica, attempt dstack.AttemptID) *api.JobProvisioningData {
	instance, ok := details.Instances[r.Instance]
	if !ok {
		return nil
	}
	offer := instance.Offer.ShowTo(r.Claim)
	host, _, _ := net.SplitHostPort(details.Reports[attempt].Address) // empty if the address is not known yet
	return &api.JobProvisioningData{
		Backend: encodeBackend(offer.Backend), InstanceType: buildInstanceType(offer), InstanceID: string(instance.ID),
		Hostname: host, Region: offer.Region, Price: offer.Price, PublicIPEnabled: true,
		Username: "root", SSHPort: 22, Dockerized: offer.Engine.Containers,
	}
}

func buildInstanceType(o dstack.Offer) api.InstanceType {
	hw := o.Hardware
	gpus := make([]api.GPU, 0, len(hw.GPUs))
	for _, g := range hw.GPUs {
		gpus = append(gpus, api.GPU{Name: g.Name, MemoryMiB: g.MemoryMiB})
	}
	return api.InstanceType{Name: o.Type, Resources: api.Resources{CPUs: hw.CPUs, MemoryMiB: hw.MemoryMiB, GPUs: gpus,
		Spot: o.Spot, Disk: api.Disk{SizeMiB: hw.DiskMiB}, Description: describeHardware(hw)}}
}

// describeHardware describes hardware as 0.18.10 does: 8xCPU, 32GB, 1xL4
// (24GB), 100.0GB (disk).
func describeHardware(hw dstack.Hardware) string {
	parts := []string{fmt.Sprintf("%dxCPU, %.0fGB", hw.CPUs, float64(hw.MemoryMiB)/1024)}
	if len(hw.GPUs) > 0 {
		names := make([]string, len(hw.GPUs))
		for i, g := range hw.GPUs {
			names[i] = fmt.Sprintf("%s (%.0fGB)", g.Name, float64(g.MemoryMiB)/1024)
		}
		parts = append(parts, human.CountEach(names, "x"))
	}
	return strings.Join(append(parts, fmt.Sprintf("%.1fGB (disk)", float64(hw.DiskMiB)/1024)), ", ")
}

// BuildOffer returns a placement as an offer in the wire format.
func BuildOffer(p dstack.Placement) api.Offer {
	runtime := "runner"
	if p.Offer.Engine.Containers {
		runtime = "shim"
	}
	return api.Offer{Backend: encodeBackend(p.Offer.Backend), Instance: buildInstanceType(p.Offer.ShowTo(p.Claim)), Region: p.Offer.Region,
		Price: p.Offer.Price, Availability: string(p.Offer.ShownAvailability()), InstanceRuntime: runtime}
}

// BuildJobSpec returns what replica num of a run runs.
func BuildJobSpec(rs dstack.RunSpec, run string, num int) api.JobSpec {
	conf, params := rs.Configuration, spec.Merge(rs.Configuration, rs.Profile)
	need := job.BuildRequirements(rs)
	js := api.JobSpec{
		ReplicaNum: num, JobName: formatJobName(run, num), JobsPerReplica: 1, AppSpecs: []struct{}{},
		Commands: job.BuildArgv(rs), Env: map[string]string{}, HomeDir: "/root", ImageName: job.ChooseImage(rs),
		RegistryAuth: conf.RegistryAuth, WorkingDir: nullIfEmpty(job.ResolveWorkingDir(rs)),
		Requirements: api.Requirements{Resources: need.Resources, MaxPrice: need.MaxPrice, Spot: need.Spot},
	}
	if js.Commands == nil {
		js.Commands = []string{}
	}
	for _, v := range conf.Env {
		js.Env[v.Name] = v.Value
	}
	if d := params.MaxDuration; d != nil && !d.Off {
		seconds := int64(d.Seconds)
		js.MaxDuration = &seconds
	}
	if events, window := params.RetryRule(); len(events) > 0 {
		js.Retry = &api.RetrySpec{OnEvents: events, Duration: int64(window)}
	}
	return js
}

func buildService(run dstack.Run, urls wire.RunURLs) *api.Service {
	service := &api.Service{URL: urls.Service, Options: map[string]any{}}
	if m := run.Spec.Configuration.Model; m != nil {
		service.Model = &api.ServiceModel{Name: m.Name, BaseURL: urls.Models, Type: m.Type}
		service.Options["openai"] = map[string]any{"model": addTemplate(m, run.Spec.Template)}
	}
	return service
}

// addTemplate returns a model with the chat template that was found for it.
func addTemplate(m *spec.Model, t *dstack.ChatTemplate) *spec.Model {
	if t == nil {
		return m
	}
	completed := *m
	completed.ChatTemplate, completed.EOSToken = spec.Text(t.Default), spec.Text(t.Tokens["eos_token"])
	return &completed
}

func nullIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
