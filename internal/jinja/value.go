package jinja

import (
	"math/big"
)

// Value is a value of the template language: None, bool, int, float64,
// *big.Int, string, *List, *Dict, or a type that only templates create.
type Value = any

// None is Python's None.
var None Value = none{}

type none struct{}

// List is Python's list.
type List struct{ items []Value }

// Items returns the elements of the list.
func (l *List) Items() []Value { return l.items }

// tuple is Python's tuple. A named tuple has names.
type tuple struct {
	items []Value
	names []string
}

func newPair(a, b Value) *tuple {
	p := &struct {
		tuple
		storage [2]Value
	}{storage: [2]Value{a, b}}
	p.items = p.storage[:]
	return &p.tuple
}

// markup is text that counts as escaped HTML, such as the result of the filter
// safe.
type markup string

// undefined is the value of a name, attribute or item that does not exist.
type undefined struct {
	hint   string
	obj    Value // the object that lacks it; nil for a variable
	name   Value
	unsafe bool // hidden by the sandbox
}

func (u *undefined) message() string {
	switch name, isText := u.name.(string); {
	case u.hint != "":
		return u.hint
	case u.obj == nil:
		return plainRepr(u.name) + " is undefined"
	case isText:
		return plainRepr(objectName(u.obj)) + " has no attribute " + plainRepr(name)
	default:
		return objectName(u.obj) + " has no element " + plainRepr(u.name)
	}
}

func (u *undefined) fail() {
	if u.unsafe {
		failRuntime("SecurityError", "%s", u.message())
	}
	failRuntime("UndefinedError", "%s", u.message())
}

// requireDefined fails when one of the values is undefined.
func requireDefined(values ...Value) {
	for _, v := range values {
		if u, is := v.(*undefined); is {
			u.fail()
		}
	}
}

// namespace is the result of namespace(...), whose attributes templates can
// set.
type namespace struct{ attrs *Dict }

// rangeValue is Python's range.
type rangeValue struct{ start, stop, step int }

func (r *rangeValue) len() int {
	switch {
	case r.step > 0 && r.start < r.stop:
		return (r.stop-r.start-1)/r.step + 1
	case r.step < 0 && r.start > r.stop:
		return (r.start-r.stop-1)/(-r.step) + 1
	}
	return 0
}

// generator yields values once. Filters such as map and select return it.
type generator struct{ produceNext func() (Value, bool) }

func newGenerator(produce func() (Value, bool)) *generator { return &generator{produce} }

func (g *generator) next(*machine) (Value, bool) { return g.produceNext() }

// dictView is the result of a dict's keys, values and items.
type dictView struct {
	dict *Dict
	kind string // "keys", "values" or "items"
}

// function is a callable: a global or a bound method.
type function struct {
	name string
	call func(m *machine, a args) Value
}

func newFunction(name string, call func(m *machine, a args) Value) *function {
	return &function{name, call}
}

// args are the arguments of a call.
type args struct {
	pos []Value
	kw  []keyword
}

type keyword struct {
	name  string
	value Value
}

// asText returns the string in v, which may be markup.
func asText(v Value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// typeName is type(v).__name__.
func typeName(v Value) string {
	switch v := v.(type) {
	case none:
		return "NoneType"
	case bool:
		return "bool"
	case int, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case *List:
		return "list"
	case *tuple:
		if v.names != nil {
			return "_GroupTuple"
		}
		return "tuple"
	case *Dict:
		return "dict"
	case *undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case *rangeValue:
		return "range"
	case *generator:
		return "generator"
	case *dictView:
		return "dict_" + v.kind
	case *function:
		return "function"
	case *macro:
		return "Macro"
	case *loopVar:
		return "LoopContext"
	case *cycler:
		return "Cycler"
	case *joiner:
		return "Joiner"
	}
	return "object"
}

// objectName is the name of v's type in messages of jinja2.
func objectName(v Value) string {
	switch v.(type) {
	case none:
		return "None"
	case *namespace, *cycler, *joiner:
		return "jinja2.utils." + typeName(v) + " object"
	case *macro, *loopVar:
		return "jinja2.runtime." + typeName(v) + " object"
	case markup:
		return "markupsafe.Markup object"
	}
	return typeName(v) + " object"
}

// isTruthy is bool(v).
func isTruthy(m *machine, v Value) bool {
	switch v := v.(type) {
	case none, *undefined:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case markup:
		return v != ""
	case *List:
		return len(v.items) > 0
	case *tuple:
		return len(v.items) > 0
	case *Dict:
		return v.Len() > 0
	case *rangeValue:
		return v.len() > 0
	case *dictView:
		return v.dict.Len() > 0
	}
	return true
}
