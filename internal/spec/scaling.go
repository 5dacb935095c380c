package spec

import (
	"dstack/internal/strictyaml"
)

// What a Scaling can measure.
const (
	MetricRPS         = "rps"         // requests a second
	MetricConcurrency = "concurrency" // requests at once; ours
)

// The longest time over which a load is averaged.
const mostWindow = Seconds(3600)

var scalingBlock = newBlock("scaling", "`scaling`", "How the number of replicas follows the load.", []field[Scaling]{
	{Key: required("metric", "metric: rps"), about: "What is measured: requests a second, or requests at once.", shape: oneOf(MetricRPS, MetricConcurrency),
		read: func(r *reader, n *strictyaml.Node, s *Scaling) {
			s.Metric, _ = r.OneOf(n, MetricRPS, MetricConcurrency)
		}},
	{Key: required("target", "target: 10"), about: "How much of it one replica should get.", examples: []string{"10", "0.5"},
		shape: aboveZeroShape,
		read: func(r *reader, n *strictyaml.Node, s *Scaling) {
			s.Target = r.above0(n, "the requests that one replica should get, such as 10")
		}},
	{Key: plain("scale_up_delay"), about: "How long after the last change replicas may be added.", usual: "5m", shape: durationShape, examples: []string{"1m"},
		read: func(r *reader, n *strictyaml.Node, s *Scaling) { r.seconds(n, &s.ScaleUpDelay) }},
	{Key: plain("scale_down_delay"), about: "How long after the last change replicas may be taken away.", usual: "10m", shape: durationShape, examples: []string{"30m"},
		read: func(r *reader, n *strictyaml.Node, s *Scaling) { r.seconds(n, &s.ScaleDownDelay) }},
	{Key: nullable("window"), about: "Over which time the metric is averaged.", usual: "1m", shape: durationWithin(1, mostWindow), examples: []string{"30s"},
		read: func(r *reader, n *strictyaml.Node, s *Scaling) {
			if v, ok := r.durationWithin(n, 1, mostWindow); ok {
				s.Window = &v
			}
		}},
})

func (r *reader) scaling(n *strictyaml.Node) *Scaling {
	s := &Scaling{ScaleUpDelay: 300, ScaleDownDelay: 600}
	scalingBlock.into(r, n, s)
	return s
}

// checkScaling holds replicas and scaling against each other; only where
// both could be read.
func (r *reader) checkScaling(root *strictyaml.Node, s *Service) {
	scaled, n := root.Get("scaling"), root.Get("replicas")
	switch {
	case r.Meant("replicas"), r.Meant("scaling"), n != nil && n.IsNull(): // reported already
	case s.Replicas.Min != s.Replicas.Max && scaled.IsNull():
		r.At(n, "when you set `replicas` to a range, ensure to specify `scaling`", "add scaling: {metric: rps, target: 10}, or write one number of replicas")
	case s.Replicas.Min == s.Replicas.Max && !scaled.IsNull():
		r.At(scaled, "to use `scaling`, `replicas` must be set to a range", "write replicas: 1..4, or remove scaling")
	}
}
