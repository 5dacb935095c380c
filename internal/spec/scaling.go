package spec

import (
	"dstack/internal/strictyaml"
)

// The metrics for Scaling.
const (
	MetricRPS         = "rps"         // requests a second
	MetricConcurrency = "concurrency" // concurrent requests; dstack 0.18.10 does not have it
)

// DefaultWindow is the averaging window if the configuration names none.
const DefaultWindow = Seconds(60)

// EffectiveWindow returns the averaging window.
func (s Scaling) EffectiveWindow() Seconds {
	if s.Window == nil || *s.Window == 0 {
		return DefaultWindow
	}
	return *s.Window
}

// maxWindow is the upper limit of the averaging window.
const maxWindow = Seconds(3600)

var scalingMapping = newMapping("scaling", "`scaling`", "The rule by which the number of replicas follows the load.",
	[]field[Scaling]{
		{Key: requiredKey("metric", "metric: rps"),
			description: "The measured load: requests per second, or concurrent requests.",
			shape:       oneOfShape(MetricRPS, MetricConcurrency),
			read: func(r *reader, n *strictyaml.Node, s *Scaling) {
				s.Metric, _ = r.ReadOneOf(n, MetricRPS, MetricConcurrency)
			}},
		{Key: requiredKey("target", "target: 10"), description: "The value of the metric that one replica should get.",
			examples: []string{"10", "0.5"},
			shape:    aboveZeroShape,
			read: func(r *reader, n *strictyaml.Node, s *Scaling) {
				s.Target = r.readPositive(n, "the requests that one replica should get, such as 10")
			}},
		{Key: plainKey("scale_up_delay"), description: "The time after the last change before replicas are added.",
			defaultText: "5m", shape: durationShape, examples: []string{"1m"},
			read: func(r *reader, n *strictyaml.Node, s *Scaling) { r.readDurationInto(n, &s.ScaleUpDelay) }},
		{Key: plainKey("scale_down_delay"), description: "The time after the last change before replicas are removed.",
			defaultText: "10m", shape: durationShape, examples: []string{"30m"},
			read: func(r *reader, n *strictyaml.Node, s *Scaling) { r.readDurationInto(n, &s.ScaleDownDelay) }},
		{Key: nullableKey("window"), description: "The time over which the metric is averaged.", defaultText: "1m",
			shape: durationShapeWithin(1, maxWindow), examples: []string{"30s"},
			read: func(r *reader, n *strictyaml.Node, s *Scaling) {
				if v, ok := r.readDurationWithin(n, 1, maxWindow); ok {
					s.Window = &v
				}
			}},
	})

func (r *reader) readScaling(n *strictyaml.Node) *Scaling {
	s := &Scaling{ScaleUpDelay: 300, ScaleDownDelay: 600}
	scalingMapping.read(r, n, s)
	return s
}

// checkScaling checks that scaling is set exactly if replicas is a range.
// Fields that were already reported are skipped.
func (r *reader) checkScaling(root *strictyaml.Node, s *Service) {
	if r.IsMisspelled("replicas") || r.IsMisspelled("scaling") {
		return // already reported
	}
	r.checkScalingAt(root, root.Get("replicas"), s)
}

// checkScalingAt is checkScaling for a service or a group. n is its number of
// replicas.
func (r *reader) checkScalingAt(root, n *strictyaml.Node, s *Service) {
	scaled := root.Get("scaling")
	switch {
	case s.Replicas.Min != s.Replicas.Max && scaled.IsNull():
		r.Add(n, "`scaling` is required when `replicas` is a range",
			"add scaling: {metric: rps, target: 10}, or write one number of replicas")
	case s.Replicas.Min == s.Replicas.Max && !scaled.IsNull():
		r.Add(scaled, "`scaling` requires `replicas` to be a range", "write replicas: 1..4, or remove scaling")
	}
}
