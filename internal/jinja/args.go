package jinja

import "slices"

// compileArgs compiles the arguments of a call.
func (c *compiler) compileArgs(a callArgs, s scope) func(m *machine, f *frame) args {
	if len(a.args)+len(a.kwargs) == 0 && a.star == nil && a.starStar == nil {
		return func(*machine, *frame) args { return args{} }
	}
	if shared, ok := constantArgs(a); ok {
		return func(*machine, *frame) args { return shared }
	}
	pos := c.compileExprs(a.args, s)
	if len(a.kwargs) == 0 && a.star == nil && a.starStar == nil {
		return func(m *machine, f *frame) args { return args{pos: m.evalAll(pos, f)} }
	}
	values := make([]expr, len(a.kwargs))
	for i, k := range a.kwargs {
		values[i] = c.compileExpr(k.value, s)
	}
	var star, starStar expr
	if a.star != nil {
		star = c.compileExpr(a.star, s)
	}
	if a.starStar != nil {
		starStar = c.compileExpr(a.starStar, s)
	}
	return func(m *machine, f *frame) args {
		got := args{pos: m.evalAll(pos, f)}
		if len(values) > 0 {
			got.kw = make([]keyword, len(values))
			for i, value := range values {
				got.kw[i] = keyword{a.kwargs[i].name, value(m, f)}
			}
		}
		if star != nil {
			got.addPositional(m, star(m, f))
		}
		if starStar != nil {
			got.addKeywords(starStar(m, f))
		}
		return got
	}
}

// constantArgs returns the arguments when all of them are constant. One value
// serves every render, so a callee must not change it.
func constantArgs(a callArgs) (shared args, ok bool) {
	if a.star != nil || a.starStar != nil {
		return args{}, false
	}
	if shared.pos, ok = constantValues(a.args); !ok {
		return args{}, false
	}
	for _, k := range a.kwargs {
		v, ok := constantValue(k.value)
		if !ok {
			return args{}, false
		}
		shared.kw = append(shared.kw, keyword{k.name, v})
	}
	return shared, true
}

func (a *args) addPositional(m *machine, v Value) {
	if iteratorOf(v) == nil {
		failType("argument after * must be an iterable, not %s", typeName(v))
	}
	a.pos = append(slices.Clip(a.pos), m.sharedItems(v)...)
}

func (a *args) addKeywords(v Value) {
	d, is := v.(*Dict)
	if !is {
		failType("argument after ** must be a mapping, not %s", typeName(v))
	}
	for i, key := range d.keys {
		name, is := asText(key)
		if !is {
			failType("keywords must be strings")
		}
		for _, k := range a.kw {
			if k.name == name {
				failType("got multiple values for keyword argument '%s'", name)
			}
		}
		a.kw = append(a.kw, keyword{name, d.values[i]})
	}
}

// bindNames returns the arguments in the order of the parameter names, nil for
// an argument that is missing. The first required parameters must be present.
func (a args) bindNames(fn string, required int, names ...string) []Value {
	if len(a.pos) > len(names) {
		failType("%s() takes %d positional arguments but %d were given", fn, len(names), len(a.pos))
	}
	got := make([]Value, len(names))
	copy(got, a.pos)
next:
	for _, k := range a.kw {
		for i, name := range names {
			if name != k.name {
				continue
			}
			if got[i] != nil {
				failType("%s() got multiple values for argument '%s'", fn, name)
			}
			got[i] = k.value
			continue next
		}
		failType("%s() got an unexpected keyword argument '%s'", fn, k.name)
	}
	for i := range required {
		if got[i] == nil {
			failType("%s() missing 1 required positional argument: '%s'", fn, names[i])
		}
	}
	return got
}

// requirePositional returns the arguments of a function that takes no
// keywords.
func (a args) requirePositional(fn string, minArgs, maxArgs int) []Value {
	a.refuseKeywords(fn)
	if len(a.pos) < minArgs || len(a.pos) > maxArgs {
		failType("%s() takes from %d to %d arguments (%d given)", fn, minArgs, maxArgs, len(a.pos))
	}
	return a.pos
}

func (a args) refuseKeywords(fn string) {
	if len(a.kw) > 0 {
		failType("%s() takes no keyword arguments", fn)
	}
}
