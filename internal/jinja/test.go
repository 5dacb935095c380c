package jinja

import "math/big"

// test is what stands behind "is".
type test func(m *machine, v Value, a args) bool

var tests map[string]test

func init() {
	tests = map[string]test{
		"defined":   bare("test_defined", func(_ *machine, v Value) bool { return !isUndefined(v) }),
		"undefined": bare("test_undefined", func(_ *machine, v Value) bool { return isUndefined(v) }),
		"none":      bare("test_none", func(_ *machine, v Value) bool { return v == None }),
		"boolean":   bare("test_boolean", func(_ *machine, v Value) bool { _, is := v.(bool); return is }),
		"true":      bare("test_true", func(_ *machine, v Value) bool { return v == true }),
		"false":     bare("test_false", func(_ *machine, v Value) bool { return v == false }),
		"integer":   bare("test_integer", func(_ *machine, v Value) bool { return isInteger(v) }),
		"float":     bare("test_float", func(_ *machine, v Value) bool { _, is := v.(float64); return is }),
		"number":    bare("test_number", func(_ *machine, v Value) bool { return isNumber(v) }),
		"string":    bare("test_string", func(_ *machine, v Value) bool { _, is := text(v); return is }),
		"mapping":   bare("test_mapping", func(_ *machine, v Value) bool { _, is := v.(*Dict); return is }),
		"sequence":  bare("test_sequence", func(_ *machine, v Value) bool { return isIndexed(v) }),
		"iterable":  bare("test_iterable", func(_ *machine, v Value) bool { return iteratorOf(v) != nil }),
		"callable":  bare("callable", func(_ *machine, v Value) bool { return isCallable(v) }),
		"escaped":   bare("test_escaped", func(_ *machine, v Value) bool { _, is := v.(markup); return is }),
		"lower":     bare("test_lower", func(m *machine, v Value) bool { return allCased(m.str(v), isLower) }),
		"upper":     bare("test_upper", func(m *machine, v Value) bool { return allCased(m.str(v), isUpper) }),
		"odd":       bare("test_odd", func(m *machine, v Value) bool { return equal(m, arithmetic(m, "%", v, 2), 1) }),
		"even":      bare("test_even", func(m *machine, v Value) bool { return equal(m, arithmetic(m, "%", v, 2), 0) }),
		"divisibleby": against("test_divisibleby", func(m *machine, v, n Value) bool {
			return equal(m, arithmetic(m, "%", v, n), 0)
		}),
		"filter": bare("test_filter", func(m *machine, v Value) bool {
			name, is := text(v)
			return is && (filters[name] != nil || name == "random" || name == "pprint")
		}),
		"test":   bare("test_test", func(m *machine, v Value) bool { name, is := text(v); return is && tests[name] != nil }),
		"sameas": against("test_sameas", func(_ *machine, v, other Value) bool { return v == other }),
		"in":     against("test_in", func(m *machine, v, container Value) bool { return contains(m, container, v) }),
	}
	for op, names := range map[string][]string{
		"==": {"==", "eq", "equalto"}, "!=": {"!=", "ne"}, ">": {">", "gt", "greaterthan"},
		">=": {">=", "ge"}, "<": {"<", "lt", "lessthan"}, "<=": {"<=", "le"},
	} {
		for _, name := range names {
			tests[name] = against(name, func(m *machine, v, other Value) bool { return compare(m, op, v, other) })
		}
	}
}

// bare is a test without arguments.
func bare(name string, f func(m *machine, v Value) bool) test {
	return func(m *machine, v Value, a args) bool {
		if len(a.pos)+len(a.kw) > 0 {
			typeError("%s() takes 1 positional argument but %d were given", name, 1+len(a.pos)+len(a.kw))
		}
		return f(m, v)
	}
}

// against is a test with one argument.
func against(name string, f func(m *machine, v, other Value) bool) test {
	parameter := map[string]string{"test_divisibleby": "num", "test_sameas": "other", "test_in": "seq"}[name]
	return func(m *machine, v Value, a args) bool {
		if parameter == "" {
			return f(m, v, a.positional(name, 1, 1)[0])
		}
		return f(m, v, a.bind(name, 1, parameter)[0])
	}
}

func isUndefined(v Value) bool { _, is := v.(*undefined); return is }

func isInteger(v Value) bool {
	switch v.(type) {
	case int, *big.Int:
		return true
	}
	return false
}

// isIndexed tells what has a length and items.
func isIndexed(v Value) bool {
	switch v.(type) {
	case string, markup, *List, *tuple, *Dict, *interval, *undefined:
		return true
	}
	return false
}
