package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dstack/internal/decide/cost"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// costReadTimeout limits how long a scrape waits for the database.
const costReadTimeout = 5 * time.Second

var (
	costLabels   = []string{"project", "backend"}
	dollarsDesc  = prometheus.NewDesc("dstack_rental_dollars_total", "What rented machines have cost since this server started.", costLabels, nil)
	perHourDesc  = prometheus.NewDesc("dstack_rental_dollars_per_hour", "What rented machines cost per hour now.", costLabels, nil)
	machinesDesc = prometheus.NewDesc("dstack_rented_machines", "Rented machines that cost money now.", costLabels, nil)
)

// costCollector reports what rented machines cost. Every server of an installation reports the same.
type costCollector struct {
	store *store.Store
	log   *slog.Logger
	since time.Time
}

func newCostCollector(s *store.Store, log *slog.Logger) prometheus.Collector {
	return costCollector{s, log, time.Now()}
}

// Describe implements prometheus.Collector.
func (c costCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{dollarsDesc, perHourDesc, machinesDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c costCollector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), costReadTimeout)
	defer cancel()
	rentals, err := c.store.Rentals(ctx, c.since)
	if err != nil {
		c.log.Warn("the costs of rented machines are missing in the metrics", "err", err)
		return
	}
	now, byProject := time.Now(), map[string][]dstack.Rental{}
	for _, r := range rentals {
		byProject[r.ProjectName] = append(byProject[r.ProjectName], r)
	}
	for project, rentals := range byProject {
		for _, line := range cost.Sum(rentals, cost.ByBackend, c.since, now) {
			to <- prometheus.MustNewConstMetric(dollarsDesc, prometheus.CounterValue, line.Cost, project, line.Name)
			to <- prometheus.MustNewConstMetric(perHourDesc, prometheus.GaugeValue, line.Rate, project, line.Name)
			to <- prometheus.MustNewConstMetric(machinesDesc, prometheus.GaugeValue, float64(line.Machines), project, line.Name)
		}
	}
}

// whyNoRent returns what refuses machines to rent that the budget of a project does not allow.
func (d *daemon) whyNoRent(ctx context.Context, project dstack.ProjectID) (func(price float64) (why, help string), error) {
	budget, has, err := d.store.Budget(ctx, project, time.Now())
	if err != nil || !has {
		return nil, err
	}
	return func(price float64) (why, help string) {
		if why = budget.Refuse(price); why != "" {
			help = budget.Advice(price)
		}
		return why, help
	}, nil
}
