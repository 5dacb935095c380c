// Package api is the contract between the parts: payloads, paths, error
// codes and one typed client. Payloads of the reference are in the wire form
// of spec §4.3–4.5; ours are in view.go.
package api

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// ProjectPrefix is the prefix of what belongs to a project; the name goes in the middle.
const ProjectPrefix = "/api/project/{project_name}"

// RunPlan answers P/runs/get_plan.
type RunPlan struct {
	ProjectName string         `json:"project_name"`
	User        string         `json:"user"`
	RunSpec     dstack.RunSpec `json:"run_spec"`
	JobPlans    []JobPlan      `json:"job_plans"`
}

// JobPlan is what one job needs and where it could run.
type JobPlan struct {
	JobSpec     JobSpec  `json:"job_spec"`
	Offers      []Offer  `json:"offers"` // 50 at most
	TotalOffers int      `json:"total_offers"`
	MaxPrice    *float64 `json:"max_price"`
}

// JobSpec is what one job runs.
type JobSpec struct {
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

// RetrySpec is the resolved retry rule.
type RetrySpec struct {
	OnEvents []string `json:"on_events"`
	Duration int64    `json:"duration"`
}

// Requirements is what a job needs of a machine.
type Requirements struct {
	Resources spec.Resources `json:"resources"`
	MaxPrice  *float64       `json:"max_price"`
	Spot      *bool          `json:"spot"`
}

// Offer is a machine that could be had.
type Offer struct {
	Backend         string       `json:"backend"`
	Instance        InstanceType `json:"instance"`
	Region          string       `json:"region"`
	Price           float64      `json:"price"`
	Availability    string       `json:"availability"`
	InstanceRuntime string       `json:"instance_runtime"`
}

// InstanceType is a machine's name and what it has.
type InstanceType struct {
	Name      string    `json:"name"`
	Resources Resources `json:"resources"`
}

// Resources is what a machine has.
type Resources struct {
	CPUs        int    `json:"cpus"`
	MemoryMiB   int64  `json:"memory_mib"`
	GPUs        []GPU  `json:"gpus"`
	Spot        bool   `json:"spot"`
	Disk        Disk   `json:"disk"`
	Description string `json:"description"`
}

// GPU is one graphics processor of a machine.
type GPU struct {
	Name      string `json:"name"`
	MemoryMiB int64  `json:"memory_mib"`
}

// Disk is a machine's disk.
type Disk struct {
	SizeMiB int64 `json:"size_mib"`
}

// Run is a run with its jobs.
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

// Job is a replica with its attempts.
type Job struct {
	JobSpec        JobSpec         `json:"job_spec"`
	JobSubmissions []JobSubmission `json:"job_submissions"`
}

// JobSubmission is one attempt.
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

// JobProvisioningData is where an attempt runs.
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

// Service is where a run is published.
type Service struct {
	URL     string         `json:"url"`
	Model   *ServiceModel  `json:"model"`
	Options map[string]any `json:"options"`
}

// ServiceModel is where a run's model is published.
type ServiceModel struct {
	Name    string `json:"name"`
	BaseURL string `json:"base_url"`
	Type    string `json:"type"`
}

// Requests about runs.
type (
	// RunSpecRequest is the body of get_plan, submit and preview.
	RunSpecRequest struct {
		RunSpec dstack.RunSpec `json:"run_spec"`
	}
	// ListRuns is the body of /api/runs/list.
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
	// RunName is the body of runs/get.
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
	// LogEvent is one piece of output.
	LogEvent struct {
		Timestamp Timestamp `json:"timestamp"`
		LogSource string    `json:"log_source"`
		Message   []byte    `json:"message"` // base64 on the wire
	}
)
