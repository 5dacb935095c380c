package api

import (
	"context"
	"time"
)

// PathCosts is the path of a project's costs.
const PathCosts = ProjectPrefix + "/costs/get"

// GetCosts is the body of costs/get.
type GetCosts struct {
	By    string     `json:"by,omitempty"`    // run, user, backend, fleet; empty: run
	Since *time.Time `json:"since,omitempty"` // null: the beginning of the day (UTC)
}

// Costs is what the rented machines of a project cost.
type Costs struct {
	Project string      `json:"project"`
	By      string      `json:"by"`
	Since   time.Time   `json:"since"`
	Until   time.Time   `json:"until"`
	Cost    float64     `json:"cost"`     // dollars, in that time
	PerHour float64     `json:"per_hour"` // dollars per hour now
	Lines   []CostLine  `json:"lines"`    // the dearest first; they add up to Cost
	Budget  *CostBudget `json:"budget"`   // null: the project has none
}

// CostLine is what one run, user, backend or fleet costs.
type CostLine struct {
	Name     string  `json:"name"`
	Run      string  `json:"run_id,omitempty"` // with by: run; two runs may have had one name
	Cost     float64 `json:"cost"`
	Hours    float64 `json:"hours"` // of machines
	PerHour  float64 `json:"per_hour"`
	Machines int     `json:"machines"` // now
}

// CostBudget is the budget of a project for this day (UTC).
type CostBudget struct {
	PerDay    float64 `json:"per_day"`
	Spent     float64 `json:"spent"`     // today
	Committed float64 `json:"committed"` // what the machines that exist cost until midnight, if they stay
	Left      float64 `json:"left"`      // for further machines, until midnight; may be negative
}

// Costs returns what the rented machines of a project cost.
func (c *Client) Costs(ctx context.Context, project string, in GetCosts) (Costs, error) {
	return readWithRetry[Costs](ctx, c, projectPath(PathCosts, project), in, callTimeout)
}
