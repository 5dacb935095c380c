package gateway

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"dstack/internal/decide/route"
)

// Collector returns the metrics for Prometheus: what every run does at this
// moment, and what requests to models took.
func (g *Gateway) Collector() prometheus.Collector { return collector{g} }

type collector struct{ g *Gateway }

var (
	runLabels    = []string{"project", "run"}
	inFlightDesc = prometheus.NewDesc("dstack_requests_in_flight", "Requests that a replica is answering.", runLabels, nil)
	heldDesc     = prometheus.NewDesc("dstack_requests_held", "Requests that wait for a replica.", runLabels, nil)
	acceptedDesc = prometheus.NewDesc("dstack_requests_total", "Requests given to a replica.", runLabels, nil)
	limitedDesc  = prometheus.NewDesc("dstack_requests_limited_total",
		"Requests refused because their caller sent too many.", runLabels, nil)
	readyDesc = prometheus.NewDesc("dstack_replicas_ready", "Replicas that take requests.", runLabels, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inFlightDesc, heldDesc, acceptedDesc, limitedDesc, readyDesc} {
		to <- d
	}
	for _, v := range c.g.collectors() {
		v.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	if v := c.g.loads.view.Load(); v != nil {
		loads := c.g.Load()
		v.Runs(func(r *route.Route) {
			load := loads[r.Run]
			gauge := func(d *prometheus.Desc, value int) {
				to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), r.Project, r.Name)
			}
			gauge(inFlightDesc, load.InFlight)
			gauge(heldDesc, load.Held)
			gauge(readyDesc, len(r.Ready))
			to <- prometheus.MustNewConstMetric(acceptedDesc, prometheus.CounterValue, float64(load.Accepted), r.Project, r.Name)
			to <- prometheus.MustNewConstMetric(limitedDesc, prometheus.CounterValue, float64(load.Limited), r.Project, r.Name)
		})
	}
	for _, v := range c.g.collectors() {
		v.Collect(to)
	}
}

// collectors returns what counts for Prometheus by itself.
func (g *Gateway) collectors() []prometheus.Collector {
	return slices.Concat(g.metrics.collectors(), g.keys.collectors())
}
