package jinja

import (
	"strconv"
	"strings"
)

// formatter is str.format while it runs, looking fields up by the rules of
// the sandbox.
type formatter struct {
	m      *machine
	args   args
	named  *Dict // of format_map, instead of args.kw
	auto   int   // the next {}; -1 once fields are numbered by hand
	manual bool
	escape bool
}

// formatted is format.format(...).
func (m *machine) formatted(format string, a args, escaped bool) string {
	f := &formatter{m: m, args: a, escape: escaped}
	return f.run(format, 2)
}

func formatMapMethod(m *machine, s string, a args) Value {
	if len(a.kw) > 0 {
		typeError("format_map() takes no keyword arguments")
	}
	if len(a.pos) != 1 {
		typeError("format_map() takes exactly one argument (%d given)", len(a.pos))
	}
	d, is := a.pos[0].(*Dict)
	if !is {
		mustDefine(a.pos[0])
		typeError("'%s' object is not a mapping", typeName(a.pos[0]))
	}
	f := &formatter{m: m, named: d}
	return f.run(s, 2)
}

func (f *formatter) run(format string, depth int) string {
	if depth < 0 {
		valueError("Max string recursion exceeded")
	}
	start := len(f.m.out)
	for format != "" {
		i := strings.IndexAny(format, "{}")
		if i < 0 {
			f.m.out = append(f.m.out, format...)
			break
		}
		f.m.out = append(f.m.out, format[:i]...)
		brace := format[i]
		rest := format[i+1:]
		if rest != "" && rest[0] == brace {
			f.m.out = append(f.m.out, brace)
			format = rest[1:]
			continue
		}
		if brace == '}' {
			valueError("Single '}' encountered in format string")
		}
		field, after := replacementField(rest)
		text := f.field(field, depth)
		f.m.out = append(f.m.out, text...)
		format = after
		f.m.step()
		f.m.written(start)
	}
	return f.m.take(start)
}

// replacementField splits at the brace that closes a field.
func replacementField(s string) (field, after string) {
	if s == "" {
		valueError("Single '{' encountered in format string")
	}
	depth, bracket := 1, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '[':
			bracket = true
		case c == ']':
			bracket = false
		case bracket && depth == 1:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return s[:i], s[i+1:]
			}
		}
	}
	valueError("expected '}' before end of string")
	return "", ""
}

func (f *formatter) field(field string, depth int) string {
	name, spec, conversion := field, "", byte(0)
	if i := endOfName(field); i < len(field) {
		name, spec = field[:i], field[i+1:]
		if field[i] == '!' {
			if spec == "" {
				valueError("unmatched '{' in format spec")
			}
			conversion = spec[0]
			if spec = spec[1:]; spec != "" {
				if spec[0] != ':' {
					valueError("expected ':' after conversion specifier")
				}
				spec = spec[1:]
			}
		}
	}
	v := f.lookUp(name)
	switch conversion {
	case 's':
		v = f.m.str(v)
	case 'r':
		v = f.m.repr(v)
	case 'a':
		v = f.m.ascii(v)
	case 0:
	default:
		valueError("Unknown conversion specifier %c", conversion)
	}
	if strings.ContainsAny(spec, "{}") {
		spec = f.run(spec, depth-1)
	}
	if f.escape {
		if s, is := v.(markup); is {
			return string(s)
		}
		return string(escape(f.m, f.m.formatValue(v, spec)))
	}
	return f.m.formatValue(v, spec)
}

func endOfName(field string) int {
	bracket := false
	for i := 0; i < len(field); i++ {
		switch field[i] {
		case '[':
			bracket = true
		case ']':
			bracket = false
		case '!', ':':
			if !bracket {
				return i
			}
		case '{':
			if !bracket {
				valueError("unexpected '{' in field name")
			}
		}
	}
	return len(field)
}

// lookUp finds the value of "name.attribute[index]".
func (f *formatter) lookUp(name string) Value {
	first := name
	if i := strings.IndexAny(name, ".["); i >= 0 {
		first = name[:i]
	}
	rest := name[len(first):]
	v := f.first(first)
	for rest != "" {
		if rest[0] == '.' {
			attr := rest[1:]
			if i := strings.IndexAny(attr, ".["); i >= 0 {
				attr = attr[:i]
			}
			if attr == "" {
				valueError("Empty attribute in format string")
			}
			v = f.m.attribute(v, attr)
			rest = rest[1+len(attr):]
			continue
		}
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			valueError("Missing ']' in format string")
		}
		index := rest[1:end]
		if index == "" {
			valueError("Empty attribute in format string")
		}
		if n, err := strconv.Atoi(index); err == nil && isDecimal(index[0]) {
			v = f.m.item(v, n)
		} else {
			v = f.m.item(v, index)
		}
		rest = rest[end+1:]
		if rest != "" && rest[0] != '.' && rest[0] != '[' {
			valueError("Only '.' or '[' may follow ']' in format field specifier")
		}
	}
	return v
}

func (f *formatter) first(name string) Value {
	n, err := strconv.Atoi(name)
	switch {
	case name == "":
		if f.manual {
			valueError("cannot switch from manual field specification to automatic field numbering")
		}
		n, err = f.auto, nil
		f.auto++
	case err == nil && isDecimal(name[0]):
		if f.auto > 0 {
			valueError("cannot switch from manual field specification to automatic field numbering")
		}
		f.manual = true
	default:
		return f.byName(name)
	}
	if n >= len(f.args.pos) {
		fail("IndexError", "Replacement index %d out of range for positional args tuple", n)
	}
	return f.args.pos[n]
}

func (f *formatter) byName(name string) Value {
	if f.named != nil {
		if v, ok := f.named.Get(name); ok {
			return v
		}
	}
	for _, k := range f.args.kw {
		if k.name == name {
			return k.value
		}
	}
	fail("KeyError", "%s", plainRepr(name))
	return nil
}
