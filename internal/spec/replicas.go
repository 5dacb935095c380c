package spec

import (
	"slices"
	"strconv"
	"strings"

	"dstack/internal/human"
	"dstack/internal/strictyaml"
)

const maxReplicas = 1000

const replicasHint = "write a number such as 2, or a range such as 1..4"

var (
	groupReplicasShape = anyOfShape("number or range: `2`, `1..4`, `0..2`",
		integerShape("", schema{"minimum": 0, "maximum": maxReplicas}),
		patternShape("", "^ *("+wholeNumber+" *|"+"("+wholeNumber+")? *"+rangeMark+" *"+wholeNumber+") *$"),
		mappingShape("replicas"))
	replicasShape = anyOfShape(groupReplicasShape.words, groupReplicasShape, groupsShape.withMinItems(1))
	groupsShape   = listShape("list of {groups}", mappingShape("groups"))
)

var replicaEndShape = anyOfShape("whole number", integerShape("", schema{"minimum": 0, "maximum": maxReplicas}),
	patternShape("", wholeExpression))

var replicasMapping = newMapping("replicas", "`replicas`", "A range of replicas, written as a mapping.",
	[]field[replicaRange]{
		{Key: nullableKey("min"), description: "The minimum number of replicas.", defaultText: "0",
			shape: replicaEndShape,
			read:  func(r *reader, n *strictyaml.Node, v *replicaRange) { v.readEnd(r, n, &v.Min) }},
		{Key: requiredKey("max", "max: 4"), description: "The maximum number of replicas.", shape: replicaEndShape,
			read: func(r *reader, n *strictyaml.Node, v *replicaRange) { v.readEnd(r, n, &v.Max) }},
	})

// replicaRange is a range of replicas while it is being read.
type replicaRange struct {
	Replicas
	invalid bool
}

func (v *replicaRange) readEnd(r *reader, n *strictyaml.Node, to *int) {
	if f := readReplicaCount(n, to); f != nil {
		r.AddFault(n, f)
		v.invalid = true
	}
}

// isGroupList reports whether the value of `replicas` is a list of groups, as in
// versions before 0.21.3.
func isGroupList(n *strictyaml.Node) bool {
	single := func(item *strictyaml.Node) bool { return item.Kind != strictyaml.Mapping }
	return n != nil && n.Kind == strictyaml.Sequence && len(n.Items) > 0 && !slices.ContainsFunc(n.Items, single)
}

// readReplicas reads `2`, `1..4`, `..4` or {min, max}. It is false if the value
// is invalid.
func (r *reader) readReplicas(n *strictyaml.Node) (Replicas, bool) {
	var v Replicas
	var f *fault
	switch n.Kind {
	case strictyaml.Int, strictyaml.Float:
		f = readReplicaCount(n, &v.Min)
		v.Max = v.Min
	case strictyaml.String:
		v, f = parseReplicas(n.Text)
	case strictyaml.Mapping:
		return r.readReplicaRange(n)
	case strictyaml.Sequence:
		f = &fault{Message: "a list is not a number of replicas", Hint: replicasHint}
	case strictyaml.Null, strictyaml.Bool:
		f = &fault{Message: n.Describe() + " is not a number of replicas", Hint: replicasHint}
	}
	if f == nil {
		f = v.checkBounds()
	}
	if f != nil {
		r.AddFault(n, f)
	}
	return v, f == nil
}

func readReplicaCount(n *strictyaml.Node, to *int) *fault {
	v, ok := strictyaml.ParseInt(n)
	if !ok {
		return &fault{Message: n.Describe() + " is not a number of replicas", Hint: replicasHint}
	}
	*to = v
	return nil
}

// parseReplicas parses `2`, `1..4` or `..4`.
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
		return v, &fault{Message: "the range has no maximum", Hint: replicasHint}
	case from != "" && !read(from, &v.Min), !read(to, &v.Max):
		return v, bad
	}
	return v, nil
}

// checkBounds reports a range that is negative, in the wrong order, or too
// large.
func (v Replicas) checkBounds() *fault {
	switch {
	case v.Min < 0:
		return &fault{Message: "the number of replicas cannot be negative", Hint: replicasHint}
	case v.Max < v.Min:
		return &fault{Message: "the maximum number of replicas is below the minimum", Hint: replicasHint}
	case v.Max > maxReplicas:
		return &fault{Message: "a service can have at most " + strconv.Itoa(maxReplicas) + " replicas",
			Hint: replicasHint}
	}
	return nil
}

func (r *reader) readReplicaRange(n *strictyaml.Node) (Replicas, bool) {
	var v replicaRange
	if !replicasMapping.read(r, n, &v) || v.invalid || n.Get("max").IsNull() {
		return v.Replicas, false
	}
	if f := v.checkBounds(); f != nil {
		r.AddFault(n, f)
		return v.Replicas, false
	}
	return v.Replicas, true
}

// describe returns `2 replicas` or `1..4 replicas`.
func (v Replicas) describe() string {
	if v.Min == v.Max {
		return human.Count(v.Min, "replica")
	}
	return v.String() + " replicas"
}

// String returns `2` or `1..4`.
func (v Replicas) String() string {
	if v.Min == v.Max {
		return strconv.Itoa(v.Min)
	}
	return strconv.Itoa(v.Min) + ".." + strconv.Itoa(v.Max)
}
