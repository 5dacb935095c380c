package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"dstack/internal/backend/cloud"
)

var (
	cloudUsableDesc = prometheus.NewDesc("dstack_cloud_usable", "1 if the latest check of the account of a cloud found nothing wrong, 0 otherwise.",
		[]string{"backend"}, nil)
	cloudLeftoversDesc = prometheus.NewDesc("dstack_cloud_leftovers", "Objects of dstack in a cloud that nothing needs, found by the latest sweep.",
		[]string{"backend", "kind"}, nil)
)

// cloudCollector has the metrics of the accounts of clouds.
type cloudCollector struct{ d *daemon }

// Describe implements prometheus.Collector.
func (c cloudCollector) Describe(to chan<- *prometheus.Desc) {
	to <- cloudUsableDesc
	to <- cloudLeftoversDesc
}

// Collect implements prometheus.Collector.
func (c cloudCollector) Collect(to chan<- prometheus.Metric) {
	for _, opened := range c.d.opened {
		b, ok := opened.Backend.(*cloud.Backend)
		if !ok {
			continue
		}
		usable := 0.0
		if b.IsUsable() {
			usable = 1
		}
		to <- prometheus.MustNewConstMetric(cloudUsableDesc, prometheus.GaugeValue, usable, b.Key)
		counts := map[string]int{cloud.KindMachine: 0, cloud.KindDisk: 0}
		for _, l := range b.Leftovers() {
			counts[l.Kind]++
		}
		for kind, n := range counts {
			to <- prometheus.MustNewConstMetric(cloudLeftoversDesc, prometheus.GaugeValue, float64(n), b.Key, kind)
		}
	}
}
