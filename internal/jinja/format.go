package jinja

import (
	"strconv"
	"strings"
)

// stringFormatter runs str.format. It looks up fields by the rules of the
// sandbox.
type stringFormatter struct {
	m      *machine
	args   args
	named  *Dict // the argument of format_map; nil in format
	auto   int   // number of the next {}
	manual bool
	escape bool
}

// formatString is format.format(...).
func (m *machine) formatString(format string, a args, escaped bool) string {
	f := &stringFormatter{m: m, args: a, escape: escaped}
	return f.formatAll(format, 2)
}

func formatMapMethod(m *machine, s string, a args) Value {
	if len(a.kw) > 0 {
		failType("format_map() takes no keyword arguments")
	}
	if len(a.pos) != 1 {
		failType("format_map() takes exactly one argument (%d given)", len(a.pos))
	}
	d, is := a.pos[0].(*Dict)
	if !is {
		requireDefined(a.pos[0])
		failType("'%s' object is not a mapping", typeName(a.pos[0]))
	}
	f := &stringFormatter{m: m, named: d}
	return f.formatAll(s, 2)
}

func (f *stringFormatter) formatAll(format string, depth int) string {
	if depth < 0 {
		failValue("Max string recursion exceeded")
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
			failValue("Single '}' encountered in format string")
		}
		field, after := cutField(rest)
		text := f.formatField(field, depth)
		f.m.out = append(f.m.out, text...)
		format = after
		f.m.payStep()
		f.m.checkOutput(start)
	}
	return f.m.takeOutput(start)
}

// cutField splits s at the brace that closes the field at its beginning.
func cutField(s string) (field, after string) {
	if s == "" {
		failValue("Single '{' encountered in format string")
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
	failValue("expected '}' before end of string")
	return "", ""
}

func (f *stringFormatter) formatField(field string, depth int) string {
	name, spec, conversion := field, "", byte(0)
	if i := fieldNameEnd(field); i < len(field) {
		name, spec = field[:i], field[i+1:]
		if field[i] == '!' {
			if spec == "" {
				failValue("unmatched '{' in format spec")
			}
			conversion = spec[0]
			if spec = spec[1:]; spec != "" {
				if spec[0] != ':' {
					failValue("expected ':' after conversion specifier")
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
		failValue("Unknown conversion specifier %c", conversion)
	}
	if strings.ContainsAny(spec, "{}") {
		spec = f.formatAll(spec, depth-1)
	}
	if f.escape {
		if s, is := v.(markup); is {
			return string(s)
		}
		return string(escapeHTML(f.m, f.m.formatValue(v, spec)))
	}
	return f.m.formatValue(v, spec)
}

func fieldNameEnd(field string) int {
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
				failValue("unexpected '{' in field name")
			}
		}
	}
	return len(field)
}

// lookUp returns the value of a field such as "name.attribute[index]".
func (f *stringFormatter) lookUp(name string) Value {
	first := name
	if i := strings.IndexAny(name, ".["); i >= 0 {
		first = name[:i]
	}
	rest := name[len(first):]
	v := f.lookUpFirst(first)
	for rest != "" {
		if rest[0] == '.' {
			attr := rest[1:]
			if i := strings.IndexAny(attr, ".["); i >= 0 {
				attr = attr[:i]
			}
			if attr == "" {
				failValue("Empty attribute in format string")
			}
			v = f.m.getAttribute(v, attr)
			rest = rest[1+len(attr):]
			continue
		}
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			failValue("Missing ']' in format string")
		}
		index := rest[1:end]
		if index == "" {
			failValue("Empty attribute in format string")
		}
		if n, err := strconv.Atoi(index); err == nil && isDecimal(index[0]) {
			v = f.m.getItem(v, n)
		} else {
			v = f.m.getItem(v, index)
		}
		rest = rest[end+1:]
		if rest != "" && rest[0] != '.' && rest[0] != '[' {
			failValue("Only '.' or '[' may follow ']' in format field specifier")
		}
	}
	return v
}

func (f *stringFormatter) lookUpFirst(name string) Value {
	n, err := strconv.Atoi(name)
	switch {
	case name == "":
		if f.manual {
			failValue("cannot switch from manual field specification to automatic field numbering")
		}
		n = f.auto
		f.auto++
	case err == nil && isDecimal(name[0]):
		if f.auto > 0 {
			failValue("cannot switch from manual field specification to automatic field numbering")
		}
		f.manual = true
	default:
		return f.lookUpName(name)
	}
	if n >= len(f.args.pos) {
		failRuntime("IndexError", "Replacement index %d out of range for positional args tuple", n)
	}
	return f.args.pos[n]
}

func (f *stringFormatter) lookUpName(name string) Value {
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
	failRuntime("KeyError", "%s", plainRepr(name))
	return nil
}
