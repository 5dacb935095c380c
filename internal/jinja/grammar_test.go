package jinja

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// grammar generates random templates. Most operands have the type that their
// operator needs, so that most templates render.
type grammar struct {
	*rand.Rand
	depth int
	names []string // variables that the template sets
	loops int
	macro int
}

func (g *grammar) pick(options ...string) string { return options[g.IntN(len(options))] }

// of replaces the operands of a pattern: $S text, $N number, $L list, $D dict,
// $B condition, $A any value.
func (g *grammar) of(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '$' && i+1 < len(pattern) {
			i++
			operand := g.operand(pattern[i])
			if i+1 < len(pattern) && (pattern[i+1] == '.' || pattern[i+1] == '[') {
				operand = "(" + operand + ")"
			}
			b.WriteString(operand)
			continue
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}

func (g *grammar) operand(kind byte) string {
	if kind == 'F' {
		return g.formatSpec()
	}
	if kind == 'P' {
		return g.percentSpec()
	}
	if kind == 'I' {
		return g.pick(`0`, `1`, `2`, `-1`, `-2`, `-3`, `5`, `100`, `n`, `m.count`, `none`, `true`)
	}
	if kind == 'K' {
		return g.pick(`'k'`, `1`, `2.0`, `none`, `(1, 'a')`, `true`, `s`, `n`)
	}
	if g.IntN(40) == 0 {
		kind = "SNLDBA"[g.IntN(6)]
	}
	g.depth++
	defer func() { g.depth-- }()
	if g.depth > 4 || g.IntN(4) == 0 {
		return g.leaf(kind)
	}
	if g.loops > 0 && g.IntN(12) == 0 {
		return g.pick(loopPatterns[kind]...)
	}
	switch kind {
	case 'S':
		return g.of(g.pick(textPatterns...))
	case 'N':
		return g.of(g.pick(numberPatterns...))
	case 'L':
		return g.of(g.pick(listPatterns...))
	case 'D':
		return g.of(g.pick(dictPatterns...))
	case 'B':
		return g.of(g.pick(truthPatterns...))
	}
	return g.operand("SNLDB"[g.IntN(5)])
}

func (g *grammar) leaf(kind byte) string {
	if len(g.names) > 0 && g.IntN(6) == 0 {
		return g.pick(g.names...)
	}
	switch kind {
	case 'S':
		return g.pick(`'a'`, `"b c"`, `'it\'s'`, `"x\n y"`, `''`, `'Straße'`, `' é😀 '`, `'<b>&'`, `'12'`, `'-3.5'`, `'{}|{0}'`, `s`, `word`, `m.role`, `m['content']`, `lines`, `'a' "b"`, `'see http://a.com, (www.b.org/x?y=1) me@c.de <https://d.net>'`, `'well-known--dash a-b foo-bar-baz co-op 1-2'`, `'ÀΣ ΑΣ ﬁ ǆ i̇'`, `'1e5'`, `' 0x1F '`, `'1_000'`)
	case 'N':
		return g.pick(`0`, `1`, `2`, `-3`, `7`, `10`, `1.5`, `2.0`, `-0.25`, `1e3`, `1_000`, `0x1f`, `n`, `f`, `big`, `m.count`, `true`, `123.456`, `0.000123`, `99999.5`, `-1e21`)
	case 'L':
		return g.pick(`[]`, `[1, 2, 3]`, `['b', 'A', 'c']`, `(1, 'x')`, `()`, `xs`, `words`, `messages`, `mixed`, `[[1, 2], [3, 4]]`, `range(4)`)
	case 'D':
		return g.pick(`{}`, `{'a': 1}`, `{'b': 2, 'a': [1, none]}`, `d`, `m`, `messages[0]`, `{1: 'x', 2.5: 'y', true: 'z'}`)
	case 'B':
		return g.pick(`true`, `false`, `none`, `flag`, `nothing`, `n`, `xs`)
	}
	return g.pick(`none`, `nothing`, `s`, `n`, `xs`, `d`, `nul`, `m.missing`, `f`, `namespace(a=1)`, `1.25`, `('a', 1)`)
}

var textPatterns = []string{
	`$S ~ $A`, `$S + $S`, `$S + $S + $S`, `$S * 2`, `($S)`, `$S[$N]`, `word[1:]`, `lines[:-1]`, `s[::-1]`, `s[$I:$I]`, `lines[$I:$I:$I]`, `word[$I:]`, `word[$I::$I]`,
	`$S|upper`, `$S|lower`, `$S|trim`, `$S|trim('ab')`, `$S|title`, `$S|capitalize`, `$S|replace($S, $S)`, `$S|replace('a', 'b', 1)`,
	`$A|string`, `$A|tojson`, `$D|tojson(indent=2)`, `$L|tojson(indent=1, ensure_ascii=true)`, `$D|tojson(sort_keys=true)`, `$L|tojson(separators=(',', ':'))`,
	`$L|join`, `$L|reverse|join(', ')`, `$L|map('string')|join`, `$L|map('tojson')|join(', ')`, `$L|join($S)`, `$L|join('-', attribute='role')`, `$S|default($S)`, `$A|default('x', true)`, `$S|center(9)`,
	`$S|indent`, `$S|indent(2, true)`, `$S|indent('> ', blank=true)`, `$S|truncate(5)`, `$S|truncate(6, true, '~')`, `$S|truncate(3, leeway=0)`,
	`$S|wordwrap(4)`, `$S|wordwrap(6, false)`, `$S|e`, `$S|escape`, `$S|safe`, `($S|safe) + $S`, `$S|forceescape`, `$S|striptags`, `$S|urlencode`, `$D|urlencode`,
	`$D|xmlattr`, `$N|filesizeformat`, `$N|filesizeformat(true)`, `'%s-%d'|format($S, $N)`, `'%05.1f|%-6s|%x' % ($N, $S, 255)`, `'%(a)s' % $D`, `'%s' % $A`, `'%r' % $S`,
	`'{} {:>5}'.format($S, $N)`, `'{0!r}{1:04d}'.format($S, 7)`, `'{a:^7}|{b}'.format(a=$S, b=$A)`, `'{0.role} {0[content]}'.format(m)`, `'{:,}'.format($N)`, `'{:.2f}'.format($N)`, `'{:e}|{:g}|{:%}'.format($N, $N, $N)`,
	`$S.strip()`, `$S.lstrip('a ')`, `$S.rstrip()`, `$S.upper()`, `$S.lower()`, `$S.title()`, `$S.capitalize()`, `$S.swapcase()`, `$S.replace($S, $S)`, `$S.join(words)`, `$S.zfill(5)`,
	`$S.center(7, '*')`, `$S.ljust(4)`, `$S.rjust(4)`, `$S.removeprefix($S)`, `$S.removesuffix($S)`, `$S.expandtabs(3)`, `$S if $B else $S`, `$S if $B`, `$S or $S`, `$S and $S`, `$L|first`, `$L|last`,
	`$D.get($S)`, `$D.get('a', $S)`, `$D['a']`, `$D.a`, `$S|urlize`, `$S|urlize(8, true, target='_b')`, `$S|wordwrap(5)`, `$S|wordwrap(9, break_on_hyphens=false)`, `'{:$F}'.format($N)`, `'{:$F}|{:$F}'.format($N, $S)`, `'{:$F}'.format(n)`, `'{:$F}'.format(f)`, `'{:$F}'.format(s)`, `'$P' % $N`, `'$P' % n`, `'$P' % f`, `'$P' % s`, `'$P$P'|format($N, $S)`, `'{:{}}'.format($S, 5)`, `'{0[0]}{0[k]}'.format($A)`, `strftime_now('%d %b %Y %H:%M %j %-d %A')`, `$S|reverse`, `($S|e).upper()`, `($S|safe)|replace('<', '>')`, `$S.format($S)`,
}

var numberPatterns = []string{
	`$N + $N`, `$N - $N`, `$N * $N`, `$N / $N`, `$N // $N`, `$N % $N`, `2 ** 3`, `$N ** 2`, `-$N`, `+$N`, `($N)`, `$L|length`, `$S|length`, `$D|count`, `$N|abs`, `$N|round`, `$N|round(1)`, `$N|round(1, 'floor')`, `$N|round(0, 'ceil')`,
	`$S|int`, `$N|int`, `$S|int(7)`, `$S|int(default=3, base=16)`, `$S|float`, `$N|float`, `$S|float(1.5)`, `$L|sum`, `$L|sum(start=2)`, `$L|max`, `$L|min`, `$S|wordcount`, `$S.find($S)`, `$S.rfind('a')`, `$S.count($S)`, `$S.index('a')`,
	`$L.index($N)`, `$L.count(1)`, `$N if $B else $N`, `$L[$N]`, `$L[0]`, `xs[-1]`, `$N or $N`, `$L|first`, `$L|last`, `$N and $N`, `messages|length`, `(1).bit_length()`,
}

var listPatterns = []string{
	`[$A, $A]`, `($A, $A)`, `($A,)`, `[$N, $N, $N]`, `$L + $L`, `$L * 2`, `xs[1:]`, `mixed[::-1]`, `messages[:1]`, `xs[$I:$I]`, `words[$I::$I]`, `$L|list`, `$L|sort`, `$L|sort(reverse=true)`, `messages|sort(attribute='role')`, `$L|sort(case_sensitive=true)`, `$L|unique|list`, `$L|reverse|list`,
	`$L|map('upper')|list`, `messages|map(attribute='role')|list`, `messages|map(attribute='none', default='-')|list`, `$L|map('string')|list`, `$L|select|list`, `$L|select('string')|list`, `$L|reject('none')|list`, `$L|select('gt', 1)|list`, `$L|map('int')|list`, `$L|select('odd')|list`,
	`messages|selectattr('role', 'equalto', 'user')|list`, `messages|rejectattr('role', 'in', ['user'])|list`, `messages|selectattr('tool')|list`, `messages|selectattr('tool', 'defined')|list`, `$L|batch(2)|list`, `$L|batch(2, 'x')|list`, `$L|slice(2)|list`, `$L|slice(3, 0)|list`, `$D|dictsort`, `$D|dictsort(false, 'value')`, `$D|dictsort(reverse=true)`,
	`$D.items()|list`, `$D|items|list`, `$D.keys()|list`, `$D.values()|list`, `$D.items()`, `$D.keys()`, `messages|groupby('role')`, `messages|groupby('role')|map('last')|list`, `$S.split()`, `$S.split(' ')`, `$S.split('a', 1)`, `$S.rsplit(' ', 1)`, `$S.splitlines()`, `$S.splitlines(true)`, `$S.partition('a')`, `$S.rpartition(' ')`, `$S|list`,
	`range(n)`, `range(1, $I)`, `range(7)`, `range(5, 0, -2)|list`, `$L if $B else $L`, `$L or $L`, `dict(a=1)|list`, `$L|map('length')|list`, `$L|map('tojson')|list`, `xs.copy()`, `range(10)[2:8:3]|list`, `$D|list`,
}

var dictPatterns = []string{
	`{'k': $A}`, `{$K: $A, 'z': $N}`, `dict(a=$A)`, `dict($D, b=$N)`, `messages[$N]`, `$D if $B else $D`, `$D or $D`, `$L|first`, `$D.copy()`, `{$K: $A}`, `dict([('q', $N)])`, `namespace(a=$A)`,
}

var truthPatterns = []string{
	`$A == $A`, `$S == $S`, `$N == $N`, `$A != $A`, `$N < $N`, `$N >= $N`, `$S < $S`, `$L < $L`, `1 < $N <= 5`, `$S in $S`, `$N in $L`, `$S in $D`, `$S not in $L`, `not $A`, `$A and $A`, `$A or $A`, `$B and not $B`, `($B)`,
	`$A is defined`, `$A is undefined`, `$A is not defined`, `$A is none`, `$A is string`, `$A is number`, `$A is mapping`, `$A is iterable`, `$A is sequence`, `$A is boolean`, `$A is integer`, `$A is float`, `$A is true`, `$A is false`, `$A is callable`, `$A is escaped`,
	`$N is odd`, `$N is even`, `$N is divisibleby 3`, `$N is divisibleby($N)`, `$S is lower`, `$S is upper`, `$A is eq $A`, `$N is gt 2`, `$N is lessthan $N`, `$A is in $L`, `$A is sameas none`, `$S.startswith($S)`, `$S.endswith(('a', 'b'))`, `$S.isdigit()`, `$S.isalpha()`, `$S.isspace()`, `$S.islower()`, `$S.istitle()`,
	`'upper' is filter`, `'odd' is test`, `$L == $L`, `$D == $D`, `m.tool is defined and m.tool`, `$S.isalnum()`, `'x' is filter`,
}

var loopPatterns = map[byte][]string{
	'S': {`loop.cycle('a', 'b')`, `loop.index|string`},
	'N': {`loop.index`, `loop.index0`, `loop.length`, `loop.revindex`, `loop.revindex0`, `loop.depth`},
	'L': {`[loop.previtem, loop.nextitem]`, `[loop.index]`},
	'D': {`{'i': loop.index}`},
	'B': {`loop.first`, `loop.last`, `loop.changed(loop.index)`, `loop.previtem is defined`},
	'A': {`loop.previtem`, `loop.nextitem`, `loop.nothing`},
}

// template generates a template.
func (g *grammar) template() string {
	g.depth, g.names, g.loops, g.macro = 0, nil, 0, 0
	if g.IntN(8) == 0 {
		return g.soup()
	}
	if g.IntN(3) == 0 {
		return "{{ " + g.operand("SNLDBA"[g.IntN(6)]) + " }}"
	}
	return g.block(0)
}

func (g *grammar) formatSpec() string {
	return g.pick("", "", "*", "é") + g.pick("<", ">", "^", "=", "") + g.pick("", "+", "-", " ") + g.pick("", "", "#") + g.pick("", "0") + g.pick("", "3", "12") + g.pick("", "", ",", "_") + g.pick("", "", ".0", ".3") +
		g.pick("", "d", "f", "e", "g", "%", "s", "x", "X", "b", "o", "c", "n", "E", "G", "q")
}

func (g *grammar) percentSpec() string {
	return "%" + g.pick("", "", "(a)") + g.pick("", "-", "+", " ", "0", "#", "0-", "+#") + g.pick("", "3", "12") + g.pick("", "", ".0", ".3") + g.pick("d", "i", "f", "e", "g", "s", "r", "a", "x", "X", "o", "c", "E", "G", "F", "%", "q")
}

// soup generates a random sequence of delimiters, signs and fragments for the
// lexer.
func (g *grammar) soup() string {
	var b strings.Builder
	for range 1 + g.IntN(12) {
		b.WriteString(g.pick(soupParts...))
	}
	return b.String()
}

var soupParts = []string{
	"{{ n }}", "{{- s -}}", "{{n}}", "{%", "%}", "{#", "#}", "{{", "}}", "-", "+", "raw", "endraw", "\n", "\n", "\n\n", "  ", " ", "\t", "\r\n", "\r", "x", "x ", " y",
	"{% if n %}", "{%- if n -%}", "{%+ if n +%}", "{% endif %}", "{%- endif -%}", "{%+ endif +%}", "{% endif +%}\n", "  {% if n %}\n", "  {% else %}\n", "{% raw %}", "{%- raw -%}", "{%+ raw %}", "{% raw -%}",
	"{% endraw %}", "{%- endraw -%}", "{%+ endraw +%}", "{%endraw%}\n", "{# c #}", "{#- c -#}", "{#+ c +#}\n", "{##}", "{#-#}", "{#--#}", "  {# c #}\n", "'", "\"", "(", ")", "[", "]", "{", "}", "|", "~", "{{ {'a': {}} }}", "{{ 1_0.5e+2 }}", "{{ 08 }}",
	"{{ 1..bit_length() }}", "{{ 'a\\nb' }}", "{{ \"\\x41\\u00e9\\'\" }}", "{% set a = 1 %}", "{% set a = 1 -%}\n ", "{{ a.b }}", "{{ é }}", "\u00a0", "\x1c", "{{ n!= 1 }}", "{{ n==3and s }}", "{{ not n in [1] }}", "{{ n is not none }}", "{{ -n**2 }}", "{{ 1if n else 2 }}", "{% if n %}a{% elif s %}b{% else %}c{% endif %}",
}

func (g *grammar) block(depth int) string {
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString(g.pick("", " ", "\n", "  \n  ", "text ", "\n  x", "a\tb\n", "}", "{ "))
		b.WriteString(g.statement(depth))
	}
	b.WriteString(g.pick("", "\n", " end", "\n\n"))
	return b.String()
}

// tag generates a tag with random white-space control.
func (g *grammar) tag(code string) string {
	return "{%" + g.pick("", "", "-", "+") + " " + code + " " + g.pick("", "", "-", "+") + "%}"
}

func (g *grammar) name() string {
	name := g.pick("v", "w", "x", "s", "n", "ns")
	g.names = append(g.names, name)
	return name
}

func (g *grammar) statement(depth int) string {
	if depth > 3 {
		return g.print()
	}
	saved := g.names
	defer func() { g.names = saved[:len(saved):len(saved)] }()
	body := func() string { return g.block(depth + 1) }
	switch g.IntN(20) {
	case 0, 1:
		s := g.tag("if "+g.operand('B')) + body()
		if g.IntN(2) == 0 {
			s += g.tag("elif "+g.operand('B')) + body()
		}
		if g.IntN(2) == 0 {
			s += g.tag("else") + body()
		}
		return s + g.tag("endif")
	case 2, 3, 4:
		return g.loop(body)
	case 5, 6:
		value := g.operand("SNLDBA"[g.IntN(6)])
		s := g.tag("set " + g.name() + " = " + value)
		saved = g.names
		return s
	case 7:
		s := g.tag("set "+g.pick("v", "w")+g.pick("", " | upper", " | trim | length")) + body() + g.tag("endset")
		saved = append(saved, "v")
		return s
	case 8:
		return g.tag("set ns = namespace(a=1, b='')") + g.tag("for i in "+g.operand('L')) + g.tag("set ns.a = "+g.operand('A')) + g.pick("", g.tag("set i = ns")) + g.tag("endfor") + "{{ ns.a }}{{ ns.b }}{{ ns.c }}"
	case 9:
		return g.macroCall(body)
	case 10:
		return g.tag("with v = "+g.operand('A')+g.pick("", ", w = v")) + body() + "{{ v }}" + g.tag("endwith")
	case 11:
		return g.tag("filter "+g.pick("upper", "trim", "replace('a', 'b')", "indent(2)|title", "e", "truncate(20)")) + body() + g.tag("endfilter")
	case 12:
		return g.tag("raw") + g.pick("{{ x }}", "{% if %}", " \n ", "{# #}") + g.tag("endraw")
	case 13:
		return "{#" + g.pick("", "-", "+") + " comment {{ x }} " + g.pick("", "-", "+") + "#}"
	case 14:
		return g.tag("generation") + body() + g.tag("endgeneration")
	case 15:
		return g.tag("if "+g.operand('B')) + "{{ raise_exception(" + g.operand('S') + ") }}" + g.tag("endif")
	case 16:
		if g.loops > 0 {
			return g.tag("if "+g.operand('B')) + g.tag(g.pick("break", "continue")) + g.tag("endif")
		}
	}
	return g.print()
}

func (g *grammar) print() string {
	return "{{" + g.pick("", "-") + " " + g.operand("SNLDBA"[g.IntN(6)]) + " " + g.pick("", "-") + "}}"
}

func (g *grammar) loop(body func() string) string {
	target, items := "x", g.operand('L')
	switch g.IntN(6) {
	case 0:
		target, items = "x, v", g.operand('D')+".items()"
	case 1:
		target, items = "x, v", g.pick("[[1, 2], [3, 4]]", "d|dictsort", "messages|groupby('role')", "d|items")
	case 2:
		items = "messages"
	case 3:
		items += g.pick("|reverse", "|map('string')", "|select", "|unique", "|reject('none')", "|batch(2)")
	}
	g.names = append(g.names, strings.Split(target, ", ")...)
	head := "for " + target + " in " + items
	if g.IntN(4) == 0 {
		head += " if " + g.operand('B')
	}
	if g.IntN(8) == 0 {
		return g.tag(head+" recursive") + "{{ x }}{{ loop.depth }}" + g.pick("{{ loop([1, 2]) if loop.depth < 3 }}", "{{ loop(x) if x is iterable and x is not string and loop.depth < 4 }}") + g.tag("endfor")
	}
	g.loops++
	s := g.tag(head) + body() + g.pick("", "{{ loop.index }}/{{ loop.length }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.previtem }}|{{ loop.nextitem }}", "{{ loop.cycle('a', 'b') }}", "{{ loop.changed(x) }}", "{{ loop.revindex0 }}")
	g.loops--
	if g.IntN(4) == 0 {
		s += g.tag("else") + body()
	}
	return s + g.tag("endfor")
}

func (g *grammar) macroCall(body func() string) string {
	g.macro++
	name := fmt.Sprintf("mac%d", g.macro)
	loops := g.loops
	g.loops = 0
	s := g.tag("macro "+name+"("+g.pick("", "p", "p, q=2", "p=s, q=p")+")") + "{{ p }}" + g.pick("", "{{ q }}", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}", "{{ caller(1) if caller }}") + body() + g.tag("endmacro")
	g.loops = loops
	switch g.IntN(4) {
	case 0:
		return s + g.tag("call "+g.pick("", "(y) ")+name+"("+g.pick("", "1", "q=3")+")") + "in{{ y }}" + g.tag("endcall")
	case 1:
		return s + "{{ " + name + "(" + g.pick("", "1, 2, 3", "p=1", "1, z=2", "*xs", "**d") + ") }}"
	case 2:
		return s + "{{ " + name + "(" + g.operand('A') + ")|" + g.pick("upper", "length", "trim", "list") + " }}{{ " + name + ".name }}"
	}
	return s + "{{ " + name + "(" + g.operand('A') + ") }}{{ " + name + " }}"
}
