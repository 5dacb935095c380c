package spec

import (
	"fmt"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

type fault = strictyaml.Fault

// parseEnd parses one end of a range.
type parseEnd[T int | GB] func(text string) (T, *fault)

// parseRange parses `4`, `4..8`, `4..` or `..8`.
func parseRange[T int | GB](text string, one parseEnd[T]) (Range[T], *fault) {
	clean := strings.ReplaceAll(text, " ", "")
	from, to, isRange := strings.Cut(clean, "..")
	if !isRange {
		v, f := one(clean)
		return Range[T]{Min: &v, Max: &v}, f
	}
	if strings.Contains(to, "..") {
		return Range[T]{}, &fault{Message: fmt.Sprintf("`%s` has more than one `..`", text),
			Hint: "write a range such as 4..8, 4.. or ..8"}
	}
	var r Range[T]
	for _, end := range []struct {
		text string
		to   **T
	}{{from, &r.Min}, {to, &r.Max}} {
		if end.text == "" {
			continue
		}
		v, f := one(end.text)
		if f != nil {
			return Range[T]{}, f
		}
		*end.to = &v
	}
	return r, r.checkOrder()
}

// checkOrder reports a range without ends, or with the ends in the wrong order.
func (r Range[T]) checkOrder() *fault {
	switch {
	case r.Min == nil && r.Max == nil:
		return &fault{Message: "invalid empty range: ..", Hint: "write a range such as 4..8, 4.. or ..8"}
	case r.Min != nil && r.Max != nil && *r.Min > *r.Max:
		return &fault{Message: "invalid range order: " + r.String(),
			Hint: "write the smaller number first: " + Range[T]{Min: r.Max, Max: r.Min}.String()}
	}
	return nil
}

// String returns the shortest spelling: `4`, `4..8`, `4..` or `..8`.
func (r Range[T]) String() string {
	if r.Min != nil && r.Max != nil && *r.Min == *r.Max {
		return formatEnd(r.Min)
	}
	return formatEnd(r.Min) + ".." + formatEnd(r.Max)
}

func formatEnd[T int | GB](v *T) string {
	if v == nil {
		return ""
	}
	switch v := any(*v).(type) {
	case int:
		return strconv.Itoa(v)
	case GB:
		return v.String()
	}
	return ""
}

// Contains reports whether v is in the range, both ends included.
func (r Range[T]) Contains(v T) bool {
	return (r.Min == nil || v >= *r.Min) && (r.Max == nil || v <= *r.Max)
}

// maxCount is the upper limit of all counts. It keeps sums within an int32.
const maxCount = 1_000_000

// parseCount parses a whole number that is not negative.
func parseCount(text string) (int, *fault) {
	v, err := strconv.Atoi(text)
	if err != nil {
		hint := "write a whole number such as 4, or a range such as 4..8"
		if f := strings.TrimRight(strings.ToUpper(text), "GMTBI"); f != strings.ToUpper(text) {
			hint = "this is a count, not a size; " + hint
		}
		return 0, &fault{Message: fmt.Sprintf("`%s` is not a whole number", text), Hint: hint}
	}
	return v, checkCount(text, v)
}

func checkCount(text string, v int) *fault {
	switch {
	case v < 0:
		return &fault{Message: fmt.Sprintf("`%s` is negative", text), Hint: "write 0 or more"}
	case v > maxCount:
		return &fault{Message: fmt.Sprintf("`%d` is too many", v), Hint: fmt.Sprintf("write at most %d", maxCount)}
	}
	return nil
}

// readCountRange reads a range of whole numbers. It is false if the range is
// invalid.
func readCountRange(r *reader, n *strictyaml.Node) (Range[int], bool) {
	return readRange(r, n, parseCount, func(n *strictyaml.Node) (int, *fault) {
		v, ok := strictyaml.ParseInt(n)
		if !ok {
			return 0, &fault{Message: n.Describe() + " is not a whole number", Hint: "write 4, or a range such as 4..8"}
		}
		return v, checkCount(n.Text, v)
	})
}

// readSizeRange reads a range of sizes; nil if it is invalid.
func readSizeRange(r *reader, n *strictyaml.Node) *Range[GB] {
	v, ok := readRange(r, n, parseGB, readSizeNumber)
	if !ok {
		return nil
	}
	return &v
}

// readRange reads `x`, `x..y` or {min, max}, with ends written as number or
// text. It is false if the range is invalid.
func readRange[T int | GB](r *reader, n *strictyaml.Node, text parseEnd[T], number func(*strictyaml.Node) (T, *fault)) (Range[T], bool) {
	v, f := Range[T]{}, (*fault)(nil)
	switch n.Kind {
	case strictyaml.Int, strictyaml.Float:
		var x T
		x, f = number(n)
		v = Range[T]{Min: &x, Max: &x}
	case strictyaml.String:
		v, f = parseRange(n.Text, text)
	case strictyaml.Mapping:
		return readRangeMapping(r, n, text, number)
	case strictyaml.Null, strictyaml.Bool, strictyaml.Sequence:
		f = &fault{Message: n.Describe() + " is not a range",
			Hint: "write a value such as 4, or a range such as 4..8, 4.. or ..8"}
	}
	if f != nil {
		r.AddFault(n, f)
	}
	return v, f == nil
}

// readRangeMapping reads a range written as {min, max}.
func readRangeMapping[T int | GB](r *reader, n *strictyaml.Node, text parseEnd[T], number func(*strictyaml.Node) (T, *fault)) (Range[T], bool) {
	var v Range[T]
	good := true
	end := func(to **T) func(*strictyaml.Node) {
		return func(n *strictyaml.Node) {
			x, f := T(0), (*fault)(nil)
			switch n.Kind {
			case strictyaml.Int, strictyaml.Float:
				x, f = number(n)
			case strictyaml.String:
				x, f = text(n.Text)
			case strictyaml.Null, strictyaml.Bool, strictyaml.Mapping, strictyaml.Sequence:
				f = &fault{Message: n.Describe() + " is not a valid end of a range",
					Hint: "write one value, or remove the key for no limit"}
			}
			if f != nil {
				r.AddFault(n, f)
				good = false
				return
			}
			*to = &x
		}
	}
	good = r.ReadFields(n, "a range", []strictyaml.Field{
		{Name: "min", Nullable: true, Read: end(&v.Min)},
		{Name: "max", Nullable: true, Read: end(&v.Max)},
	}) && good
	if f := v.checkOrder(); good && f != nil {
		r.AddFault(n, f)
		good = false
	}
	return v, good
}
