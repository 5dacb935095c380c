package v022

import (
	"net/url"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// Run is a run in an answer.
type Run struct {
	ID                  dstack.RunID   `json:"id"`
	ProjectName         string         `json:"project_name"`
	User                string         `json:"user"`
	SubmittedAt         api.Timestamp  `json:"submitted_at"`
	LastProcessedAt     api.Timestamp  `json:"last_processed_at"`
	Status              string         `json:"status"`
	StatusMessage       string         `json:"status_message"`
	TerminationReason   *string        `json:"termination_reason"`
	RunSpec             AnswerRunSpec  `json:"run_spec"`
	Jobs                []Job          `json:"jobs"`
	LatestJobSubmission *JobSubmission `json:"latest_job_submission"`
	Cost                float64        `json:"cost"`
	Service             *api.Service   `json:"service"`
	DeploymentNum       int            `json:"deployment_num"` // the revision
	Error               *string        `json:"error"`
}

// AnswerRunSpec is what a run was submitted with. Clients send it back when they apply a plan.
type AnswerRunSpec struct {
	RunName           *string       `json:"run_name"`
	RepoID            string        `json:"repo_id"`
	RepoData          dstack.JSON   `json:"repo_data"`
	RepoCodeHash      *string       `json:"repo_code_hash"`
	RepoDir           *string       `json:"repo_dir"`
	FileArchives      []FileArchive `json:"file_archives"`
	ConfigurationPath *string       `json:"configuration_path"`
	Configuration     any           `json:"configuration"` // ServiceConfiguration, or that of a request for offers
	Profile           any           `json:"profile"`
	SSHKeyPub         *string       `json:"ssh_key_pub"`
}

// Job is a replica of a Run with its attempts.
type Job struct {
	JobSpec        JobSpec         `json:"job_spec"`
	JobSubmissions []JobSubmission `json:"job_submissions"`
}

// JobSpec is what a replica runs.
type JobSpec struct {
	ReplicaNum     int                `json:"replica_num"`
	ReplicaGroup   string             `json:"replica_group,omitempty"` // empty: the service has no groups
	JobNum         int                `json:"job_num"`
	JobName        string             `json:"job_name"`
	JobsPerReplica int                `json:"jobs_per_replica"`
	AppSpecs       []struct{}         `json:"app_specs"`
	Commands       []string           `json:"commands"`
	Env            map[string]string  `json:"env"`
	HomeDir        string             `json:"home_dir"`
	ImageName      string             `json:"image_name"`
	MaxDuration    *int64             `json:"max_duration"`
	RegistryAuth   *spec.RegistryAuth `json:"registry_auth"`
	Requirements   Requirements       `json:"requirements"`
	Retry          *api.RetrySpec     `json:"retry"`
	WorkingDir     *string            `json:"working_dir"`
	ServicePort    *int               `json:"service_port"`
	Probes         []Probe            `json:"probes"`
}

// Requirements is what a job requires of a machine.
type Requirements struct {
	Resources Resources `json:"resources"`
	MaxPrice  *float64  `json:"max_price"`
	Spot      *bool     `json:"spot"`
}

// JobSubmission is one attempt of a Job.
type JobSubmission struct {
	ID                       dstack.AttemptID     `json:"id"`
	SubmissionNum            int                  `json:"submission_num"`
	DeploymentNum            int                  `json:"deployment_num"`
	SubmittedAt              api.Timestamp        `json:"submitted_at"`
	LastProcessedAt          api.Timestamp        `json:"last_processed_at"`
	FinishedAt               *api.Timestamp       `json:"finished_at"`
	Status                   string               `json:"status"`
	StatusMessage            string               `json:"status_message"`
	TerminationReason        *string              `json:"termination_reason"`
	TerminationReasonMessage *string              `json:"termination_reason_message"`
	ExitStatus               *int                 `json:"exit_status"`
	JobProvisioningData      *JobProvisioningData `json:"job_provisioning_data"`
	Error                    *string              `json:"error"`
	Probes                   []ProbeState         `json:"probes"`
}

// ProbeState is the state of a probe of a JobSubmission.
type ProbeState struct {
	SuccessStreak int `json:"success_streak"`
}

// JobProvisioningData describes the machine that an attempt runs on.
type JobProvisioningData struct {
	Backend         string       `json:"backend"`
	InstanceType    InstanceType `json:"instance_type"`
	InstanceID      string       `json:"instance_id"`
	Hostname        string       `json:"hostname"`
	PublicIPEnabled bool         `json:"public_ip_enabled"`
	Region          string       `json:"region"`
	Price           float64      `json:"price"`
	Username        string       `json:"username"`
	SSHPort         int          `json:"ssh_port"`
	Dockerized      bool         `json:"dockerized"`
}

// BuildRun returns a run.
func BuildRun(_ GetRun, answer wire.RunAnswer) Run { return buildRun(answer, 0) }

// BuildAppliedRun returns the run that was applied.
func BuildAppliedRun(_ ApplyPlan, answer wire.RunAnswer) Run { return buildRun(answer, 0) }

// maxSubmissions is how many attempts a job of a listed run has.
const maxSubmissions = 10

// BuildRuns returns runs in their order, with as many of their jobs as the client asked for.
func BuildRuns(in ListRuns, answers []wire.RunAnswer) []Run {
	limit := valueOr(in.JobSubmissionsLimit, maxSubmissions)
	runs := make([]Run, 0, len(answers))
	for _, a := range answers {
		run := buildRun(a, limit)
		if !valueOr(in.IncludeJobs, true) {
			run.Jobs = []Job{}
		}
		runs = append(runs, run)
	}
	return runs
}

// buildRun returns a run from its form in 0.18.10 and what that does not have. Jobs have the last attempts up to a limit; 0:
// all, except that each has one.
func buildRun(answer wire.RunAnswer, limit int) Run {
	details, old := answer.Details, v018.BuildRun(answer)
	run := Run{
		ID: old.ID, ProjectName: old.ProjectName, User: old.User, SubmittedAt: old.SubmittedAt, LastProcessedAt: old.LastProcessedAt,
		Status: old.Status, TerminationReason: old.TerminationReason, RunSpec: buildRunSpec(details.Run.Spec), Jobs: []Job{},
		Cost: old.Cost, Service: buildService(old.Service), DeploymentNum: details.Run.Revision,
	}
	finder := newAttemptFinder(details, answer.Now)
	for _, j := range old.Jobs {
		submissions := make([]JobSubmission, 0, len(j.JobSubmissions))
		for _, s := range j.JobSubmissions {
			submissions = append(submissions, finder.buildSubmission(s, answer.URLs.SSH))
		}
		if run.LatestJobSubmission == nil {
			run.LatestJobSubmission = &submissions[len(submissions)-1]
		}
		if limit > 0 && len(submissions) > limit {
			submissions = submissions[len(submissions)-limit:]
		}
		run.Jobs = append(run.Jobs, Job{JobSpec: buildReplicaSpec(details.Run.Spec, j.JobSpec), JobSubmissions: submissions})
	}
	run.StatusMessage = describeRun(details, run)
	if details.Run.Status == dstack.RunFailed {
		run.Error = nullIfEmpty(string(details.Run.Reason))
	}
	return run
}

func buildRunSpec(rs dstack.RunSpec) AnswerRunSpec {
	var repoDir *string
	if repos := rs.Configuration.Repos; len(repos) > 0 {
		repoDir = &repos[0].Path
	}
	files := []FileArchive{}
	for _, file := range rs.FileArchives {
		files = append(files, FileArchive{file.ID, file.Path})
	}
	return AnswerRunSpec{RepoDir: repoDir, FileArchives: files, RunName: rs.RunName, RepoID: rs.RepoID, RepoData: rs.RepoData, RepoCodeHash: rs.RepoCodeHash,
		ConfigurationPath: nullIfEmpty(rs.ConfigurationPath), Configuration: buildConfiguration(rs.Configuration),
		Profile: buildProfile(rs.Profile), SSHKeyPub: nullIfEmpty(rs.SSHKeyPub)}
}

// buildReplicaSpec returns what a replica of a run runs.
func buildReplicaSpec(rs dstack.RunSpec, old api.JobSpec) JobSpec {
	js := buildJobSpec(v018.ForGroup(rs, old.ReplicaGroup), old)
	if len(rs.Configuration.Groups) > 0 {
		js.ReplicaGroup = old.ReplicaGroup
	}
	return js
}

func buildJobSpec(rs dstack.RunSpec, old api.JobSpec) JobSpec {
	js := JobSpec{
		ReplicaNum: old.ReplicaNum, JobNum: old.JobNum, JobName: old.JobName, JobsPerReplica: old.JobsPerReplica, AppSpecs: old.AppSpecs,
		Commands: old.Commands, Env: old.Env, HomeDir: old.HomeDir, ImageName: old.ImageName, MaxDuration: old.MaxDuration,
		Requirements: buildRequirements(job.BuildRequirements(rs)), Retry: old.Retry, RegistryAuth: old.RegistryAuth, WorkingDir: old.WorkingDir,
		Probes: orEmpty(buildProbes(rs.Configuration.Probes)),
	}
	if port := rs.Configuration.Port.Container; port != 0 {
		js.ServicePort = &port
	}
	return js
}

func buildRequirements(need dstack.Requirements) Requirements {
	return Requirements{Resources: buildResources(need.Resources), MaxPrice: need.MaxPrice, Spot: need.Spot}
}

// buildService returns where a service is published. Addresses by path are relative to the URL of the server that the
// client knows, which puts it in front.
func buildService(old *api.Service) *api.Service {
	if old == nil {
		return nil
	}
	service := *old
	path, isByPath := cutServicePath(old.URL)
	if !isByPath {
		return &service
	}
	service.URL = path
	if old.Model != nil {
		model := *old.Model
		if base, err := url.Parse(model.BaseURL); err == nil {
			model.BaseURL = base.Path
		}
		service.Model = &model
	}
	return &service
}

// servicePath begins the path of each service that is published by path.
const servicePath = "/proxy/services/"

func cutServicePath(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(u.Path, servicePath) {
		return "", false
	}
	return u.Path, true
}

func nullIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
