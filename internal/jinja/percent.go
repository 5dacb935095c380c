package jinja

import (
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// percentSpec is a parsed conversion of a printf-style format, such as %-5.2f.
type percentSpec struct {
	flags     string
	width     int
	precision int // -1 if not given
	verb      byte
}

// percentFormat runs format % values.
type percentFormat struct {
	m       *machine
	format  string
	at      int
	values  []Value
	next    int
	mapping *Dict // the values of %(key)s
	used    bool  // a conversion has read the mapping
	escape  bool
}

// formatPercent is format % v. When format is markup, it escapes the values.
func (m *machine) formatPercent(format string, v Value, escaped bool) Value {
	p := &percentFormat{m: m, format: format, values: []Value{v}, escape: escaped}
	if t, is := v.(*tuple); is {
		p.values = t.items
	} else if d, is := v.(*Dict); is {
		p.mapping = d
	}
	s := p.formatAll()
	_, isTuple := v.(*tuple)
	unused := isTuple && p.next < len(p.values)
	if !isTuple && p.next == 0 && !p.used && p.mapping == nil {
		_, isList := v.(*List) // Python treats a list as a mapping here
		unused = !isList
		if _, is := v.(*undefined); is {
			unused = false
		}
	}
	if unused {
		failType("not all arguments converted during string formatting")
	}
	if escaped {
		return markup(s)
	}
	return s
}

func (p *percentFormat) formatAll() string {
	start := len(p.m.out)
	for p.at < len(p.format) {
		i := strings.IndexByte(p.format[p.at:], '%')
		if i < 0 {
			i = len(p.format) - p.at
		}
		p.m.out = append(p.m.out, p.format[p.at:p.at+i]...)
		p.at += i + 1
		if p.at <= len(p.format) {
			p.formatDirective()
		}
		p.m.payStep()
		p.m.checkOutput(start)
	}
	return p.m.takeOutput(start)
}

func (p *percentFormat) peek() byte {
	if p.at >= len(p.format) {
		failValue("incomplete format")
	}
	return p.format[p.at]
}

func (p *percentFormat) nextArg() Value {
	if p.next >= len(p.values) {
		failType("not enough arguments for format string")
	}
	p.next++
	return p.values[p.next-1]
}

func (p *percentFormat) readKey() Value {
	if p.mapping == nil {
		requireDefined(p.values...)
		failType("format requires a mapping")
	}
	depth, from := 1, p.at+1
	for p.at++; depth > 0; p.at++ {
		if p.at >= len(p.format) {
			failValue("incomplete format key")
		}
		switch p.format[p.at] {
		case '(':
			depth++
		case ')':
			depth--
		}
	}
	key := p.format[from : p.at-1]
	v, ok := p.mapping.Get(key)
	if !ok {
		failRuntime("KeyError", "%s", plainRepr(key))
	}
	p.used = true
	return v
}

func (p *percentFormat) readNumber() int {
	if p.peek() == '*' {
		p.at++
		n, is := indexOf(p.nextArg())
		if !is {
			failType("* wants int")
		}
		return n
	}
	n := 0
	for isDecimal(p.peek()) {
		n = min(n*10+int(p.format[p.at]-'0'), 1<<40)
		p.at++
	}
	return n
}

func (p *percentFormat) formatDirective() {
	var v Value
	spec := percentSpec{precision: -1}
	if p.peek() == '(' {
		v = p.readKey()
	}
	for strings.IndexByte("-+ #0", p.peek()) >= 0 {
		spec.flags += string(p.format[p.at])
		p.at++
		if len(spec.flags) > 64 {
			failValue("too many flags")
		}
	}
	if spec.width = p.readNumber(); spec.width < 0 {
		spec.flags += "-"
		spec.width = -spec.width
	}
	if p.peek() == '.' {
		p.at++
		spec.precision = max(p.readNumber(), 0)
	}
	if strings.IndexByte("hlL", p.peek()) >= 0 {
		p.at++
	}
	spec.verb = p.peek()
	p.at++
	p.m.payMemory(max(spec.width, spec.precision))
	if spec.verb == '%' {
		p.m.out = append(p.m.out, '%')
		return
	}
	if v == nil {
		v = p.nextArg()
	}
	p.m.out = append(p.m.out, p.convertValue(spec, v)...)
}

func (p *percentFormat) convertValue(spec percentSpec, v Value) string {
	switch spec.verb {
	case 's', 'r', 'a':
		return spec.padText(spec.cutText(p.convertText(spec.verb, v)))
	case 'c':
		return spec.padText(p.convertChar(v))
	case 'd', 'i', 'u':
		return spec.formatInt(p.convertInt(v, spec.verb, true), 10, "")
	case 'x':
		return spec.formatInt(p.convertInt(v, spec.verb, false), 16, "0x")
	case 'X':
		return strings.ToUpper(spec.formatInt(p.convertInt(v, spec.verb, false), 16, "0x"))
	case 'o':
		return spec.formatInt(p.convertInt(v, spec.verb, false), 8, "0o")
	case 'e', 'E', 'f', 'F', 'g', 'G':
		return spec.formatFloat(p.convertFloat(v))
	}
	r, _ := utf8.DecodeRuneInString(p.format[p.at-1:])
	failValue("unsupported format character '%c' (0x%x) at index %d", r, r, utf8.RuneCountInString(p.format[:p.at-1]))
	return ""
}

func (p *percentFormat) convertText(verb byte, v Value) string {
	s := ""
	switch verb {
	case 'r':
		s = p.m.repr(v)
	case 'a':
		s = p.m.ascii(v)
	default:
		if p.escape {
			return string(escapeHTML(p.m, v))
		}
		return p.m.str(v)
	}
	if p.escape {
		return string(escapeHTML(p.m, s))
	}
	return s
}

func (p *percentFormat) convertChar(v Value) string {
	if s, is := asText(v); is {
		if utf8.RuneCountInString(s) != 1 {
			failType("%%c requires int or char")
		}
		return s
	}
	n, is := indexOf(v)
	if !is {
		failType("%%c requires int or char")
	}
	if n < 0 || n > utf8.MaxRune {
		failRuntime("OverflowError", "%%c arg not in range(0x110000)")
	}
	return string(rune(n))
}

// convertInt returns v as an integer. With floats, as for %d, it truncates
// floats.
func (p *percentFormat) convertInt(v Value, verb byte, floats bool) *big.Int {
	if n := bigOf(v); n != nil {
		return n
	}
	if f, is := v.(float64); is && floats {
		n, ok := truncateFloat(f)
		if !ok {
			failValue("cannot convert float NaN to integer")
		}
		return bigOf(n)
	}
	if floats {
		if u, is := v.(*undefined); is {
			u.fail()
		}
		failType("%%%c format: a real number is required, not %s", verb, typeName(v))
	}
	failType("%%%c format: an integer is required, not %s", verb, typeName(v))
	return nil
}

func (p *percentFormat) convertFloat(v Value) float64 {
	if isNumber(v) {
		return toFloat(v)
	}
	requireDefined(v)
	if s, is := asText(v); is {
		if p.escape {
			if f, ok := parseFloat(s); ok {
				return f
			}
		}
	}
	failType("must be real number, not %s", typeName(v))
	return 0
}

func (s percentSpec) hasFlag(flag string) bool { return strings.Contains(s.flags, flag) }

func (s percentSpec) cutText(v string) string {
	if s.precision < 0 {
		return v
	}
	runes := []rune(v)
	return string(runes[:min(len(runes), s.precision)])
}

func (s percentSpec) padText(v string) string {
	n := s.width - utf8.RuneCountInString(v)
	if n <= 0 {
		return v
	}
	if s.hasFlag("-") {
		return v + strings.Repeat(" ", n)
	}
	return strings.Repeat(" ", n) + v
}

// padNumber adds the sign and pads a number, with the flag 0 by zeros after
// the sign.
func (s percentSpec) padNumber(negative bool, prefix, digits string) string {
	sign := ""
	switch {
	case negative:
		sign = "-"
	case s.hasFlag("+"):
		sign = "+"
	case s.hasFlag(" "):
		sign = " "
	}
	sign += prefix
	if s.hasFlag("0") && !s.hasFlag("-") {
		if n := s.width - len(sign) - len(digits); n > 0 {
			digits = strings.Repeat("0", n) + digits
		}
	}
	return s.padText(sign + digits)
}

func (s percentSpec) formatInt(n *big.Int, base int, prefix string) string {
	if base == 10 {
		bigText(n)
	}
	digits := new(big.Int).Abs(n).Text(base)
	if len(digits) < s.precision {
		digits = strings.Repeat("0", s.precision-len(digits)) + digits
	}
	if !s.hasFlag("#") {
		prefix = ""
	}
	return s.padNumber(n.Sign() < 0, prefix, digits)
}

func (s percentSpec) formatFloat(f float64) string {
	precision := s.precision
	if precision < 0 {
		precision = 6
	}
	digits := formatFloat(math.Abs(f), s.verb, precision, s.hasFlag("#"))
	return s.padNumber(math.Signbit(f) && !math.IsNaN(f), "", digits)
}
