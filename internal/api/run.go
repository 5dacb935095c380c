// Package api defines the HTTP API of the server: paths, request and response
// bodies, error codes, and a typed client. The bodies in run.go and account.go
// follow the 0.18.10 wire format (spec §4.3–4.5), so that the published client
// of that version works. The calls in view.go and revision.go are additions that
// only our own command line uses.
package api

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// ProjectPrefix is the path prefix of all calls about one project.
const ProjectPrefix = "/api/project/{project_name}"

// RunPlan answers runs/get_plan.
type RunPlan struct {
	ProjectName string         `json:"project_name"`
	User        string         `json:"user"`
	RunSpec     dstack.RunSpec `json:"run_spec"`
	JobPlans    []JobPlan      `json:"job_plans"`
}

// JobPlan lists the offers for one job of a RunPlan, best first.
type JobPlan struct {
	JobSpec     JobSpec  `json:"job_spec"`
	Offers      []Offer  `json:"offers"` // at most 50
	TotalOffers int      `json:"total_offers"`
	MaxPrice    *float64 `json:"max_price"`
}

// JobSpec is the specification of one job. A service has one job per replica.
type JobSpec struct {
	ReplicaGroup   string             `json:"-"` // 0.18.10 has none
	ReplicaNum     int                `json:"replica_num"`
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
	Retry          *RetrySpec         `json:"retry"`
	RetryPolicy    spec.RetryPolicy   `json:"retry_policy"`
	WorkingDir     *string            `json:"working_dir"`
}

// RetrySpec is the retry rule of a job, with defaults filled in. Duration is in
// seconds.
type RetrySpec struct {
	OnEvents []string `json:"on_events"`
	Duration int64    `json:"duration"`
}

// Requirements is what a job requires of a machine.
type Requirements struct {
	Resources spec.Resources `json:"resources"`
	MaxPrice  *float64       `json:"max_price"`
	Spot      *bool          `json:"spot"`
}

// Offer is a machine that a backend can provide. Price is in dollars per hour.
type Offer struct {
	Backend         string       `json:"backend"`
	Instance        InstanceType `json:"instance"`
	Region          string       `json:"region"`
	Price           float64      `json:"price"`
	Availability    string       `json:"availability"`
	InstanceRuntime string       `json:"instance_runtime"`
}

// InstanceType is the type of a machine and its hardware.
type InstanceType struct {
	Name      string    `json:"name"`
	Resources Resources `json:"resources"`
}

// Resources is the hardware of a machine.
type Resources struct {
	CPUs        int    `json:"cpus"`
	MemoryMiB   int64  `json:"memory_mib"`
	GPUs        []GPU  `json:"gpus"`
	Spot        bool   `json:"spot"`
	Disk        Disk   `json:"disk"`
	Description string `json:"description"`
}

// GPU is one graphics processor in Resources.
type GPU struct {
	Name      string `json:"name"`
	MemoryMiB int64  `json:"memory_mib"`
}

// Disk is the disk in Resources.
type Disk struct {
	SizeMiB int64 `json:"size_mib"`
}

// Run answers runs/get and runs/submit; runs/list answers a list of it.
type Run struct {
	ID                  dstack.RunID   `json:"id"`
	ProjectName         string         `json:"project_name"`
	User                string         `json:"user"`
	SubmittedAt         Timestamp      `json:"submitted_at"`
	LastProcessedAt     Timestamp      `json:"last_processed_at"`
	Status              string         `json:"status"`
	TerminationReason   *string        `json:"termination_reason"`
	RunSpec             dstack.RunSpec `json:"run_spec"`
	Jobs                []Job          `json:"jobs"`
	LatestJobSubmission *JobSubmission `json:"latest_job_submission"`
	Cost                float64        `json:"cost"`
	Service             *Service       `json:"service"`
}

// Job is a replica of a Run with its attempts.
type Job struct {
	JobSpec        JobSpec         `json:"job_spec"`
	JobSubmissions []JobSubmission `json:"job_submissions"`
}

// JobSubmission is one attempt of a Job.
type JobSubmission struct {
	ID                       dstack.AttemptID     `json:"id"`
	SubmissionNum            int                  `json:"submission_num"`
	SubmittedAt              Timestamp            `json:"submitted_at"`
	LastProcessedAt          Timestamp            `json:"last_processed_at"`
	FinishedAt               *Timestamp           `json:"finished_at"`
	Status                   string               `json:"status"`
	TerminationReason        *string              `json:"termination_reason"`
	TerminationReasonMessage *string              `json:"termination_reason_message"`
	JobProvisioningData      *JobProvisioningData `json:"job_provisioning_data"`
}

// JobProvisioningData describes the machine that an attempt runs on.
type JobProvisioningData struct {
	Backend          string       `json:"backend"`
	InstanceType     InstanceType `json:"instance_type"`
	InstanceID       string       `json:"instance_id"`
	Hostname         string       `json:"hostname"`
	InternalIP       *string      `json:"internal_ip"`
	PublicIPEnabled  bool         `json:"public_ip_enabled"`
	InstanceNetwork  *string      `json:"instance_network"`
	Region           string       `json:"region"`
	AvailabilityZone *string      `json:"availability_zone"`
	Price            float64      `json:"price"`
	Username         string       `json:"username"`
	SSHPort          int          `json:"ssh_port"`
	Dockerized       bool         `json:"dockerized"`
	SSHProxy         *struct{}    `json:"ssh_proxy"`
	BackendData      *string      `json:"backend_data"`
}

// Service is the address at which a Run is published.
type Service struct {
	URL     string         `json:"url"`
	Model   *ServiceModel  `json:"model"`
	Options map[string]any `json:"options"`
}

// ServiceModel is the address at which the model of a Run is published.
type ServiceModel struct {
	Name    string `json:"name"`
	BaseURL string `json:"base_url"`
	Type    string `json:"type"`
}

// Requests about runs.
type (
	// RunSpecRequest is the body of runs/get_plan, runs/submit and runs/preview.
	RunSpecRequest struct {
		RunSpec dstack.RunSpec `json:"run_spec"`
	}
	// ListRuns is the body of /api/runs/list and /api/runs/views.
	ListRuns struct {
		ProjectName     *string    `json:"project_name,omitempty"`
		RepoID          *string    `json:"repo_id,omitempty"`
		Username        *string    `json:"username,omitempty"`
		OnlyActive      bool       `json:"only_active,omitempty"`
		PrevSubmittedAt *time.Time `json:"prev_submitted_at,omitempty"`
		PrevRunID       *string    `json:"prev_run_id,omitempty"`
		Limit           *int       `json:"limit,omitempty" minimum:"0" maximum:"100"`
		Ascending       bool       `json:"ascending,omitempty"`
	}
	// RunName is the body of runs/get, runs/history and runs/explain.
	RunName struct {
		RunName string `json:"run_name"`
	}
	// StopRuns is the body of runs/stop.
	StopRuns struct {
		RunsNames []string `json:"runs_names"`
		Abort     bool     `json:"abort"`
	}
	// DeleteRuns is the body of runs/delete.
	DeleteRuns struct {
		RunsNames []string `json:"runs_names"`
	}
	// PollLogs is the body of logs/poll.
	PollLogs struct {
		RunName         string     `json:"run_name"`
		JobSubmissionID string     `json:"job_submission_id"`
		StartTime       *time.Time `json:"start_time,omitempty"`
		EndTime         *time.Time `json:"end_time,omitempty"`
		Descending      bool       `json:"descending,omitempty"`
		Limit           *int       `json:"limit,omitempty" minimum:"0" maximum:"1000"`
		Diagnose        bool       `json:"diagnose,omitempty"`
	}
	// LogEvents answers logs/poll.
	LogEvents struct {
		Logs []LogEvent `json:"logs"`
	}
	// LogEvent is one piece of output in LogEvents.
	LogEvent struct {
		Timestamp Timestamp `json:"timestamp"`
		LogSource string    `json:"log_source"`
		Message   []byte    `json:"message"` // base64 on the wire
	}
)
