package jinja

import (
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// formatSpec is a parsed format specification, the text after the colon of a
// field.
type formatSpec struct {
	fill      string
	align     byte
	sign      byte
	alternate bool
	zero      bool
	width     int
	group     string
	precision int // -1 if not given
	verb      byte
}

func parseFormatSpec(s string) formatSpec {
	spec := formatSpec{fill: " ", precision: -1}
	isAlign := func(s string) bool { return s != "" && strings.IndexByte("<>=^", s[0]) >= 0 }
	_, n := utf8.DecodeRuneInString(s)
	filled := s != "" && isAlign(s[n:])
	if filled {
		spec.fill, spec.align, s = s[:n], s[n], s[n+1:]
	} else if isAlign(s) {
		spec.align, s = s[0], s[1:]
	}
	next := func(chars string) byte {
		if s != "" && strings.IndexByte(chars, s[0]) >= 0 {
			c := s[0]
			s = s[1:]
			return c
		}
		return 0
	}
	number := func() int {
		n, any := 0, false
		for s != "" && isDecimal(s[0]) {
			n, any = min(n*10+int(s[0]-'0'), 1<<40), true
			s = s[1:]
		}
		if !any {
			return -1
		}
		return n
	}
	spec.sign = next("+- ")
	next("z")
	spec.alternate = next("#") != 0
	if !filled && next("0") != 0 {
		spec.fill = "0"
		if spec.align == 0 {
			spec.zero, spec.align = true, '='
		}
	}
	spec.width = max(number(), 0)
	if g := next(",_"); g != 0 {
		spec.group = string(g)
	}
	if next(".") != 0 {
		if spec.precision = number(); spec.precision < 0 {
			failValue("Format specifier missing precision")
		}
	}
	if s != "" {
		spec.verb, s = s[0], s[1:]
	}
	if s != "" {
		failValue("Invalid format specifier")
	}
	return spec
}

// formatValue is format(v, spec).
func (m *machine) formatValue(v Value, s string) string {
	if s == "" {
		return m.str(v)
	}
	switch v := v.(type) {
	case string, markup:
		t, _ := asText(v)
		return m.formatText(t, s)
	case bool, int, *big.Int:
		return m.formatInt(bigOf(v), s)
	case float64:
		return m.formatFloat(v, parseFormatSpec(s))
	}
	failType("unsupported format string passed to %s.__format__", typeName(v))
	return ""
}

func failFormatCode(verb byte, typ string) {
	failValue("Unknown format code '%c' for object of type '%s'", verb, typ)
}

func (m *machine) formatText(s, written string) string {
	spec := parseFormatSpec(written)
	switch {
	case spec.verb != 0 && spec.verb != 's':
		failFormatCode(spec.verb, "str")
	case spec.sign != 0:
		failValue("Sign not allowed in string format specifier")
	case spec.alternate:
		failValue("Alternate form (#) not allowed in string format specifier")
	case spec.group != "":
		failValue("Cannot specify '%s' with 's'.", spec.group)
	case spec.align == '=' && !spec.zero:
		failValue("'=' alignment not allowed in string format specifier")
	}
	if spec.align == '=' { // set by a zero before the width
		spec.align = '<'
	}
	if spec.precision >= 0 {
		s = percentSpec{precision: spec.precision}.cutText(s)
	}
	return m.alignText("", s, spec, '<')
}

func (m *machine) formatInt(n *big.Int, written string) string {
	spec := parseFormatSpec(written)
	base, prefix, group := 10, "", 3
	switch spec.verb {
	case 0, 'd', 'n':
		bigText(n)
	case 'b':
		base, prefix, group = 2, "0b", 4
	case 'o':
		base, prefix, group = 8, "0o", 4
	case 'x', 'X':
		base, prefix, group = 16, "0x", 4
	case 'c':
		if spec.sign != 0 {
			failValue("Sign not allowed with integer format specifier 'c'")
		}
		if spec.group != "" {
			failValue("Cannot specify '%s' with 'c'.", spec.group)
		}
		if !n.IsInt64() || n.Int64() < 0 || n.Int64() > utf8.MaxRune {
			failRuntime("OverflowError", "%%c arg not in range(0x110000)")
		}
		return m.alignText("", string(rune(n.Int64())), spec, '<')
	case 'e', 'E', 'f', 'F', 'g', 'G', '%':
		return m.formatFloat(toFloat(normalizeBig(n)), spec)
	default:
		failFormatCode(spec.verb, "int")
	}
	if spec.precision >= 0 {
		failValue("Precision not allowed in integer format specifier")
	}
	if spec.group == "," && base != 10 || spec.group != "" && spec.verb == 'n' {
		failValue("Cannot specify '%s' with '%c'.", spec.group, spec.verb)
	}
	digits := formatBig(n, base, spec.group, group)
	if !spec.alternate {
		prefix = ""
	}
	if spec.verb == 'X' {
		digits, prefix = strings.ToUpper(digits), strings.ToUpper(prefix)
	}
	return m.alignText(spec.signFor(n.Sign() < 0)+prefix, digits, spec, '>')
}

func (s formatSpec) signFor(negative bool) string {
	switch {
	case negative:
		return "-"
	case s.sign == '+' || s.sign == ' ':
		return string(s.sign)
	}
	return ""
}

func (m *machine) formatFloat(f float64, spec formatSpec) string {
	precision := spec.precision
	m.payMemory(max(precision, 0))
	if spec.group != "" && spec.verb == 'n' {
		failValue("Cannot specify '%s' with 'n'.", spec.group)
	}
	abs := math.Abs(f)
	var digits string
	switch spec.verb {
	case 'e', 'E', 'f', 'F', 'g', 'G':
		if precision < 0 {
			precision = 6
		}
		digits = formatFloat(abs, spec.verb, precision, spec.alternate)
	case '%':
		if precision < 0 {
			precision = 6
		}
		digits = formatFloat(abs*100, 'f', precision, spec.alternate) + "%"
	case 0, 'n':
		digits = string(appendFloat(nil, abs))
		if precision >= 0 || spec.verb == 'n' {
			if precision < 0 {
				precision = 6
			}
			limit := max(precision, 1)
			if spec.verb == 0 {
				limit--
			}
			digits = generalFloat(abs, precision, limit, spec.alternate)
			if spec.verb == 0 && !strings.ContainsAny(digits, ".en") {
				digits += ".0"
			}
			if math.IsNaN(abs) || math.IsInf(abs, 0) {
				digits = string(appendFloat(nil, abs))
			}
		}
	default:
		failFormatCode(spec.verb, "float")
	}
	if spec.group != "" {
		end := len(strings.TrimLeft(digits, "0123456789"))
		integer := digits[:len(digits)-end]
		digits = groupDigits(integer, spec.group, 3) + digits[len(integer):]
	}
	return m.alignText(spec.signFor(math.Signbit(f) && !math.IsNaN(f)), digits, spec, '>')
}

func (m *machine) alignText(sign, s string, spec formatSpec, align byte) string {
	if spec.align != 0 {
		align = spec.align
	}
	pad := spec.width - utf8.RuneCountInString(sign) - utf8.RuneCountInString(s)
	if pad <= 0 {
		return sign + s
	}
	m.payMemory(pad*len(spec.fill) + len(s))
	fill := func(n int) string { return strings.Repeat(spec.fill, n) }
	switch align {
	case '<':
		return sign + s + fill(pad)
	case '^':
		return fill(pad/2) + sign + s + fill(pad-pad/2)
	case '=':
		if spec.group != "" && spec.fill == "0" {
			return sign + padGrouped(s, spec.group, spec.width-len(sign))
		}
		return sign + fill(pad) + s
	}
	return fill(pad) + sign + s
}

// padGrouped pads grouped digits with zeros, which are grouped as well.
func padGrouped(s, group string, width int) string {
	integer, rest := s, ""
	if i := strings.IndexAny(s, ".e%"); i >= 0 {
		integer, rest = s[:i], s[i:]
	}
	digits := strings.ReplaceAll(integer, group, "")
	n := len(digits)
	for n+(n-1)/3+len(rest) < width {
		n++
	}
	return groupDigits(strings.Repeat("0", n-len(digits))+digits, group, 3) + rest
}
