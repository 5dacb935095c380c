package jinja

import "slices"

// arguments compiles the arguments of a call.
func (c *compiler) arguments(a callArgs, s scope) func(m *machine, f *frame) args {
	if len(a.args)+len(a.kwargs) == 0 && a.star == nil && a.starStar == nil {
		return func(*machine, *frame) args { return args{} }
	}
	if shared, ok := constantArgs(a); ok {
		return func(*machine, *frame) args { return shared }
	}
	pos := c.exprs(a.args, s)
	if len(a.kwargs) == 0 && a.star == nil && a.starStar == nil {
		return func(m *machine, f *frame) args { return args{pos: m.values(pos, f)} }
	}
	values := make([]expr, len(a.kwargs))
	for i, k := range a.kwargs {
		values[i] = c.expr(k.value, s)
	}
	var star, starStar expr
	if a.star != nil {
		star = c.expr(a.star, s)
	}
	if a.starStar != nil {
		starStar = c.expr(a.starStar, s)
	}
	return func(m *machine, f *frame) args {
		got := args{pos: m.values(pos, f)}
		if len(values) > 0 {
			got.kw = make([]keyword, len(values))
			for i, value := range values {
				got.kw[i] = keyword{a.kwargs[i].name, value(m, f)}
			}
		}
		if star != nil {
			got.spread(m, star(m, f))
		}
		if starStar != nil {
			got.spreadNamed(starStar(m, f))
		}
		return got
	}
}

// constantArgs gives arguments that never change; a callee keeps them as they
// are.
func constantArgs(a callArgs) (shared args, ok bool) {
	if a.star != nil || a.starStar != nil {
		return args{}, false
	}
	if shared.pos, ok = constants(a.args); !ok {
		return args{}, false
	}
	for _, k := range a.kwargs {
		v, ok := constant(k.value)
		if !ok {
			return args{}, false
		}
		shared.kw = append(shared.kw, keyword{k.name, v})
	}
	return shared, true
}

func (a *args) spread(m *machine, v Value) {
	if iteratorOf(v) == nil {
		typeError("argument after * must be an iterable, not %s", typeName(v))
	}
	a.pos = append(slices.Clip(a.pos), m.collect(v)...)
}

func (a *args) spreadNamed(v Value) {
	d, is := v.(*Dict)
	if !is {
		typeError("argument after ** must be a mapping, not %s", typeName(v))
	}
	for i, key := range d.keys {
		name, is := text(key)
		if !is {
			typeError("keywords must be strings")
		}
		for _, k := range a.kw {
			if k.name == name {
				typeError("got multiple values for keyword argument '%s'", name)
			}
		}
		a.kw = append(a.kw, keyword{name, d.values[i]})
	}
}

// bind gives the arguments of a function in the order of its parameters, nil
// for those left out; the first ones are required.
func (a args) bind(fn string, required int, names ...string) []Value {
	if len(a.pos) > len(names) {
		typeError("%s() takes %d positional arguments but %d were given", fn, len(names), len(a.pos))
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
				typeError("%s() got multiple values for argument '%s'", fn, name)
			}
			got[i] = k.value
			continue next
		}
		typeError("%s() got an unexpected keyword argument '%s'", fn, k.name)
	}
	for i := range required {
		if got[i] == nil {
			typeError("%s() missing 1 required positional argument: '%s'", fn, names[i])
		}
	}
	return got
}

// positional is bind for functions that take no keywords.
func (a args) positional(fn string, least, most int) []Value {
	a.noKeywords(fn)
	if len(a.pos) < least || len(a.pos) > most {
		typeError("%s() takes from %d to %d arguments (%d given)", fn, least, most, len(a.pos))
	}
	return a.pos
}

func (a args) noKeywords(fn string) {
	if len(a.kw) > 0 {
		typeError("%s() takes no keyword arguments", fn)
	}
}
