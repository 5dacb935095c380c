package api

import (
	"context"
	"encoding/json"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Paths of operations about fleets that 0.18.10 does not have, or has in another
// form.
const (
	PathFleetPreview = ProjectPrefix + "/fleets/preview" // FleetRequest → FleetPreview
	PathFleetApply   = ProjectPrefix + "/fleets/apply"   // FleetRequest → FleetView
	PathFleetViews   = ProjectPrefix + "/fleets/views"   // FleetViewsRequest → []FleetView, by name
	PathFleetDrain   = ProjectPrefix + "/fleets/drain"   // DrainRequest → FleetView
)

// FleetRequest is a fleet to preview or to apply. To apply, the configuration
// contains the keys of the hosts that the server does not know yet.
type FleetRequest struct {
	Configuration spec.Fleet    `json:"configuration"`
	Profile       *spec.Profile `json:"profile,omitempty"` // applies to rented machines where Configuration sets nothing
}

// FleetViewsRequest selects fleets of a project.
type FleetViewsRequest struct {
	Names []string `json:"names,omitempty"` // none: all
}

// DrainRequest drains hosts, or uses them again.
type DrainRequest struct {
	Name         string `json:"name"`
	InstanceNums []int  `json:"instance_nums,omitempty"` // none: all
	Drain        bool   `json:"drain"`
}

// DeleteFleets is the body of fleets/delete.
type DeleteFleets struct {
	Names []string `json:"names"`
}

// DeleteFleetInstances is the body of fleets/delete_instances.
type DeleteFleetInstances struct {
	Name         string `json:"name"`
	InstanceNums []int  `json:"instance_nums"`
}

// FleetPreview is what applying a configuration would do.
type FleetPreview struct {
	Project string       `json:"project"`
	User    string       `json:"user"`
	Name    string       `json:"name"` // empty: one will be generated
	Current *FleetView   `json:"current"`
	Hosts   []HostChange `json:"hosts"`
	Rented  *RentedPlan  `json:"rented,omitempty"` // of a fleet of rented machines
	// IsChanged is set if the configuration differs from the present one. Keys are not compared.
	IsChanged bool `json:"is_changed"`
}

// HostChange is what applying a configuration would do with a host.
type HostChange struct {
	Action    HostAction `json:"action"`
	Name      string     `json:"name"`
	Address   string     `json:"address"` // host:port
	User      string     `json:"user"`
	Jump      string     `json:"jump,omitempty"`     // address of the jump host
	Replicas  []string   `json:"replicas,omitempty"` // that are on a host that is removed
	NeedsKey  bool       `json:"needs_key"`          // the server has no key for it
	NeedsJump bool       `json:"needs_jump_key"`     // the server has no key for its jump host
}

// HostAction is one of the actions below.
type HostAction string

// What applying a configuration does with a host.
const (
	HostAdded   HostAction = "add"
	HostKept    HostAction = "keep"
	HostRemoved HostAction = "remove"
)

// FleetView is a fleet as the command line shows it.
type FleetView struct {
	ID            string          `json:"id"`
	Project       string          `json:"project"`
	Name          string          `json:"name"`
	User          string          `json:"user"` // who applied it last
	CreatedAt     time.Time       `json:"created_at"`
	AppliedAt     time.Time       `json:"applied_at"`
	IsDeleting    bool            `json:"is_deleting"`
	Configuration json.RawMessage `json:"configuration"` // without keys and without values of env
	Hosts         []HostView      `json:"hosts"`
	IsRented      bool            `json:"is_rented"`          // its machines are rented
	Machines      []MachineView   `json:"machines,omitempty"` // the rented ones
	Shortage      *Shortage       `json:"shortage,omitempty"`
}

// HostView is a host as the command line shows it.
type HostView struct {
	ID          string     `json:"id"`
	Num         int        `json:"num"`
	Name        string     `json:"name"`
	Address     string     `json:"address"` // host:port
	User        string     `json:"user"`
	Jump        string     `json:"jump,omitempty"`          // address of the jump host
	JumpUser    string     `json:"jump_user,omitempty"`     //
	HostKey     string     `json:"host_key,omitempty"`      // fingerprint of the pinned key
	JumpHostKey string     `json:"jump_host_key,omitempty"` // that of the jump host
	Status      HostStatus `json:"status"`
	IsDraining  bool       `json:"is_draining"`
	IsLeaving   bool       `json:"is_leaving"`
	Step        string     `json:"step,omitempty"`    // of the check that failed
	Message     string     `json:"message,omitempty"` // why it failed
	Hint        string     `json:"hint,omitempty"`    // what to do
	Since       time.Time  `json:"since"`
	CheckedAt   *time.Time `json:"checked_at"` // nil: not checked yet
	NextCheckAt *time.Time `json:"next_check_at"`
	IsChecked   bool       `json:"is_checked"` // since the fleet was applied last
	Found       HostFound  `json:"found"`
	Replicas    []string   `json:"replicas"` // on the host: web replica 0
	Warnings    []string   `json:"warnings,omitempty"`
}

// HostFound is what the checks of a host found; zero fields are not known.
type HostFound struct {
	System        string    `json:"system,omitempty"`
	DockerVersion string    `json:"docker_version,omitempty"`
	DockerAPI     string    `json:"docker_api,omitempty"`
	DockerAccess  string    `json:"docker_access,omitempty"`
	DriverVersion string    `json:"driver_version,omitempty"`
	CPUs          int       `json:"cpus,omitempty"`
	Arch          string    `json:"arch,omitempty"`
	MemoryMiB     int64     `json:"memory_mib,omitempty"`
	DiskMiB       int64     `json:"disk_mib,omitempty"`
	GPUs          []HostGPU `json:"gpus,omitempty"`
}

// HostGPU is a GPU of a host.
type HostGPU struct {
	ID        string `json:"id"`
	Vendor    string `json:"vendor,omitempty"`
	Name      string `json:"name"`
	MemoryMiB int64  `json:"memory_mib"`
}

// HostStatus is the status of a host in a view.
type HostStatus string

// The statuses of a host.
const (
	HostStatusChecking    HostStatus = "checking"    // for the first time
	HostStatusIdle        HostStatus = "idle"        // ready, without replicas
	HostStatusBusy        HostStatus = "busy"        // ready, with replicas
	HostStatusFailed      HostStatus = "failed"      // a check failed
	HostStatusUnreachable HostStatus = "unreachable" // was ready, and does not answer
	HostStatusDraining    HostStatus = "draining"    // gets no new replicas, and has some
	HostStatusDrained     HostStatus = "drained"     // gets no new replicas, and has none
	HostStatusLeaving     HostStatus = "leaving"     // is being removed from the fleet
)

// fleetBody is a FleetRequest whose configuration distinguishes written values from defaults.
type fleetBody struct {
	Configuration json.RawMessage `json:"configuration"`
	Profile       *spec.Profile   `json:"profile,omitempty"`
}

// PreviewFleet returns what ApplyFleet would do. It changes nothing and sends no keys.
func (c *Client) PreviewFleet(ctx context.Context, project string, f spec.Fleet, profile *spec.Profile) (FleetPreview, error) {
	config, err := f.WithoutKeys().SourceJSON()
	if err != nil {
		return FleetPreview{}, err
	}
	return readWithRetry[FleetPreview](ctx, c, projectPath(PathFleetPreview, project), fleetBody{config, profile}, callTimeout)
}

// ApplyFleet creates a fleet, or replaces the configuration of one. The profile, if there is one, applies to rented machines.
func (c *Client) ApplyFleet(ctx context.Context, project string, f spec.Fleet, profile *spec.Profile) (FleetView, error) {
	config, err := f.SourceJSON()
	if err != nil {
		return FleetView{}, err
	}
	var view FleetView
	err = c.callOnce(ctx, projectPath(PathFleetApply, project), fleetBody{config, profile}, &view)
	return view, err
}

// FleetViews returns fleets of a project by name; without names, all.
func (c *Client) FleetViews(ctx context.Context, project string, names ...string) ([]FleetView, error) {
	return readWithRetry[[]FleetView](ctx, c, projectPath(PathFleetViews, project), FleetViewsRequest{Names: names}, callTimeout)
}

// FleetView returns a fleet; NotFound.
func (c *Client) FleetView(ctx context.Context, project, name string) (FleetView, error) {
	views, err := c.FleetViews(ctx, project, name)
	if err != nil {
		return FleetView{}, err
	}
	if len(views) != 1 {
		return FleetView{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no fleet " + name, Hint: "list them: dstack fleet list"}
	}
	return views[0], nil
}

// DrainFleet drains hosts of a fleet, or uses them again; without numbers, all.
func (c *Client) DrainFleet(ctx context.Context, project string, ask DrainRequest) (FleetView, error) {
	var view FleetView
	err := c.callOnce(ctx, projectPath(PathFleetDrain, project), ask, &view)
	return view, err
}

// DeleteFleet deletes a fleet, or only some hosts of it.
func (c *Client) DeleteFleet(ctx context.Context, project, name string, nums ...int) error {
	if len(nums) > 0 {
		return c.callOnce(ctx, projectPath(ProjectPrefix+"/fleets/delete_instances", project), DeleteFleetInstances{name, nums}, nil)
	}
	return c.callOnce(ctx, projectPath(ProjectPrefix+"/fleets/delete", project), DeleteFleets{[]string{name}}, nil)
}
