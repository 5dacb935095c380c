package spec

import (
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// The most replicas that one service may have.
const mostReplicas = 1000

const replicasHint = "write a number such as 2, or a range such as 1..4"

var replicasShape = anyOf("number or range: `2`, `1..4`, `0..2`",
	numeric("", schema{"minimum": 0, "maximum": mostReplicas}),
	pattern("", "^ *("+wholeNumber+" *|"+"("+wholeNumber+")? *"+rangeMark+" *"+wholeNumber+") *$"),
	blockShape("replicas"),
	shape{"", schema{"type": "array", "minItems": 1, "items": schema{"type": "object"}}}) // groups

var replicaEndShape = anyOf("whole number", numeric("", schema{"minimum": 0, "maximum": mostReplicas}), pattern("", wholeExpression))

var replicasBlock = newBlock("replicas", "`replicas`", "A range of replicas, written as a mapping.", []field[replicaEnds]{
	{Key: nullable("min"), about: "The least.", usual: "0", shape: replicaEndShape,
		read: func(r *reader, n *strictyaml.Node, v *replicaEnds) { v.read(r, n, &v.Min) }},
	{Key: required("max", "max: 4"), about: "The most.", shape: replicaEndShape,
		read: func(r *reader, n *strictyaml.Node, v *replicaEnds) { v.read(r, n, &v.Max) }},
})

// replicaEnds is a range that is being read.
type replicaEnds struct {
	Replicas
	bad bool
}

func (v *replicaEnds) read(r *reader, n *strictyaml.Node, to *int) {
	if f := replicaEnd(n, to); f != nil {
		r.Refuse(n, f)
		v.bad = true
	}
}

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
		single := func(item *strictyaml.Node) bool { return item.Kind != strictyaml.Mapping }
		if len(n.Items) > 0 && !slices.ContainsFunc(n.Items, single) {
			r.groups = true
			r.note(n, "groups of replicas", replicasHint)
			return Replicas{Min: 1, Max: 1}, false
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

func (r *reader) replicaFields(n *strictyaml.Node) (Replicas, bool) {
	var v replicaEnds
	if !replicasBlock.into(r, n, &v) || v.bad || n.Get("max").IsNull() {
		return v.Replicas, false
	}
	if f := v.check(); f != nil {
		r.Refuse(n, f)
		return v.Replicas, false
	}
	return v.Replicas, true
}

// String is `2` or `1..4`.
func (v Replicas) String() string {
	if v.Min == v.Max {
		return strconv.Itoa(v.Min)
	}
	return strconv.Itoa(v.Min) + ".." + strconv.Itoa(v.Max)
}
