package spec

import (
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// The most replicas that one service may have.
const mostReplicas = 1000

const replicasHint = "write a number such as 2, or a range such as 1..4"

// replicas reads `2`, `1..4`, `..4` or {min, max}.
func (r *reader) replicas(n *strictyaml.Node) (Replicas, bool) {
	var v Replicas
	var f *fault
	switch n.Kind {
	case strictyaml.Int, strictyaml.Float:
		f = replicaEnd(n, &v.Min)
		v.Max = v.Min
	case strictyaml.String:
		v, f = parseReplicas(n.Text)
	case strictyaml.Mapping:
		return r.replicaFields(n)
	case strictyaml.Sequence:
		if len(n.Items) > 0 && n.Items[0].Kind == strictyaml.Mapping {
			r.NotYet(n, "groups of replicas", replicasHint)
			return v, false
		}
		f = &fault{Message: "a list is not a number of replicas", Hint: replicasHint}
	case strictyaml.Null, strictyaml.Bool:
		f = &fault{Message: n.Shown() + " is not a number of replicas", Hint: replicasHint}
	}
	if f == nil {
		f = v.check()
	}
	if f != nil {
		r.Refuse(n, f)
	}
	return v, f == nil
}

func replicaEnd(n *strictyaml.Node, to *int) *fault {
	v, ok := strictyaml.IntOf(n)
	if !ok {
		return &fault{Message: n.Shown() + " is not a number of replicas", Hint: replicasHint}
	}
	*to = v
	return nil
}

func parseReplicas(text string) (v Replicas, f *fault) {
	clean := strings.ReplaceAll(text, " ", "")
	from, to, isRange := strings.Cut(clean, "..")
	bad := &fault{Message: "`" + text + "` is not a number of replicas", Hint: replicasHint}
	read := func(s string, into *int) bool {
		var err error
		*into, err = strconv.Atoi(s)
		return err == nil
	}
	switch {
	case !isRange:
		if !read(clean, &v.Min) {
			return v, bad
		}
		v.Max = v.Min
		return v, nil
	case to == "":
		return v, &fault{Message: "the maximum number of replicas is required", Hint: replicasHint}
	case from != "" && !read(from, &v.Min), !read(to, &v.Max):
		return v, bad
	}
	return v, nil
}

func (v Replicas) check() *fault {
	switch {
	case v.Min < 0:
		return &fault{Message: "the minimum number of replicas must be greater than or equal to 0", Hint: replicasHint}
	case v.Max < v.Min:
		return &fault{Message: "the maximum number of replicas must be greater than or equal to the minimum number of replicas", Hint: replicasHint}
	case v.Max > mostReplicas:
		return &fault{Message: "there can be " + strconv.Itoa(mostReplicas) + " replicas at most", Hint: replicasHint}
	}
	return nil
}

func (r *reader) replicaFields(n *strictyaml.Node) (v Replicas, ok bool) {
	ok = true
	end := func(to *int) func(*strictyaml.Node) {
		return func(n *strictyaml.Node) {
			if f := replicaEnd(n, to); f != nil {
				r.Refuse(n, f)
				ok = false
			}
		}
	}
	ok = r.Fields(n, "`replicas`", []strictyaml.Field{
		{Name: "min", Nullable: true, Read: end(&v.Min)},
		{Name: "max", Required: "max: 4", Read: end(&v.Max)},
	}) && ok
	if n.Get("max").IsNull() {
		return v, false
	}
	if f := v.check(); ok && f != nil {
		r.Refuse(n, f)
		ok = false
	}
	return v, ok
}

// String is `2` or `1..4`.
func (v Replicas) String() string {
	if v.Min == v.Max {
		return strconv.Itoa(v.Min)
	}
	return strconv.Itoa(v.Min) + ".." + strconv.Itoa(v.Max)
}

func (r *reader) scaling(n *strictyaml.Node) *Scaling {
	s := &Scaling{ScaleUpDelay: 300, ScaleDownDelay: 600}
	delay := func(to *Seconds) func(*strictyaml.Node) {
		return func(n *strictyaml.Node) {
			if v, ok := r.duration(n); ok {
				*to = v
			}
		}
	}
	r.Fields(n, "`scaling`", []strictyaml.Field{
		{Name: "metric", Required: "metric: rps", Read: func(n *strictyaml.Node) { s.Metric, _ = r.OneOf(n, "rps") }},
		{Name: "target", Required: "target: 10", Read: func(n *strictyaml.Node) {
			s.Target = r.above0(n, "the requests a second that one replica should get, such as 10")
		}},
		{Name: "scale_up_delay", Read: delay(&s.ScaleUpDelay)},
		{Name: "scale_down_delay", Read: delay(&s.ScaleDownDelay)},
		{Name: "window", Later: "load is averaged over the last minute"},
	})
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
		r.At(scaled, "to use `scaling`, `replicas` must be set to a range", "add replicas: 1..4, or remove scaling")
	}
}
