package server

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/cost"
	"dstack/internal/dstack"
)

// getCosts returns what the rented machines of a project cost, and its budget.
func (s *Server) getCosts(c *apiCall, in api.GetCosts) (api.Costs, error) {
	by := cost.Group(cmp.Or(in.By, string(cost.ByRun)))
	if !slices.Contains(cost.Groups, by) {
		var known []string
		for _, group := range cost.Groups {
			known = append(known, string(group))
		}
		return api.Costs{}, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("costs are not known by %s", quote(in.By)),
			Hint: "use one of: " + strings.Join(known, ", ")}
	}
	until := now()
	since := cost.Midnight(until)
	if in.Since != nil {
		since = in.Since.UTC()
	}
	rentals, err := s.store.Rentals(c.ctx, since, c.project.ID)
	if err != nil {
		return api.Costs{}, err
	}
	costs := api.Costs{Project: c.project.Name, By: string(by), Since: since, Until: until.UTC(), Lines: []api.CostLine{}}
	for _, line := range cost.Sum(rentals, by, since, until) {
		costs.Cost += line.Cost
		costs.PerHour += line.Rate
		costs.Lines = append(costs.Lines, api.CostLine{Name: line.Name, Run: string(line.Run), Cost: line.Cost, Hours: line.Hours, PerHour: line.Rate, Machines: line.Machines})
	}
	budget, has, err := s.store.Budget(c.ctx, c.project.ID, until)
	if err == nil && has {
		costs.Budget = &api.CostBudget{PerDay: budget.PerDay, Spent: budget.Spent, Committed: budget.Committed, Left: budget.Left()}
	}
	return costs, err
}
