package server

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// readBudget reads how many dollars the rented machines of a project may cost on a day.
func (r *configReader) readBudget(n *strictyaml.Node) (perDay *float64) {
	r.ReadFields(n, "`budget`", []strictyaml.Field{
		{Name: "per_day", Required: "per_day: 50", Read: func(n *strictyaml.Node) {
			text, ok := r.ReadText(n)
			if !ok {
				return
			}
			dollars, err := strconv.ParseFloat(text, 64)
			if err != nil || math.IsNaN(dollars) || math.IsInf(dollars, 0) || dollars < 0 {
				r.Add(n, fmt.Sprintf("%s is not an amount of dollars", quote(text)), "write a number, such as per_day: 50")
				return
			}
			perDay = &dollars
		}},
	})
	return perDay
}

// Budgets returns how many dollars projects may spend on rented machines on a day, by their names in lower case.
func (c Config) Budgets() map[string]float64 {
	budgets := map[string]float64{}
	for _, p := range c.Projects {
		if p.PerDay != nil {
			budgets[strings.ToLower(p.Name)] = *p.PerDay
		}
	}
	return budgets
}
