package spec

// shape is every way in which a value may be written: in words for the
// reference, and as JSON Schema for editors. The schema may let through what
// the parser refuses, but never the other way round.
type shape struct {
	words  string
	schema schema
}

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// anyOf joins shapes under words of its own.
func anyOf(words string, options ...shape) shape {
	list := make([]schema, len(options))
	for i, o := range options {
		list[i] = o.schema
	}
	return shape{words, schema{"anyOf": list}}
}

// like is a shape with words of its own.
func (s shape) like(words string) shape { return shape{words, s.schema} }

// oneOf is one of some words.
func oneOf(words ...string) shape {
	text := ""
	for i, w := range words {
		if i > 0 {
			text += ", "
		}
		text += "`" + w + "`"
	}
	return shape{text, schema{"enum": words}}
}

// pattern is text that an ECMAScript expression matches.
func pattern(words, expression string) shape {
	return shape{words, schema{"type": "string", "pattern": expression}}
}

// or adds other types: what YAML makes of an unquoted word.
func (s shape) or(types ...string) shape {
	return anyOf(s.words, s, shape{"", schema{"type": types}})
}

func numeric(words string, more schema) shape {
	s := schema{"type": "number"}
	for k, v := range more {
		s[k] = v
	}
	return shape{words, s}
}

// defined are the values that the schema describes once, by name.
var defined = schema{}

// define gives a shape a name in the schema.
func define(name string, s shape) shape {
	defined[name] = s.schema
	return shape{s.words, schema{"$ref": "#/$defs/" + name}}
}

// wholeBetween is a whole number within bounds, or one as text.
func wholeBetween(least, most int) shape {
	return anyOf("whole number", numeric("", schema{"minimum": least, "exclusiveMaximum": most + 1}), pattern("", wholeExpression))
}

// atMostItems bounds a list.
func (s shape) atMostItems(n int) shape {
	bounded := schema{"maxItems": n}
	for k, v := range s.schema {
		bounded[k] = v
	}
	return shape{s.words, bounded}
}

func listOf(words string, item shape) shape {
	return shape{words, schema{"type": "array", "items": item.schema}}
}

// mappingOf is a mapping with any keys.
func mappingOf(words string, value shape) shape {
	return shape{words, schema{"type": "object", "additionalProperties": value.schema}}
}

// blockShape is a mapping that is described elsewhere. In words, a name in
// braces is a link to its table.
func blockShape(name string) shape {
	return shape{"{" + name + "}", schema{"$ref": "#/$defs/" + name}}
}

// What YAML makes of an unquoted word may be text, a number or a bool; all
// of them are read as text.
var textShape = define("text", shape{"text", schema{"type": []string{"string", "number", "boolean"}}})

var filledShape = define("text.filled", shape{"text", schema{"type": []string{"string", "number", "boolean"}, "minLength": 1}})

var boolShape = define("bool", shape{"`true` or `false`", schema{"anyOf": []schema{
	{"type": "boolean"},
	{"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff]|[01TtFfYyNn])$"},
	{"enum": []int{0, 1}},
}}})

var textsShape = define("texts", listOf("list of text", textShape))

var nothingShape = shape{"nothing", schema{"type": "null"}}

// The grammars of values, as expressions. Spaces are allowed where the
// parsers take them out.
const (
	wholeNumber     = `([+] *[0-9]|- *0|[0-9])[0-9 ]*`
	wholeExpression = `^\s*([+]?[0-9]+|-0+)\s*$`
	sizeExpression  = `([+] *)?([0-9][0-9 ]*[.]?[0-9 ]*|[.][0-9 ]+)([Ee] *([+-] *)?[0-9][0-9 ]*)?([TtGgMm] *[Bb])?`
	floatExpression = `^\s*[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([Ee][+-]?[0-9]+)?\s*$`
	portExpression  = `[+]?0*[0-9]{1,5}`
	rangeMark       = `[.] *[.]`

	durationExpression = `^\s*([+]?[0-9]+|-0+|[0-9]+ *[smhdw])\s*$`
)

func rangePattern(words, one string) shape {
	end := " *(" + one + ")? *"
	return pattern(words, "^("+" *"+one+" *|"+end+rangeMark+end+")$")
}

var (
	aboveZeroShape = define("number", anyOf("number above 0", numeric("", schema{"exclusiveMinimum": 0}), pattern("", floatExpression)))

	countEnd   = define("count", anyOf("whole number", numeric("", schema{"minimum": 0, "maximum": mostCount}), pattern("", "^ *"+wholeNumber+" *$")))
	countShape = define("counts", anyOf("whole number or range: `4`, `4..8`, `4..`, `..8`", countEnd, rangePattern("", wholeNumber), endsOf("range.count")))

	sizeShape      = define("size", anyOf("size: `16GB`, `512MB`, `1.5TB`", numeric("", schema{"minimum": 0}), pattern("", "^ *"+sizeExpression+" *$")))
	sizeTextShape  = define("sizes", anyOf("size or range: `24GB`, `24GB..`, `24GB..80GB`, `..80GB`", numeric("", schema{"minimum": 0}), rangePattern("", sizeExpression)))
	sizeRangeShape = anyOf(sizeTextShape.words, sizeTextShape, endsOf("range.size"))

	durationShape = define("duration", anyOf("duration: `90s`, `5m`, `2h`, `1d`, `2w`, or seconds", numeric("", schema{"minimum": 0}),
		pattern("", durationExpression), offWord, offBool))
	offWord, offBool = pattern("", "^([Oo][Ff][Ff]|[Nn][Oo])$"), shape{"", schema{"const": false}}

	portShape = anyOf("port: `8000`; `80:8000` is accepted, and the first number ignored",
		numeric("", schema{"minimum": 1, "exclusiveMaximum": 65536}), pattern("", `^\s*(0*[0-9]{1,5}:)?`+portExpression+`\s*$`), blockShape("port"))
)

// endsOf is the mapping form of a range: range.count or range.size.
func endsOf(name string) shape { return shape{"", schema{"$ref": "#/$defs/" + name}} }

// rangeEnds are the mappings that endsOf names.
func rangeEnds() map[string]schema {
	ends := func(one shape) schema {
		end := orNull(one.schema)
		return schema{"type": "object", "additionalProperties": false, "minProperties": 1, "properties": schema{"min": end, "max": end},
			"description": "A range: from min to max, both included. What is left out is open."}
	}
	return map[string]schema{"range.count": ends(countEnd), "range.size": ends(sizeShape)}
}

func orNull(s schema) schema { return schema{"anyOf": []schema{s, {"type": "null"}}} }
