// Package v022 is the dialect of dstack 0.19 to 0.22: the JSON that their published clients send and expect. It decodes
// requests into those of package api, and builds answers from what handlers return. The models of these clients forbid
// fields that they do not know, at least in earlier versions, so that answers have none of those that only 0.18.10 has.
package v022

import (
	"encoding/json"
	"path"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// RunSpec is a run in a request.
type RunSpec struct {
	RunName           *string         `json:"run_name"`
	RepoID            *string         `json:"repo_id"` // nil: VirtualRepo
	RepoData          *dstack.JSON    `json:"repo_data"`
	RepoCodeHash      *string         `json:"repo_code_hash"`
	RepoDir           *string         `json:"repo_dir"`
	FileArchives      []FileArchive   `json:"file_archives,omitempty"`
	WorkingDir        *string         `json:"working_dir"` // ignored, as in 0.22: the configuration has it
	ConfigurationPath *string         `json:"configuration_path"`
	Configuration     Configuration   `json:"configuration"`
	Profile           *RequestProfile `json:"profile"`
	SSHKeyPub         *string         `json:"ssh_key_pub"` // nil: the server's key of the user
}

// VirtualRepo is the ID of the repo of a run without code, which clients register before.
const VirtualRepo = "none"

// virtualRepoData is the data of a run without code.
var virtualRepoData = json.RawMessage(`{"repo_type":"virtual"}`)

// decode returns the run in the form that all dialects share.
func (r RunSpec) decode() (dstack.RunSpec, error) {
	if r.Configuration.refusal != nil {
		return dstack.RunSpec{}, r.Configuration.refusal
	}
	if err := r.checkRepoDir(); err != nil {
		return dstack.RunSpec{}, err
	}
	rs := dstack.RunSpec{RunName: r.RunName, RepoID: valueOr(r.RepoID, VirtualRepo), RepoData: valueOr(r.RepoData, virtualRepoData),
		RepoCodeHash: r.RepoCodeHash, ConfigurationPath: valueOr(r.ConfigurationPath, ""),
		Configuration: r.Configuration.Service, SSHKeyPub: valueOr(r.SSHKeyPub, "")}
	for _, file := range r.FileArchives {
		rs.FileArchives = append(rs.FileArchives, dstack.FileArchive{ID: file.ID, Path: file.Path})
	}
	rs.Profile.Name = defaultProfileName
	if r.Profile != nil {
		rs.Profile = r.Profile.Profile
	}
	return rs, nil
}

// checkRepoDir refuses a folder for the code that is not that of the configuration: nothing would use it. Later clients send
// the path of `repos` again.
func (r RunSpec) checkRepoDir() error {
	dir := valueOr(r.RepoDir, "")
	repos := r.Configuration.Service.Repos
	if dir == "" || len(repos) > 0 && dir == repos[0].Path || len(repos) == 0 && (dir == "." || path.Clean(dir) == dstack.CodeFolder) {
		return nil
	}
	return &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: repo_dir", Hint: "name the repository and its path in `repos`"}
}

// FileArchive is an uploaded file or folder of a run.
type FileArchive struct {
	ID   string `json:"id"`
	Path string `json:"path"`
}

func valueOr[T any](v *T, otherwise T) T {
	if v == nil {
		return otherwise
	}
	return *v
}

// ListRuns is the body of /api/runs/list.
type ListRuns struct {
	api.ListRuns
	IncludeJobs         *bool `json:"include_jobs"`
	JobSubmissionsLimit *int  `json:"job_submissions_limit" minimum:"0" maximum:"10"`
}

// DecodeListRuns returns the query.
func DecodeListRuns(in ListRuns) (api.ListRuns, error) { return in.ListRuns, nil }

// GetRun is the body of runs/get: one of both.
type GetRun struct {
	RunName *string       `json:"run_name"`
	ID      *dstack.RunID `json:"id"`
}

// GetPlan is the body of runs/get_plan.
type GetPlan struct {
	RunSpec              RunSpec `json:"run_spec"`
	MaxOffers            *int    `json:"max_offers" minimum:"1" maximum:"10000"`
	ReverseOffers        bool    `json:"reverse_offers,omitempty"`
	FullOffers           bool    `json:"full_offers,omitempty"`           // always so: a machine is offered as a whole
	UnallocatedResources bool    `json:"unallocated_resources,omitempty"` // offers are always those that are free
	ForOffersOnly        bool    `json:"for_offers_only,omitempty"`
}

// isForOffers reports whether a request is of `dstack offer`. Clients before 0.21 send only a task with a command that does
// nothing.
func (in GetPlan) isForOffers() bool {
	return in.ForOffersOnly || in.RunSpec.Configuration.refusal != nil && string(in.RunSpec.Configuration.fields["commands"]) == `[":"]`
}

// Plan is what a client asks to plan: a run, or only the machines for a configuration that need not be runnable.
type Plan struct {
	RunSpec dstack.RunSpec
	Offers  *api.GetOffers // nil: the run
}

// DecodeGetPlan returns what to plan.
func DecodeGetPlan(in GetPlan) (Plan, error) {
	if in.isForOffers() {
		offers, err := in.RunSpec.decodeOffers()
		return Plan{Offers: &offers}, err
	}
	rs, err := in.RunSpec.decode()
	return Plan{RunSpec: rs}, err
}

// ApplyPlan is the body of runs/apply.
type ApplyPlan struct {
	Plan  PlanToApply `json:"plan"`
	Force bool        `json:"force,omitempty"`
}

// PlanToApply is a run, and the run that its user saw under this name.
type PlanToApply struct {
	RunSpec         RunSpec      `json:"run_spec"`
	CurrentResource *dstack.JSON `json:"current_resource"` // a Run
}

// Application is a run to apply. The run with its name, if one is unfinished, must be the one that the user saw.
type Application struct {
	RunSpec  dstack.RunSpec
	Seen     dstack.RunID // empty: none
	Revision int          // of the run that the user saw
	Force    bool         // it may be any run
}

// DecodeApplyPlan returns the run to apply.
func DecodeApplyPlan(in ApplyPlan) (Application, error) {
	rs, err := in.Plan.RunSpec.decode()
	if err != nil {
		return Application{}, err
	}
	var seen struct {
		ID       dstack.RunID `json:"id"`
		Revision int          `json:"deployment_num"`
	}
	if in.Plan.CurrentResource != nil {
		if err := json.Unmarshal(*in.Plan.CurrentResource, &seen); err != nil {
			return Application{}, &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "current_resource is not a run",
				Hint: "send the run that runs/get_plan answered"}
		}
	}
	return Application{RunSpec: rs, Seen: seen.ID, Revision: seen.Revision, Force: in.Force}, nil
}

// PollLogs is the body of logs/poll. NextToken continues after the lines of an earlier answer.
type PollLogs struct {
	api.PollLogs
	NextToken *string `json:"next_token"`
}

// DecodePollLogs returns the query.
func DecodePollLogs(in PollLogs) (api.PollLogs, error) {
	if in.NextToken == nil {
		return in.PollLogs, nil
	}
	after, err := time.Parse(time.RFC3339Nano, *in.NextToken)
	if err != nil {
		return in.PollLogs, &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "next_token is not one of this server",
			Hint: "send the one that the last answer has, with the same request"}
	}
	if in.Descending {
		in.EndTime = &after
	} else {
		in.StartTime = &after
	}
	return in.PollLogs, nil
}
