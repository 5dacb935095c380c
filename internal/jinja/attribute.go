package jinja

import (
	"math/big"
	"strings"
)

// compileAttribute compiles x.name.
func (c *compiler) compileAttribute(n *attrNode, s scope) expr {
	x, name := c.compileExpr(n.x, s), n.name
	absent := missingKey(name)
	isMethod := dictMethods[name] != nil || dictMutators[name]
	return func(m *machine, f *frame) Value {
		v := x(m, f)
		if d, is := v.(*Dict); is && !isMethod {
			if got, ok := d.Get(name); ok {
				return got
			}
			return absent
		}
		return m.getAttribute(v, name)
	}
}

// missingKey returns the undefined value for a key that a dict lacks. Its
// message is the same for every dict.
func missingKey(name string) Value { return missingAttribute(&Dict{}, name, name) }

// compileItem compiles x[index].
func (c *compiler) compileItem(n *itemNode, s scope) expr {
	x := c.compileExpr(n.x, s)
	if slice, is := n.index.(*sliceNode); is {
		return c.compileSlice(slice, x, s)
	}
	index := c.compileExpr(n.index, s)
	if v, ok := constantValue(n.index); ok {
		if name, is := v.(string); is {
			absent := missingKey(name)
			isMethod := dictMethods[name] != nil || dictMutators[name]
			return func(m *machine, f *frame) Value {
				obj := x(m, f)
				if d, is := obj.(*Dict); is {
					if got, ok := d.Get(name); ok {
						return got
					}
					if !isMethod {
						return absent
					}
				}
				return m.getItem(obj, v)
			}
		}
	}
	return func(m *machine, f *frame) Value {
		obj := x(m, f)
		return m.getItem(obj, index(m, f))
	}
}

// getAttribute returns v.name as environment.getattr of the sandbox does: an
// attribute, else the item of that name.
func (m *machine) getAttribute(v Value, name string) Value {
	if got := m.ownAttribute(v, name); got != nil {
		return got
	}
	if d, is := v.(*Dict); is {
		if got, ok := d.Get(name); ok {
			return got
		}
	}
	return missingAttribute(v, name, name)
}

// getItem returns v[index] as environment.getitem of the sandbox does: an
// item, else the attribute of that name.
func (m *machine) getItem(v, index Value) Value {
	if got := m.findElement(v, index); got != nil {
		return got
	}
	if name, is := asText(index); is {
		if got := m.ownAttribute(v, name); got != nil {
			return got
		}
		return missingAttribute(v, name, index)
	}
	return &undefined{obj: v, name: index}
}

// findElement returns v[index], or nil when there is no such element.
func (m *machine) findElement(v, index Value) Value {
	switch v := v.(type) {
	case *undefined:
		v.fail()
	case *Dict:
		switch index.(type) {
		case *List, *Dict: // not hashable
			return nil
		}
		got, _ := v.findValue(m, index)
		return got
	}
	i, is := indexOf(index)
	if !is {
		return nil
	}
	switch v := v.(type) {
	case *List:
		return itemAt(v.items, i)
	case *tuple:
		return itemAt(v.items, i)
	case *rangeValue:
		if i < 0 {
			i += v.len()
		}
		if i >= 0 && i < v.len() {
			return v.start + i*v.step
		}
	case string:
		if c, ok := m.runeAt(v, i); ok {
			return c
		}
	case markup:
		if c, ok := m.runeAt(string(v), i); ok {
			return markup(c)
		}
	}
	return nil
}

func itemAt(items []Value, i int) Value {
	if i < 0 {
		i += len(items)
	}
	if i < 0 || i >= len(items) {
		return nil
	}
	return items[i]
}

func (m *machine) runeAt(s string, i int) (string, bool) {
	m.payWork(len(s))
	if isASCII(s) {
		if i < 0 {
			i += len(s)
		}
		if i < 0 || i >= len(s) {
			return "", false
		}
		return s[i : i+1], true
	}
	runes := []rune(s)
	if i < 0 {
		i += len(runes)
	}
	if i < 0 || i >= len(runes) {
		return "", false
	}
	return string(runes[i]), true
}

// indexOf returns v as an index, and false when v is not an integer or a bool.
func indexOf(v Value) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case *big.Int:
		if v.Sign() < 0 {
			return -1 << 62, true
		}
		return 1<<62 - 1, true
	}
	return 0, false
}

// ownAttribute returns an attribute that the type of v has, or nil. An
// attribute that the sandbox hides is undefined.
func (m *machine) ownAttribute(v Value, name string) Value {
	switch v := v.(type) {
	case *undefined:
		v.fail()
	case string:
		return stringMethod(v, name, false)
	case markup:
		return stringMethod(string(v), name, true)
	case *Dict:
		if dictMutators[name] {
			return unsafeAttribute(v, name)
		}
		if method := dictMethods[name]; method != nil {
			return newFunction(name, func(m *machine, a args) Value { return method(m, v, a) })
		}
	case *List:
		if listMutators[name] {
			return unsafeAttribute(v, name)
		}
		return listMethodOf(v, name)
	case *tuple:
		for i, field := range v.names {
			if field == name {
				return v.items[i]
			}
		}
		return listMethod(v, v.items, name)
	case *namespace:
		got, ok := v.attrs.Get(name)
		if ok && strings.HasPrefix(name, "_") {
			return unsafeAttribute(v, name)
		}
		return got
	case *loopVar:
		return v.getAttribute(m, name)
	case *macro:
		return v.getAttribute(name)
	case *rangeValue:
		if name == "count" || name == "index" {
			return listMethod(v, m.copyItems(v), name)
		}
	case *cycler:
		return v.getAttribute(name)
	case *function:
		if v == dictType && name == "fromkeys" {
			return m.ownAttribute(NewDict(), name)
		}
	case int, bool, float64, *big.Int:
		return numberAttribute(v, name)
	}
	return nil
}

// missingAttribute returns the undefined value for an attribute that v lacks.
// Attributes that every Python object has count as unsafe.
func missingAttribute(v Value, name string, written Value) Value {
	if strings.HasPrefix(name, "__") && objectAttributes[name] {
		if _, is := v.(*namespace); !is || name == "__class__" {
			return unsafeAttribute(v, name)
		}
	}
	return &undefined{obj: v, name: written}
}

func unsafeAttribute(v Value, name string) Value {
	return &undefined{
		hint: "access to attribute " + plainRepr(name) + " of " + plainRepr(typeName(v)) + " object is unsafe.",
		obj:  v, name: name, unsafe: true,
	}
}

var objectAttributes = map[string]bool{
	"__class__": true, "__delattr__": true, "__dir__": true, "__doc__": true, "__eq__": true, "__format__": true,
	"__ge__": true, "__getattribute__": true, "__getstate__": true, "__gt__": true, "__hash__": true, "__init__": true,
	"__init_subclass__": true, "__le__": true, "__lt__": true, "__ne__": true, "__new__": true, "__reduce__": true,
	"__reduce_ex__": true, "__repr__": true, "__setattr__": true, "__sizeof__": true, "__str__": true, "__subclasshook__": true,
}

var dictMutators = map[string]bool{"clear": true, "pop": true, "popitem": true, "setdefault": true, "update": true}
var listMutators = map[string]bool{"append": true, "reverse": true, "insert": true, "sort": true, "extend": true, "remove": true}

func (mc *macro) getAttribute(name string) Value {
	switch name {
	case "name":
		if mc.name == "" {
			return None
		}
		return mc.name
	case "arguments":
		list := &List{}
		for _, a := range mc.args {
			list.items = append(list.items, a)
		}
		return list
	case "catch_kwargs":
		return mc.kwargs >= 0
	case "catch_varargs":
		return mc.varargs >= 0
	case "caller":
		return mc.macroCode.caller >= 0 || mc.explicit
	}
	return nil
}

func numberAttribute(v Value, name string) Value {
	f, isFloat := v.(float64)
	switch name {
	case "is_integer":
		if isFloat {
			return newFunction(name, func(m *machine, a args) Value { a.bindNames(name, 0); return f == float64(int(f)) })
		}
	case "bit_length":
		if !isFloat {
			return newFunction(name, func(m *machine, a args) Value { a.bindNames(name, 0); return bigOf(v).BitLen() })
		}
	}
	return nil
}
