package jinja

import "math/big"

// testFunc implements a test: value is name(args).
type testFunc func(m *machine, v Value, a args) bool

var tests map[string]testFunc

func init() {
	tests = map[string]testFunc{
		"defined":   testWithoutArgs("test_defined", func(_ *machine, v Value) bool { return !isUndefined(v) }),
		"undefined": testWithoutArgs("test_undefined", func(_ *machine, v Value) bool { return isUndefined(v) }),
		"none":      testWithoutArgs("test_none", func(_ *machine, v Value) bool { return v == None }),
		"boolean":   testWithoutArgs("test_boolean", func(_ *machine, v Value) bool { _, is := v.(bool); return is }),
		"true":      testWithoutArgs("test_true", func(_ *machine, v Value) bool { return v == true }),
		"false":     testWithoutArgs("test_false", func(_ *machine, v Value) bool { return v == false }),
		"integer":   testWithoutArgs("test_integer", func(_ *machine, v Value) bool { return isInteger(v) }),
		"float":     testWithoutArgs("test_float", func(_ *machine, v Value) bool { _, is := v.(float64); return is }),
		"number":    testWithoutArgs("test_number", func(_ *machine, v Value) bool { return isNumber(v) }),
		"string":    testWithoutArgs("test_string", func(_ *machine, v Value) bool { _, is := asText(v); return is }),
		"mapping":   testWithoutArgs("test_mapping", func(_ *machine, v Value) bool { _, is := v.(*Dict); return is }),
		"sequence":  testWithoutArgs("test_sequence", func(_ *machine, v Value) bool { return isIndexed(v) }),
		"iterable":  testWithoutArgs("test_iterable", func(_ *machine, v Value) bool { return iteratorOf(v) != nil }),
		"callable":  testWithoutArgs("callable", func(_ *machine, v Value) bool { return isCallable(v) }),
		"escaped":   testWithoutArgs("test_escaped", func(_ *machine, v Value) bool { _, is := v.(markup); return is }),
		"lower":     testWithoutArgs("test_lower", func(m *machine, v Value) bool { return isAllCased(m.str(v), isLower) }),
		"upper":     testWithoutArgs("test_upper", func(m *machine, v Value) bool { return isAllCased(m.str(v), isUpper) }),
		"odd":       testWithoutArgs("test_odd", func(m *machine, v Value) bool { return isEqual(m, arithmetic(m, "%", v, 2), 1) }),
		"even":      testWithoutArgs("test_even", func(m *machine, v Value) bool { return isEqual(m, arithmetic(m, "%", v, 2), 0) }),
		"divisibleby": testWithArg("test_divisibleby", func(m *machine, v, n Value) bool {
			return isEqual(m, arithmetic(m, "%", v, n), 0)
		}),
		"filter": testWithoutArgs("test_filter", func(m *machine, v Value) bool {
			name, is := asText(v)
			return is && (filters[name] != nil || name == "random" || name == "pprint")
		}),
		"test":   testWithoutArgs("test_test", func(m *machine, v Value) bool { name, is := asText(v); return is && tests[name] != nil }),
		"sameas": testWithArg("test_sameas", func(_ *machine, v, other Value) bool { return v == other }),
		"in":     testWithArg("test_in", func(m *machine, v, container Value) bool { return containsValue(m, container, v) }),
	}
	for op, names := range map[string][]string{
		"==": {"==", "eq", "equalto"}, "!=": {"!=", "ne"}, ">": {">", "gt", "greaterthan"},
		">=": {">=", "ge"}, "<": {"<", "lt", "lessthan"}, "<=": {"<=", "le"},
	} {
		for _, name := range names {
			tests[name] = testWithArg(name, func(m *machine, v, other Value) bool { return compareValues(m, op, v, other) })
		}
	}
}

// testWithoutArgs returns a test that takes no arguments.
func testWithoutArgs(name string, f func(m *machine, v Value) bool) testFunc {
	return func(m *machine, v Value, a args) bool {
		if len(a.pos)+len(a.kw) > 0 {
			failType("%s() takes 1 positional argument but %d were given", name, 1+len(a.pos)+len(a.kw))
		}
		return f(m, v)
	}
}

// testWithArg returns a test that takes one argument.
func testWithArg(name string, f func(m *machine, v, other Value) bool) testFunc {
	parameter := map[string]string{"test_divisibleby": "num", "test_sameas": "other", "test_in": "seq"}[name]
	return func(m *machine, v Value, a args) bool {
		if parameter == "" {
			return f(m, v, a.requirePositional(name, 1, 1)[0])
		}
		return f(m, v, a.bindNames(name, 1, parameter)[0])
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

// isIndexed reports whether v has a length and items.
func isIndexed(v Value) bool {
	switch v.(type) {
	case string, markup, *List, *tuple, *Dict, *rangeValue, *undefined:
		return true
	}
	return false
}
